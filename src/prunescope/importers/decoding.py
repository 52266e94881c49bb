"""Decode masks: images whose pixel values stand for concepts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image

from prunescope.errors import InputError, nearest
from prunescope.images import ImageError
from prunescope.importers.names import Names
from prunescope.importers.opening import opened, read_encoded

Coding: TypeAlias = Literal["index", "colors", "ade20k"]
CODINGS: tuple[Coding, ...] = ("index", "colors", "ade20k")
_INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B", "I;16N")
_UNNAMED = (0, 255)  # values of index masks that stand for no label unless they are named
_BLACK = (0, 0, 0)


@dataclass(frozen=True)
class Decoder:
    """Decodes masks into the numbers that concepts are stored with.

    Attributes
    ----------
    names
        The names of the values.
    coding
        What a pixel means: "index" for a number in one channel, or in a palette; "colors" for a color; "ade20k" for
        the number 256 * (red // 10) + green. None for "colors" if colors are named, and "index" otherwise.
    """

    names: Names
    coding: Coding | None = None

    def __post_init__(self) -> None:
        if self.coding not in (None, *CODINGS):
            raise InputError(f"coding is {self.coding!r}; {nearest(str(self.coding), CODINGS)}")
        if self.coding is not None and (self.coding == "colors") != (self.names.colors is not None):
            what = "colors" if self.names.colors is not None else "numbers"
            raise InputError(
                f"{self.names.origin}: names {what}, but the coding is {self.coding!r}; give names of "
                f"{'colors (#rrggbb)' if self.coding == 'colors' else 'numbers'}, or another coding"
            )

    def __call__(self, mask: Path | bytes, origin: str = "") -> np.ndarray:
        """Return the concept number of each pixel, int64 [h, w]; 0 stands for no label.

        Raises
        ------
        InputError
            If the mask cannot be read, or if a pixel has a value without a name.
        """
        where = origin or str(mask)
        with opened(read_encoded(mask, where, "mask"), where, "mask") as image:
            if image.format == "JPEG":
                raise ImageError("it is a JPEG, whose compression changes the values", "save masks as PNG")
            values = self._values(image)
        return self._numbers(values, where)

    def _values(self, image: Image.Image) -> np.ndarray:
        """Return the value of each pixel, int64 [h, w]; a color is 65536 red + 256 green + blue."""
        if self.names.colors is not None:
            colors = np.asarray(image.convert("RGB")).astype(np.int64)
            return colors[..., 0] << 16 | colors[..., 1] << 8 | colors[..., 2]
        if image.mode in _INDEX_MODES and self.coding != "ade20k":
            return np.asarray(image).astype(np.int64)
        if image.mode not in ("RGB", "RGBA"):
            raise ImageError(f"it has the mode {image.mode}", "save it with one channel, a palette or RGB")
        colors = np.asarray(image)[..., :3].astype(np.int64)
        if self.coding == "ade20k":
            return colors[..., 0] // 10 * 256 + colors[..., 1]
        if (colors != colors[..., :1]).any():
            raise ImageError(
                f"it is in color, but {self.names.origin} names numbers",
                "give coding='ade20k' (--coding ade20k) if it is coded as in ADE20K, or names of colors (#rrggbb)",
            )
        gray: np.ndarray = colors[..., 0]
        return gray

    def _numbers(self, values: np.ndarray, where: str) -> np.ndarray:
        stored = self.names.stored()
        if self.names.colors is not None:
            stored = {_BLACK: 0} | stored
            known = np.array([red << 16 | green << 8 | blue for red, green, blue in stored], np.int64)
        else:
            stored = dict.fromkeys((0,) if self.coding == "ade20k" else _UNNAMED, 0) | stored
            known = np.array(list(stored), np.int64)
        order = np.argsort(known)
        at = np.minimum(np.searchsorted(known[order], values), len(known) - 1)
        wrong = known[order][at] != values
        if wrong.any():
            row, column = (int(place) for place in np.argwhere(wrong)[0])
            value = int(values[row, column])
            shown = f"color #{value:06x}" if self.names.colors is not None else f"value {value}"
            raise InputError(
                f"{where}: the {shown} (row {row}, column {column}, and {int(wrong.sum()) - 1} more pixels) has no "
                f"name in {self.names.origin}; add it there, with the name void if it stands for no label"
            )
        numbers: np.ndarray = np.array(list(stored.values()), np.int64)[order][at]
        return numbers
