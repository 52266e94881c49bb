"""Import COCO's annotations: instances (polygons, RLE and crowds) and panoptic segmentations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from prunescope.concepts.index import path_problem
from prunescope.errors import InputError, nearest
from prunescope.files import expanded
from prunescope.importers.opening import opened, read_encoded
from prunescope.importers.writing import Found, ImportOptions, write_found
from prunescope.reading import read_json

Annotation = Mapping[str, Any]
MOST_SIDE = 65_535


@dataclass(frozen=True)
class _Reader:
    """Makes a labelled image from an entry of the JSON file and its annotations."""

    images: Path
    panoptic: Path | None  # the folder of panoptic masks
    origin: str
    numbers: Mapping[int, int]  # the number of each category id
    category: str
    split: str

    def __call__(self, item: tuple[Annotation, Sequence[Annotation]]) -> Found:
        """Decode the annotations of one image."""
        image, annotations = item
        name = image["file_name"]
        size = (int(image["height"]), int(image["width"]))
        where = f"{self.origin}, image {name}"
        if self.panoptic is None:
            layers = _layers(self._masks(annotations, size), size)
        else:
            layers = [_segments(self.panoptic, annotation, self._number) for annotation in annotations]
        path = _below(self.images, name, where)
        stem = Path(name).with_suffix("").as_posix()
        return Found(stem, path, {self.category: layers}, self.split, origin=where)

    def _number(self, annotation: Annotation, category_id: Any) -> int:
        if category_id not in self.numbers:
            raise InputError(
                f"{self.origin}: annotation {annotation.get('id')} (image {annotation.get('image_id')}) has the "
                f"category_id {category_id!r}, which is not among the categories; "
                f"{nearest(str(category_id), map(str, self.numbers))}"
            )
        return self.numbers[category_id]

    def _masks(self, annotations: Sequence[Annotation], size: tuple[int, int]) -> Iterable[tuple[int, np.ndarray]]:
        """Yield the number and the pixels of each concept of an image."""
        from pycocotools import mask

        parts: dict[int, list[Any]] = defaultdict(list)
        for annotation in annotations:
            number = self._number(annotation, annotation.get("category_id"))
            parts[number] += self._encoded(annotation, size)
        for number, encoded in parts.items():
            yield number, mask.decode(mask.merge(encoded)).astype(bool)

    def _encoded(self, annotation: Annotation, size: tuple[int, int]) -> list[Any]:
        """Return the regions of an annotation in pycocotools' encoding."""
        from pycocotools import mask

        where = f"{self.origin}: annotation {annotation.get('id')} (image {annotation.get('image_id')})"
        given = annotation.get("segmentation")
        if isinstance(given, Mapping):
            if list(given.get("size", ())) != list(size):
                raise InputError(
                    f"{where}: its RLE has the size {given.get('size')}, but the image is listed with {list(size)} "
                    "(height, width); correct one of the two"
                )
            lengths = _run_lengths(given.get("counts"))
            if lengths is None or min(lengths, default=-1) < 0 or sum(lengths) != size[0] * size[1]:
                raise InputError(
                    f"{where}: its RLE is malformed; expected run lengths with the sum {size[0]} x {size[1]} pixels"
                )
            return [mask.frPyObjects({"size": list(size), "counts": lengths}, *size)]
        if not isinstance(given, list) or not given:
            raise InputError(f"{where}: has no segmentation; expected polygons [[x, y, x, y, ...]] or RLE")
        for polygon in given:
            _check_polygon(polygon, size, where)
        encoded: list[Any] = mask.frPyObjects(given, *size)
        return encoded


def import_coco(
    images: str | Path,
    annotations: str | Path,
    out: str | Path,
    *,
    panoptic: str | Path | None = None,
    category: str = "object",
    **options: Unpack[ImportOptions],
) -> Path:
    """Write a data set in Broden's format from annotations in COCO's format.

    Parameters
    ----------
    images
        The folder of the images.
    annotations
        The JSON file of instances (polygons, RLE) or of panoptic segments. Regions of crowds count as their category.
        Polygons are cut off at the border of the image. Images without annotations are kept, without labels.
    out
        The folder to write, which must be absent or empty.
    panoptic
        The folder of the panoptic masks. By default, it is the one beside the JSON file with the same name.
    category
        The category of the concepts, whose names are those of COCO's categories.
    **options
        Options of `prunescope.importers.writing.ImportOptions`. COCO's images differ in size, so
        that `resize` is needed.

    Returns
    -------
    Path
        The data set's folder, with the split "val" if the name of the JSON file contains "val".

    Raises
    ------
    InputError
        If pycocotools is not installed, if the JSON file is not as expected, or if an image or an annotation cannot be
        used. The message names the file and the annotation.
    """
    try:
        import pycocotools  # noqa: F401
    except ImportError as error:
        raise InputError("importing COCO needs the package pycocotools: pip install 'prunescope[coco]'") from error
    path = expanded(annotations)
    content = _content(path)
    listed = {image["id"]: image for image in content["images"]}
    by_image: dict[Any, list[Annotation]] = defaultdict(list)
    for annotation in content["annotations"]:
        if annotation.get("image_id") not in listed:
            raise InputError(
                f"{path}: annotation {annotation.get('id')} has the image_id {annotation.get('image_id')!r}, which is "
                "not among the images; remove it, or add the image"
            )
        by_image[annotation["image_id"]].append(annotation)
    segments = any("segments_info" in annotation for annotation in content["annotations"])
    folder = (expanded(panoptic) if panoptic else path.with_suffix("")) if segments else None
    names = list(dict.fromkeys(str(kind["name"]).strip() for kind in content["categories"]))
    numbers = {kind["id"]: names.index(str(kind["name"]).strip()) + 1 for kind in content["categories"]}
    split = "val" if "val" in path.stem.lower() else "train"
    reader = _Reader(expanded(images), folder, str(path), numbers, category, split)
    items = [(image, by_image[key]) for key, image in listed.items()]
    about = {"format": "coco", "images": str(images), "annotations": str(path), "category": category}
    return write_found(out, items, reader, names, [category], about, **options)


def _content(path: Path) -> dict[str, list[Any]]:
    content = read_json(path, "expected COCO's annotations")
    wanted = {
        "images": ("id", "file_name", "height", "width"),
        "annotations": ("image_id",),
        "categories": ("id", "name"),
    }
    for key, fields in wanted.items():
        entries = content.get(key)
        if not isinstance(entries, list):
            raise InputError(f"{path}: has no list {key!r}; expected COCO's images, annotations and categories")
        for at, entry in enumerate(entries):
            missing = [field for field in fields if not isinstance(entry, dict) or field not in entry]
            if missing:
                raise InputError(f"{path}: {key}[{at}] has no {missing[0]!r}; expected {', '.join(fields)}")
            for field in ("height", "width"):
                size = entry.get(field, 1)
                if type(size) is not int or not 1 <= size <= MOST_SIDE:
                    raise InputError(
                        f"{path}: {key}[{at}]: {field} is {size!r}; expected a number of pixels from 1 to {MOST_SIDE:,}"
                    )
            for field in ("id", "image_id", "category_id"):
                if not isinstance(entry.get(field), int | str | None):
                    raise InputError(f"{path}: {key}[{at}]: {field} is {entry[field]!r}; expected a number")
    return {key: content[key] for key in wanted}


def _below(folder: Path, name: Any, where: str) -> Path:
    """Return the path of a file that annotations name, which has to be in the folder or below it."""
    problem = path_problem(name) if isinstance(name, str) else "is not a name"
    if problem is not None or not isinstance(name, str):
        raise InputError(f"{where}: its file_name {name!r} {problem}; expected the path of a file below {folder}")
    return folder / name


def _check_polygon(polygon: Any, size: tuple[int, int], where: str) -> None:
    try:
        points = np.asarray(polygon, np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        points = np.empty((0, 2))
    if len(points) < 3 or not np.isfinite(points).all():
        raise InputError(f"{where}: a polygon is malformed; expected at least three points, [x, y, x, y, x, y, ...]")
    low, high = points.min(axis=0), points.max(axis=0)
    if (high < 0).any() or low[0] > size[1] or low[1] > size[0]:
        raise InputError(
            f"{where}: a polygon from ({low[0]:g}, {low[1]:g}) to ({high[0]:g}, {high[1]:g}) lies outside the image, "
            f"which is {size[1]} wide and {size[0]} high; correct or remove the annotation"
        )


def _run_lengths(counts: Any) -> list[int] | None:
    """Return the run lengths of an RLE, or None if they are malformed.

    pycocotools reads beyond the end of malformed strings, so that they are decoded here. A string holds numbers in
    groups of five bits, least significant first, each in a character from "0" on, whose sixth bit says whether more
    groups follow. From the fourth number on, each is the difference to the number two places before.
    """
    if isinstance(counts, list):
        return counts if all(type(count) is int for count in counts) else None
    if not isinstance(counts, str):
        return None
    lengths: list[int] = []
    number, shift = 0, 0
    for character in counts:
        group = ord(character) - 48
        if not 0 <= group < 64 or shift > 30:
            return None
        number |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            number -= 1 << shift
        lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
        number, shift = 0, 0
    return lengths if shift == 0 else None


def _layers(masks: Iterable[tuple[int, np.ndarray]], size: tuple[int, int]) -> list[np.ndarray]:
    """Arrange the pixels of concepts, which may overlap, in as few layers as the order allows."""
    layers: list[np.ndarray] = []
    for number, pixels in masks:
        layer = next((layer for layer in layers if not layer[pixels].any()), None)
        if layer is None:
            layer = np.zeros(size, np.uint16)
            layers.append(layer)
        layer[pixels] = number
    return layers


def _segments(folder: Path, annotation: Annotation, number_of: Callable[[Annotation, Any], int]) -> np.ndarray:
    """Return the concept number of each pixel of a panoptic mask."""
    path = _below(folder, annotation.get("file_name"), f"the annotation of image {annotation.get('image_id')}")
    encoded = read_encoded(path, str(path), "panoptic mask", "add the file, or remove the annotation")
    with opened(encoded, str(path), "panoptic mask") as image:
        colors = np.asarray(image.convert("RGB")).astype(np.int64)
    values = colors @ np.array([1, 256, 65536])
    stored = {0: 0} | {
        segment["id"]: number_of(annotation, segment.get("category_id")) for segment in annotation["segments_info"]
    }
    known, at = np.unique(values, return_inverse=True)
    for value in known.tolist():
        if value not in stored:
            raise InputError(f"{path}: the segment {value} is not in the annotation's segments_info; add it there")
    numbers: np.ndarray = np.array([stored[value] for value in known.tolist()], np.int64)[at].reshape(values.shape)
    return numbers
