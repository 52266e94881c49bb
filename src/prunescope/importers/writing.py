"""Write what importers read: bring images and labels to one size, and name the colors of pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypedDict, TypeVar

import numpy as np

from prunescope.concepts import LabelledImage, write_concepts
from prunescope.errors import InputError
from prunescope.images import to_rgb
from prunescope.importers.fitting import Fit, fit_image, fit_labels, orientation, oriented
from prunescope.importers.opening import opened, read_encoded
from prunescope.miniature import COLORS, color_places
from prunescope.progress import Shown

COLOR = "color"
Item = TypeVar("Item")


class ImportOptions(TypedDict, total=False):
    """Options that all importers share.

    Attributes
    ----------
    resize, crop, pad
        How images and labels are brought to one size; see `prunescope.importers.fitting.Fit`. By default, their sizes
        are left as they are, and have to be equal.
    orient
        Whether to turn images as their EXIF orientation demands. By default, an image that would have to be turned is
        an error, because only the user knows which way its labels are.
    colors
        Whether to add the category "color": the name of the color of each pixel, one of eleven.
    workers
        The number of processes. By default, it is the number of processors.
    progress
        Called with the number of images written and the total number of images. By default, a bar is shown on standard
        error if it is a terminal or belongs to a notebook. False turns this off.
    """

    resize: int | None
    crop: Literal["center"] | None
    pad: bool
    orient: bool | None
    colors: bool
    workers: int | None
    progress: Shown


@dataclass(frozen=True, eq=False)
class Found:
    """An image with its labels as an importer reads them.

    Attributes
    ----------
    name
        The name of the image within the data set, without a suffix.
    image
        The path of the image file, or its content.
    labels
        For each category, numbers of concepts of the whole image and integer arrays [h, w]; see `LabelledImage`.
    split, group
        As in `LabelledImage`.
    origin
        Where the labels come from, such as the path of a mask, for messages.
    same_size
        Whether labels have to have the size of the image.
    """

    name: str
    image: Path | bytes
    labels: Mapping[str, Sequence[int | np.ndarray]] = field(default_factory=dict)
    split: str = "train"
    group: str = ""
    origin: str = ""
    same_size: bool = True


@dataclass(frozen=True)
class _Prepare(Generic[Item]):
    """Reads an item and makes it what is written; it is sent to the processes that do the work."""

    read: Callable[[Item], Found]
    fit: Fit
    colors: np.ndarray | None  # int64 [11]: the numbers of the color names

    def __call__(self, item: Item) -> LabelledImage:
        """Read one image and its labels, check that they fit, and resize both."""
        found = self.read(item)
        where = found.name if isinstance(found.image, bytes) else str(found.image)
        content = read_encoded(found.image, where, "image", "put it there, or remove its labels")
        with opened(content, where, "image") as image:
            turned = orientation(image) != 1
            changed = self.fit.resize is not None or (turned and bool(self.fit.orient))
            pixels = image
            if changed or self.colors is not None:
                pixels = oriented(image) if self.fit.orient else to_rgb(image)
                pixels.load()
        if turned and self.fit.orient is None:
            raise InputError(
                f"{where}: has an EXIF orientation, so that viewers show it turned. If its labels fit the image as "
                "it is seen, give orient=True (--orient); if they fit it as it is stored, orient=False (--no-orient)"
            )
        if found.same_size:
            _check_size(found, where, (pixels.height, pixels.width))
        final = fit_image(pixels, self.fit)
        labels = {
            category: [item if isinstance(item, int) else fit_labels(item, self.fit) for item in items]
            for category, items in found.labels.items()
        }
        if self.colors is not None:
            labels[COLOR] = [*labels.get(COLOR, ()), self.colors[color_places(np.asarray(final))]]
        written = np.asarray(final) if changed else content
        return LabelledImage(found.name, written, labels, found.split, found.group)


def write_found(
    out: str | Path,
    items: Sequence[Item],
    read: Callable[[Item], Found],
    names: Sequence[str],
    categories: Sequence[str],
    about: Mapping[str, Any],
    *,
    resize: int | None = None,
    crop: Literal["center"] | None = None,
    pad: bool = False,
    orient: bool | None = None,
    colors: bool = False,
    workers: int | None = None,
    progress: Shown = "auto",
) -> Path:
    """Write the images that `read` makes of the items as a data set in Broden's format.

    Parameters
    ----------
    out
        The folder to write, which must be absent or empty.
    items, read
        What to read, and the function that reads an item, which must support pickling.
    names
        The names of the concepts, from number 1.
    categories
        The categories of the labels.
    about
        Where the data set comes from, which is stored in about.json.
    resize, crop, pad, orient, colors, workers, progress
        See `ImportOptions`.

    Returns
    -------
    Path
        The data set's folder.

    Raises
    ------
    InputError
        If an image or its labels cannot be used. The message names the file, and nothing is written.
    """
    fit = Fit(resize, crop, pad, orient)
    every = list(dict.fromkeys([*names, *(COLORS if colors else ())]))
    numbers = np.array([every.index(name) + 1 for name in COLORS], np.int64) if colors else None
    kinds = list(dict.fromkeys([*categories, *([COLOR] if colors else [])]))
    chosen = {"resize": resize, "crop": crop, "pad": pad, "orient": orient, "colors": colors}
    return write_concepts(
        out,
        items,
        every,
        categories=kinds,
        read=_Prepare(read, fit, numbers),
        about={**about, **chosen},
        workers=workers,
        progress=progress,
    )


def _check_size(found: Found, image: str, size: tuple[int, int]) -> None:
    for item in (item for items in found.labels.values() for item in items):
        if not isinstance(item, int) and item.shape != size:
            raise InputError(
                f"{found.origin or found.name}: the labels are {item.shape[0]} x {item.shape[1]} pixels (height x "
                f"width), but the image {image} is {size[0]} x {size[1]}; labels must have the size of their image: "
                "correct one of the two, or leave both out"
            )
