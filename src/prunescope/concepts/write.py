"""Write data sets in Broden's format, one image after the other."""

from __future__ import annotations

import csv
import json
import posixpath
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from prunescope.concepts.chunks import by_chunks
from prunescope.concepts.index import FIXED, GROUP, Size, path_problem
from prunescope.concepts.saving import save_labels, save_picture
from prunescope.errors import InputError
from prunescope.files import check_folder, expanded, name_problem, part_path
from prunescope.progress import Shown, shown_progress

MOST_CONCEPTS = 65_535  # A number has to fit into the red and the green channel of a label file.
ABOUT = "about.json"
Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """One image with its labels, to be written by `write_concepts`.

    Attributes
    ----------
    name : str
        The path of the image below the folder of the images, without a suffix, such as `street/0012`.
    image : uint8 array [ih, iw, 3] or bytes
        The image in RGB, which is saved as PNG, or the content of an image file. The content of a JPEG or PNG file is
        written unchanged.
    labels : mapping of str to a sequence of int or int array [sh, sw]
        For each category, its labels: a number for a concept that the whole image has, or an array with the number of
        the concept that each pixel has (0 for none). Concepts that overlap need several arrays.
    split : str
        The part of the data set that the image belongs to, such as `train` or `val`.
    group : str
        Images with the same text belong together, such as frames of one film. By default, an image belongs to no other.
    """

    name: str
    image: NDArray[np.uint8] | bytes
    labels: Mapping[str, Sequence[int | NDArray[Any]]] = field(default_factory=dict)
    split: str = "train"
    group: str = ""


class _Written(NamedTuple):
    """What is known of an image that has been written."""

    name: str
    cells: tuple[str, ...]  # the cells of index.csv that follow the sizes
    split: str
    size: Size
    pixels: tuple[dict[int, int], ...]  # for each category, the number of pixels of each concept in the image


def write_concepts(
    directory: str | Path,
    images: Iterable[Any],
    names: Sequence[str],
    *,
    categories: Sequence[str] = ("object",),
    read: Callable[[Any], LabelledImage] | None = None,
    about: Mapping[str, Any] | None = None,
    workers: int | None = None,
    progress: Shown = "auto",
) -> Path:
    """Write a data set in Broden's format.

    Images are written as they come, so that the memory needed does not grow with their number. The data set is written
    beside the folder and renamed at the end. If writing fails or is interrupted, nothing is left behind.

    Parameters
    ----------
    directory : str or Path
        The folder of the data set, which must not exist or be empty.
    images : iterable of LabelledImage
        The images, which must all have the same size, and so must their labels. If `read` is given, a sequence of
        anything that `read` turns into a `LabelledImage`.
    names : sequence of str
        The names of the concepts: number n is `names[n - 1]`. Concepts that no image has are left out of the tables.
    categories : sequence of str
        The categories.
    read : callable, optional
        The function that turns an item of `images` into a `LabelledImage`. It is called in several processes and must
        support pickling.
    about : mapping, optional
        Where the data set comes from, which is stored in about.json.
    workers : int, optional
        The number of processes if `read` is given. By default, it is the number of processors.
    progress : callable, 'auto' or False
        Called with the number of images written and the total number of images (0 if unknown). By default, a bar is
        shown on standard error if it is a terminal or belongs to a notebook. False turns this off.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If the folder contains something, if there is no image, if sizes differ, or if a name, a category, a number or
        an image cannot be used.

    Examples
    --------
    >>> import tempfile
    >>> image = np.zeros((4, 6, 3), np.uint8)
    >>> left = np.array([[1, 1, 1, 0, 0, 0]] * 4)
    >>> folder = Path(tempfile.mkdtemp()) / "mine"
    >>> _ = write_concepts(folder, [LabelledImage("first", image, {"object": [left]})], ["dog", "cat"])
    >>> print((folder / "label.csv").read_text().strip())
    number,name,category,frequency,coverage,syns
    1,dog,object(1),1,0.500000,
    """
    folder = expanded(directory)
    _check_names(names, categories)
    check_new(folder)
    write = partial(_write_chunk, len(names), tuple(categories))
    with _beside(folder) as part, shown_progress(progress, "writing") as report:
        if read is None:
            total = len(images) if isinstance(images, Sized) else 0
            written = _one_by_one(partial(write, part, _itself), images, lambda done: report(done, total))
        else:
            written = by_chunks(partial(write, part, read), cast("Sequence[Any]", images), workers, report)
        with (part / "index.csv").open("w", encoding="utf-8", newline="") as file:
            tally = _write_index(folder, file, categories, (one for chunk in written for one in chunk))
        _write_tables(part, names, tally)
        if about is not None:
            (part / ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder


def check_new(folder: Path) -> None:
    """Raise if a data set cannot be written to a folder, because it contains something or cannot be made.

    Raises
    ------
    InputError
        If the folder is not empty, or if it or its parents cannot be written to.
    """
    check_folder(folder)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(
            f"{folder} contains files already; remove it, or give a folder that does not exist or is empty"
        )


def _itself(image: LabelledImage) -> LabelledImage:
    return image


def _check_names(names: Sequence[str], categories: Sequence[str]) -> None:
    if not categories:
        raise InputError("there is no category; give at least one, such as 'object'")
    for category in categories:
        if name_problem(category) or category in (*FIXED, GROUP) or set(category) & set(";()"):
            raise InputError(f"{category!r} cannot be the name of a category; choose a plain word, such as 'object'")
    for what, given in (("category", categories), ("concept", names)):
        seen: set[str] = set()
        for name in given:
            if name in seen:
                raise InputError(f"the {what} {name!r} is there twice; give each {what} once")
            seen.add(name)
    for number, name in enumerate(names, 1):
        if not name.strip() or name != name.strip() or not name.isprintable():
            raise InputError(f"concept {number} has the name {name!r}; expected text without blanks around it")
    if not 1 <= len(names) <= MOST_CONCEPTS:
        raise InputError(f"there are {len(names):,} concepts; Broden's format has room for 1 to {MOST_CONCEPTS:,}")


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder`; rename it to `folder` on success and remove it on failure."""
    whole = folder.resolve()
    part = part_path(whole)
    try:
        (part / "images").mkdir(parents=True)
        yield part
        try:
            part.replace(whole)
        except OSError:
            check_new(folder)  # Another process may have written something there in the meantime.
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _one_by_one(
    write: Callable[[Sequence[Item]], list[_Written]], items: Iterable[Item], report: Callable[[int], None]
) -> Iterator[list[_Written]]:
    for done, item in enumerate(items, 1):
        yield write([item])
        report(done)


def _write_chunk(
    concepts: int,
    categories: tuple[str, ...],
    part: Path,
    read: Callable[[Item], LabelledImage],
    items: Sequence[Item],
) -> list[_Written]:
    return [_write_one(part, read(item), concepts, categories) for item in items]


def _write_one(part: Path, image: LabelledImage, concepts: int, categories: tuple[str, ...]) -> _Written:
    name = image.name
    if problem := _name_problem(name):
        raise InputError(f"the image's name {name!r} {problem}; rename it")
    if unknown := [category for category in image.labels if category not in categories]:
        raise InputError(f"{name}: its labels have the category {unknown[0]!r}; there are: {', '.join(categories)}")
    file, size = save_picture(part / "images" / "pictures", name, image.image)
    shapes = {item.shape for items in image.labels.values() for item in items if not isinstance(item, int)}
    if len(shapes) > 1 or any(len(shape) != 2 for shape in shapes):
        raise InputError(f"{name}: its labels are arrays of {sorted(shapes)}; expected one shape [sh, sw]")
    labels_size = next(iter(shapes), size)
    cells, pixels = [], []
    for category in categories:
        cell: list[str] = []
        count: dict[int, int] = {}
        layers: list[NDArray[Any]] = []
        for item in image.labels.get(category, ()):
            if isinstance(item, int):
                _check_range(name, category, item, item, concepts)
                if item:
                    cell.append(str(item))
                    count[item] = labels_size[0] * labels_size[1]
                continue
            if item.dtype.kind not in "ui":
                raise InputError(f"{name}: its labels are an array of {item.dtype}; expected whole numbers")
            _check_range(name, category, int(item.min()), int(item.max()), concepts)
            if item.any():
                cell.append(f"labels/{category}/{name}_{len(layers)}.png")
                save_labels(part / "images" / cell[-1], item)
                layers.append(item)
        found = _count(layers)
        cells.append(";".join(cell))
        pixels.append(found | count)
    return _Written(f"pictures/{file}", (*cells, image.group), image.split, Size(*size, *labels_size), tuple(pixels))


def _name_problem(name: str) -> str | None:
    if ";" in name:
        return "has a semicolon in it"
    return path_problem(name) or (None if posixpath.normpath(name) == name else "has empty parts in it")


def _check_range(name: str, category: str, least: int, most: int, concepts: int) -> None:
    if least < 0 or most > concepts:
        wrong = least if least < 0 else most
        raise InputError(
            f"{name}: its labels of the category {category!r} have the number {wrong}; expected numbers from 0 (no "
            f"label) to {concepts}, the number of names"
        )


def _count(layers: Sequence[NDArray[Any]]) -> dict[int, int]:
    """Return the number of pixels of each concept, each of which counts once on a pixel, whichever layer names it."""
    total: dict[int, int] = {}
    for layer in layers:
        counts = np.bincount(layer.ravel())
        for number in np.flatnonzero(counts[1:]) + 1:
            key = int(number)
            if key in total:
                total[key] = int(np.any([other == key for other in layers], axis=0).sum())
            else:
                total[key] = int(counts[key])
    return total


@dataclass
class _Tally:
    """Sums over all images: for each category and number, how many images and what share of them a concept covers."""

    frequency: dict[str, dict[int, int]]
    coverage: dict[str, dict[int, float]]
    labelled: dict[str, int]


def _write_index(folder: Path, file: TextIO, categories: Sequence[str], images: Iterator[_Written]) -> _Tally:
    table = csv.writer(file, lineterminator="\n")
    table.writerow(("image", "split", *Size._fields, *categories, GROUP))
    tally = _Tally({name: {} for name in categories}, {name: {} for name in categories}, dict.fromkeys(categories, 0))
    first: _Written | None = None
    known: set[str] = set()
    for image in images:
        first = first or image
        stem = image.name.rpartition(".")[0]
        if stem in known:
            raise InputError(f"there are two images called {stem.removeprefix('pictures/')!r}; rename one of them")
        known.add(stem)
        _check_size(first, image)
        table.writerow((image.name, image.split, *image.size, *image.cells))
        area = image.size.sh * image.size.sw
        for category, pixels in zip(categories, image.pixels, strict=True):
            tally.labelled[category] += bool(pixels)
            frequency, coverage = tally.frequency[category], tally.coverage[category]
            for number, count in pixels.items():
                frequency[number] = frequency.get(number, 0) + 1
                coverage[number] = coverage.get(number, 0.0) + count / area
    if first is None:
        raise InputError(f"{folder}: there is no image to write; give at least one")
    if not any(tally.labelled.values()):
        raise InputError(f"{folder}: none of the {len(known):,} images has a label; give images with labels")
    return tally


def _check_size(first: _Written, image: _Written) -> None:
    for what, one, other in (
        ("", image.size[:2], first.size[:2]),
        ("the labels of ", image.size[2:], first.size[2:]),
    ):
        if one != other:
            raise InputError(
                f"{what}{image.name}: {one[0]} x {one[1]} pixels (height x width), but {what}{first.name}: {other[0]} "
                f"x {other[1]}; all images of a data set have one size, and so have all labels: resize or crop them "
                "before they are written (labels by nearest neighbour)"
            )


def _write_tables(part: Path, names: Sequence[str], tally: _Tally) -> None:
    memberships: dict[int, list[str]] = {}
    with _table(part / "category.csv", ("name", "first", "last", "count", "frequency")) as table:
        for category, frequency in tally.frequency.items():
            numbers = sorted(frequency)
            first, last = (numbers[0], numbers[-1]) if numbers else (0, 0)
            table.writerow((category, first, last, len(numbers), tally.labelled[category]))
            for number in numbers:
                memberships.setdefault(number, []).append(category)
    for category, frequency in tally.frequency.items():
        with _table(part / f"c_{category}.csv", ("code", "number", "name", "frequency", "coverage")) as table:
            for code, number in enumerate(sorted(frequency), 1):
                coverage = f"{tally.coverage[category][number]:.6f}"
                table.writerow((code, number, names[number - 1], frequency[number], coverage))
    with _table(part / "label.csv", ("number", "name", "category", "frequency", "coverage", "syns")) as table:
        for number, kinds in sorted(memberships.items()):
            counts = {kind: tally.frequency[kind][number] for kind in kinds}
            cell = ";".join(f"{kind}({count})" for kind, count in counts.items())
            coverage = f"{sum(tally.coverage[kind][number] for kind in kinds):.6f}"
            table.writerow((number, names[number - 1], cell, sum(counts.values()), coverage, ""))


@contextmanager
def _table(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        yield table
