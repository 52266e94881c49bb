"""Import images and masks, in which the value of each pixel stands for a concept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from prunescope.importers.decoding import Coding, Decoder
from prunescope.importers.names import read_names
from prunescope.importers.pairing import IMAGES, MASKS, files_of, paired, split_of
from prunescope.importers.writing import Found, ImportOptions, write_found

_SEGMENTS = "_seg"  # the ending of ADE20K's masks
PART = "part"
_MOST_PARTS = 6  # its levels of parts


@dataclass(frozen=True)
class MaskReader:
    """Makes a labelled image from a name, an image, its mask, and a split."""

    decoder: Decoder
    category: str
    parts: bool = False  # whether ADE20K's masks of parts lie beside the mask

    def __call__(self, item: tuple[str, Path | bytes, Path | bytes, str]) -> Found:
        """Read the mask; the writer reads the image."""
        name, image, mask, split = item
        origin = str(mask) if isinstance(mask, Path) else name
        labels: dict[str, list[int | np.ndarray]] = {self.category: [self.decoder(mask, origin)]}
        if self.parts and isinstance(mask, Path):
            stem = mask.stem.removesuffix(_SEGMENTS)
            files = (mask.with_name(f"{stem}_parts_{level}.png") for level in range(1, _MOST_PARTS + 1))
            labels.setdefault(PART, []).extend(self.decoder(file) for file in files if file.is_file())
        return Found(name, image, labels, split, origin=origin)


def import_masks(
    images: str | Path,
    masks: str | Path,
    out: str | Path,
    *,
    names: str | Path | Mapping[Any, str],
    coding: Coding | None = None,
    category: str = "object",
    suffix: str | None = None,
    skip_unpaired: bool = False,
    **options: Unpack[ImportOptions],
) -> Path:
    """Write a data set in Broden's format from images and their masks.

    The mask of `IMAGES/a/b.jpg` is `MASKS/a/b.png`. An image whose first folder is called `val` or `validation` belongs
    to the validation split.

    Parameters
    ----------
    images, masks
        The folders.
    out
        The folder to write, which must be absent or empty.
    names
        The name of each value: a file, or a mapping such as `{1: "dog"}` or `{"#ff0000": "dog"}`; see
        docs/concepts.md. The values 0 and 255 of index masks and the color black need no name, and then stand for no
        label, as do values that are called background, void, ignore or unlabeled. Any other value without a name is an
        error.
    coding
        What a pixel means: "index" for a number in one channel or in a palette (as in SceneParse150), "colors" for a
        color, or "ade20k" for the coding of the full ADE20K, where also the masks of parts are read. By default,
        "colors" if `names` has colors, and "index" otherwise.
    category
        The category of the concepts.
    suffix
        The end of the masks' names, such as "_mask" if the mask of `b.jpg` is `b_mask.png`. By default there is none,
        and "_seg" for ADE20K.
    skip_unpaired
        Whether to leave out images without a mask and masks without an image, which are an error otherwise.
    **options
        Options of `prunescope.importers.writing.ImportOptions`, such as `resize` and `colors`.

    Returns
    -------
    Path
        The data set's folder.

    Raises
    ------
    InputError
        If an image or a mask cannot be used; the message names the file. Nothing is written then.
    """
    decoder = Decoder(read_names(names), coding)
    ade20k = coding == "ade20k"
    ending = suffix if suffix is not None else _SEGMENTS if ade20k else ""
    found = files_of(masks, MASKS, ending)
    suffixes = {".jpg", ".jpeg"} if ade20k else IMAGES
    pictures = {
        name: path for name, path in files_of(images, suffixes).items() if path not in found.values() or not ending
    }
    hint = "" if suffix else "give suffix='_mask' (--suffix _mask) if the masks' names end in it, "
    items = [(*pair, split_of(pair[0])) for pair in paired(pictures, found, skip_unpaired, hint)]
    about = {"format": "masks", "images": str(images), "masks": str(masks), "coding": coding, "category": category}
    reader = MaskReader(decoder, category, ade20k)
    categories = list(dict.fromkeys([category, *([PART] if ade20k else [])]))
    return write_found(out, items, reader, decoder.names.concepts, categories, about, **options)
