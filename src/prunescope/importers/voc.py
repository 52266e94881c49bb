"""Import the semantic segmentations of Pascal VOC."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from prunescope.errors import InputError
from prunescope.files import expanded
from prunescope.importers.decoding import Decoder
from prunescope.importers.masks import MaskReader
from prunescope.importers.names import Names
from prunescope.importers.pairing import files_of
from prunescope.importers.writing import ImportOptions, write_found
from prunescope.reading import read_text

_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def import_voc(
    directory: str | Path, out: str | Path, *, category: str = "object", **options: Unpack[ImportOptions]
) -> Path:
    """Write a data set in Broden's format from the segmentations of Pascal VOC.

    Parameters
    ----------
    directory
        The folder of one year, such as VOCdevkit/VOC2012, with JPEGImages and SegmentationClass. The pixels of 0
        (background) and 255 (void) have no label. The splits are those in ImageSets/Segmentation, if it is there.
    out
        The folder to write, which must be absent or empty.
    category
        The category of the concepts.
    **options
        Options of `prunescope.importers.writing.ImportOptions`. Pascal's images differ in size, so
        that `resize` is needed.

    Returns
    -------
    Path
        The data set's folder.

    Raises
    ------
    InputError
        If a folder is missing, or if an image or a mask cannot be used; the message names the file.
    """
    root = expanded(directory)
    if not (root / "SegmentationClass").is_dir():
        raise InputError(
            f"{root}: there is no folder SegmentationClass; expected the folder of one year of Pascal VOC, such as "
            "VOCdevkit/VOC2012"
        )
    masks = files_of(root / "SegmentationClass", [".png"])
    splits = {}
    for split in ("train", "val"):
        listed = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        if listed.is_file():
            splits.update(dict.fromkeys(read_text(listed, "expected the name of an image on each line").split(), split))
    items = [
        (name, root / "JPEGImages" / f"{name}.jpg", path, splits.get(name, "train")) for name, path in masks.items()
    ]
    names = Names("Pascal VOC's classes", dict(enumerate(_CLASSES, 1)), None)
    reader = MaskReader(Decoder(names, "index"), category)
    about = {"format": "voc", "directory": str(root), "category": category}
    return write_found(out, items, reader, names.concepts, [category], about, **options)
