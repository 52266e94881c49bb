"""Write the miniature as a data set, both in Broden's format and for image classification."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from prunescope.bounds import MOST_DRAWN, MOST_WORKERS, check_count, is_whole, shown
from prunescope.children import end_with_parent
from prunescope.concepts.saving import save_labels, save_png
from prunescope.errors import InputError
from prunescope.files import part_path
from prunescope.miniature.scenes import draw
from prunescope.miniature.vocabulary import CATEGORIES, NAMES, SCENES, vocabulary
from prunescope.progress import Progress, Shown, shown_progress
from prunescope.reading import read_json

_WORLD = 1  # The version of the drawings. It has to change whenever the images of a seed change.
_MARK = "miniature.json"
_PART = "miniature"
_PARTS = f".{_PART}.*.part"
_CHUNK = 32
SMALLEST, LARGEST = 16, 1024


@dataclass(frozen=True)
class _Settings:
    images: int
    seed: int
    size: int
    world: int = _WORLD


@dataclass(frozen=True)
class _Tally:
    """Rows of index.csv with the indices of their images, and the numbers of images and pixels of each concept."""

    rows: list[tuple[int, str]]
    images: np.ndarray  # int64 [concepts + 1]
    pixels: np.ndarray  # int64 [concepts + 1]


def make_miniature(
    directory: str | Path,
    images: int,
    *,
    seed: int,
    size: int = 64,
    workers: int | None = None,
    progress: Shown = "auto",
) -> Path:
    """Write a miniature data set: drawn images with exact concept labels, which need no download.

    The folder contains a data set in Broden's format with all six categories. In addition, `classification/train` and
    `classification/val` contain the same images sorted by scene, in the layout of torchvision's `ImageFolder`. Image i
    shows scene i modulo 16, and the last 16 of every 64 images belong to the validation split. The folder appears only
    when it is complete. If it already contains the same miniature, nothing is done.

    Parameters
    ----------
    directory
        The folder to write. It must be absent, empty, or contain the same miniature.
    images
        The number of images.
    seed
        The seed of the data set. Image i of a seed is the same for every number of images.
    size
        The side of the images and labels in pixels, from 16 to 1024.
    workers
        The number of processes that draw. By default, it is the number of processors.
    progress
        Called with the number of images written and the total number of images. By default, a bar is shown on standard
        error if it is a terminal or belongs to a notebook. False turns this off.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If a number is out of range, or if the folder contains something else.
    OSError
        If the data set cannot be written. No incomplete files are left behind.

    Examples
    --------
    >>> import tempfile
    >>> folder = make_miniature(tempfile.mkdtemp(), images=2, seed=7)
    >>> sorted(file.name for file in folder.iterdir())[-3:]
    ['index.csv', 'label.csv', 'miniature.json']
    """
    folder = Path(directory)
    settings = _Settings(images, seed, size)
    _check(settings)
    if workers is not None:
        check_count("workers", workers, 1, MOST_WORKERS)
    if _is_made(folder, settings):
        return folder
    with _beside(folder, settings) as part:
        (part / "images").mkdir()
        with shown_progress(progress, "drawing") as report:
            tally = _draw_all(part, settings, workers or _processors(), report)
        _write_tables(part, settings, tally)
        (part / _MARK).write_text(json.dumps(asdict(settings)) + "\n", encoding="utf-8")
    return folder


def _processors() -> int:
    """Return the number of processors that this process may use, or of all processors if that is not known."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check(settings: _Settings) -> None:
    if not is_whole(settings.images) or not 1 <= settings.images <= MOST_DRAWN:
        raise InputError(
            f"the number of images is {shown(settings.images)}, expected a whole number from 1 to {MOST_DRAWN:,}"
        )
    if not is_whole(settings.seed) or not 0 <= settings.seed < 2**64:
        raise InputError(f"seed is {shown(settings.seed)}, expected a whole number from 0 to 2^64 - 1")
    if not is_whole(settings.size) or not SMALLEST <= settings.size <= LARGEST:
        raise InputError(
            f"size is {shown(settings.size)}, expected the side of the images in pixels, from {SMALLEST} to {LARGEST}"
        )


def _is_made(folder: Path, settings: _Settings) -> bool:
    """Return whether the folder contains the same miniature; raise if it contains anything else."""
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder for the miniature")
    if not os.path.lexists(folder / _MARK):
        if any(not path.match(_PARTS) for path in folder.iterdir()):
            raise InputError(f"{folder} contains other files; give a folder that does not exist or is empty")
        return False
    held = read_json(folder / _MARK, "remove the folder or give another")
    wanted = asdict(settings)
    if held == wanted and (folder / "index.csv").is_file():
        return True
    raise InputError(
        f"{folder} contains a miniature of other settings ({_listed(held)}) than the given ones ({_listed(wanted)}); "
        "remove it or give another folder"
    )


def _listed(settings: object) -> str:
    if not isinstance(settings, dict):
        return "unknown"
    return ", ".join(f"{name} {value}" for name, value in settings.items())


@contextmanager
def _beside(folder: Path, settings: _Settings) -> Iterator[Path]:
    """Yield a new temporary folder; make it `folder` on success and remove it on failure.

    It is beside `folder` or, if that exists already, inside it, because an existing folder may be the only place that
    can be written to, such as a mounted volume.
    """
    whole = folder.resolve()
    inside = whole.is_dir()
    part = part_path(whole / _PART if inside else whole)
    try:
        part.mkdir(parents=True)
        yield part
        try:
            if inside:
                for entry in sorted(part.iterdir(), key=lambda entry: entry.name == _MARK):
                    entry.replace(whole / entry.name)
            else:
                part.replace(whole)
        except OSError:
            # Another process may have written the same miniature in the meantime.
            if not _is_made(folder, settings):
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _draw_all(part: Path, settings: _Settings, workers: int, progress: Progress) -> _Tally:
    chunks = [range(first, min(first + _CHUNK, settings.images)) for first in range(0, settings.images, _CHUNK)]
    for split in ("train", "val"):
        for scene in {SCENES[i % len(SCENES)] for i in range(settings.images) if _split(i) == split}:
            (part / "classification" / split / scene).mkdir(parents=True)
    tallies: list[_Tally] = []
    done = 0
    for tally in _map(part, settings, chunks, workers):
        tallies.append(tally)
        done += len(tally.rows)
        progress(done, settings.images)
    return _Tally(
        sorted(row for tally in tallies for row in tally.rows),
        np.sum([tally.images for tally in tallies], axis=0),
        np.sum([tally.pixels for tally in tallies], axis=0),
    )


def _map(part: Path, settings: _Settings, chunks: list[range], workers: int) -> Iterator[_Tally]:
    if workers == 1 or len(chunks) == 1:
        for chunk in chunks:
            yield _draw_chunk(part, settings, chunk)
        return
    # Processes are forked where possible, so that scripts without an `if __name__ == "__main__"` guard work.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    with ProcessPoolExecutor(workers, multiprocessing.get_context(method), _start_worker) as pool:
        try:
            for future in as_completed([pool.submit(_draw_chunk, part, settings, chunk) for chunk in chunks]):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Ignore Ctrl-C in a worker process, which the main process handles, and end when the main process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _split(index: int) -> str:
    return "val" if index // len(SCENES) % 4 == 3 else "train"


def _draw_chunk(part: Path, settings: _Settings, chunk: range) -> _Tally:
    numbers = vocabulary()
    places = {
        category: np.array([0, *numbers[category].values()], np.int64) for category in CATEGORIES if category != "scene"
    }
    concepts = 1 + sum(len(names) for names in NAMES.values())
    images, pixels = np.zeros(concepts, np.int64), np.zeros(concepts, np.int64)
    rows = []
    for index in chunk:
        picture = draw(settings.seed, index, settings.size)
        name = f"{index:06d}"
        file = part / "images" / f"{name}.png"
        save_png(file, picture.image)
        scene = SCENES[picture.scene]
        _link(file, part / "classification" / _split(index) / scene / file.name)
        cells = [file.name, _split(index), *[str(settings.size)] * 4]
        counts = np.zeros(concepts, np.int64)
        for category in CATEGORIES:
            if category == "scene":
                number = numbers["scene"][scene]
                counts[number] = settings.size**2
                cells.append(str(number))
                continue
            written = []
            for place, layer in enumerate(picture.layers[category]):
                if layer.any():
                    written.append(f"{name}_{category}{place or ''}.png")
                    labels = places[category][layer]
                    save_labels(part / "images" / written[-1], labels)
                    counts += np.bincount(labels.ravel(), minlength=concepts)
            cells.append(";".join(written))
        counts[0] = 0
        images += counts > 0
        pixels += counts
        rows.append((index, ",".join(cells)))
    return _Tally(rows, images, pixels)


def _link(file: Path, other: Path) -> None:
    try:
        other.hardlink_to(file)
    except OSError:  # The file system does not support hard links.
        shutil.copyfile(file, other)


def _write_tables(part: Path, settings: _Settings, tally: _Tally) -> None:
    numbers = vocabulary()
    area = settings.size**2
    index = [",".join(("image", "split", "ih", "iw", "sh", "sw", *CATEGORIES)), *(row for _, row in tally.rows)]
    category_rows = ["name,first,last,count,frequency"]
    label_rows = ["number,name,category,frequency,coverage,syns"]
    for category in CATEGORIES:
        code_rows = ["code,number,name,frequency,coverage"]
        for code, (name, number) in enumerate(numbers[category].items(), start=1):
            frequency, coverage = tally.images[number], tally.pixels[number] / area
            code_rows.append(f"{code},{number},{name},{frequency},{coverage:.6f}")
            label_rows.append(f"{number},{name},{category}({frequency}),{frequency},{coverage:.6f},")
        _write_lines(part / f"c_{category}.csv", code_rows)
        mine = list(numbers[category].values())
        column = 6 + CATEGORIES.index(category)
        held = sum(1 for _, row in tally.rows if row.split(",")[column])
        category_rows.append(f"{category},{mine[0]},{mine[-1]},{len(mine)},{held}")
    _write_lines(part / "index.csv", index)
    _write_lines(part / "category.csv", category_rows)
    _write_lines(part / "label.csv", label_rows)


def _write_lines(file: Path, lines: list[str]) -> None:
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
