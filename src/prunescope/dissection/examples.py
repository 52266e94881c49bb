"""Keep the images on which each unit is most active, and read them back from a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunescope.arrays import Array
from prunescope.dissection.kernels import kernel
from prunescope.dissection.maps import MapBatch
from prunescope.dissection.workers import Workers
from prunescope.errors import InputError
from prunescope.processes import Processes
from prunescope.reading import read_arrays

EXAMPLES = 4
EXAMPLES_FILE = "examples.safetensors"
_AGAIN = "remove the folder that it is in, and dissect (or run the study) again"


@dataclass(frozen=True)
class Examples:
    """The images with the highest activations of each unit, in descending order.

    A map's peak is its largest value. Of images with equal peaks, the earlier one comes first.
    """

    images: Array  # int64 [units, EXAMPLES]: indices in the data set; -1 if there are fewer images
    peaks: Array  # float32 [units, EXAMPLES]
    maps: Array  # float32 [units, EXAMPLES, h, w]

    @classmethod
    def empty(cls, units: int, h: int, w: int) -> Examples:
        """Return the examples before any image has been added."""
        return cls(
            np.full((units, EXAMPLES), -1, np.int64),
            np.full((units, EXAMPLES), -np.inf, np.float32),
            np.zeros((units, EXAMPLES, h, w), np.float32),
        )

    def merged(self, processes: Processes) -> Examples:
        """Merge the examples that all processes found for the same units.

        The images must be divided among the processes in order: a process of higher rank has later images.
        """
        images, peaks, maps = (np.concatenate(processes.all_gather(part), axis=1) for part in vars(self).values())
        best = np.argsort(-peaks, axis=1, kind="stable")[:, :EXAMPLES]
        return Examples(
            np.take_along_axis(images, best, axis=1),
            np.take_along_axis(peaks, best, axis=1),
            np.take_along_axis(maps, best[:, :, None, None], axis=1),
        )


class ExamplesOnCpu:
    """Keeps the images with the highest activations of each unit, in a compiled kernel.

    Parameters
    ----------
    shape
        The shape (units, h, w) of the layer's output for one image.
    workers
        The threads to run in.
    """

    def __init__(self, shape: tuple[int, int, int], workers: Workers) -> None:
        self._examples, self._workers = Examples.empty(*shape), workers

    def add(self, batch: MapBatch[Array], /) -> None:
        """Add a batch of images, all of which must come after the images added before."""
        images, peaks, maps = vars(self._examples).values()
        self._workers.run(
            _insert, len(images), batch.first_image, batch.peaks, batch.maps,
            images, peaks, maps.reshape(*images.shape, -1),
        )  # fmt: skip

    def reduce(self, processes: Processes) -> None:
        """Merge the examples of all processes."""
        self._examples = self._examples.merged(processes)

    def result(self) -> Examples:
        """Return the examples."""
        return self._examples


def read_examples(path: Path, units: Array, images: int) -> Examples | None:
    """Read the examples of a layer from the file that `LayerDissection.save` writes.

    Parameters
    ----------
    path
        The file to read.
    units
        int64 [units]: the units, in the order in which to return them. The rows of the file are matched to them by unit
        number.
    images
        The number of images in the data set.

    Returns
    -------
    Examples or None
        The examples in the order of `units`; None if the file does not exist.

    Raises
    ------
    InputError
        If the file is damaged, or if it does not match the units or the images.
    """
    if not path.is_file():
        return None
    arrays = read_arrays(path, _AGAIN)
    absent = [name for name in ("images", "maps") if name not in arrays]
    if absent:
        raise InputError(f"{path}: cannot be read as examples (there is no array {absent[0]!r}); {_AGAIN}")
    found, maps, shape = arrays["images"], arrays["maps"], (len(units), EXAMPLES)
    there = arrays.get("units", np.arange(len(units)))
    if (
        found.shape != shape
        or maps.ndim != 4
        or maps.shape[:2] != shape
        or 0 in maps.shape[2:]
        or there.shape != (len(units),)
        or not np.array_equal(np.sort(there), np.sort(units))
    ):
        raise InputError(
            f"{path}: images {list(found.shape)} and maps {list(maps.shape)} do not fit {len(units)} units with "
            f"{EXAMPLES} images each; {_AGAIN}"
        )
    peaks = arrays.get("peaks", maps.max(axis=(2, 3)))
    if found.dtype.kind not in "iu" or maps.dtype.kind != "f" or peaks.dtype.kind != "f" or peaks.shape != shape:
        raise InputError(
            f"{path}: images {found.dtype} {list(found.shape)}, maps {maps.dtype} and peaks {peaks.dtype} "
            f"{list(peaks.shape)} are not those of examples, expected whole numbers, and two arrays of floats; {_AGAIN}"
        )
    if found.size and not -1 <= found.min() <= found.max() < images:
        wrong = int(found.max() if found.max() >= images else found.min())
        raise InputError(
            f"{path}: names image {wrong}, but the data set of concepts contains {images} images; give the data set "
            "that was dissected"
        )
    by_unit = np.argsort(there)
    order = by_unit[np.searchsorted(there, units, sorter=by_unit)]
    return Examples(found[order], peaks[order], maps[order])


@kernel
def _insert(
    first_image: int,
    peaks: Array,
    maps: Array,
    best: Array,
    best_peaks: Array,
    best_maps: Array,
    first_unit: int,
    last_unit: int,
) -> None:
    for unit in range(first_unit, last_unit):
        for image in range(len(peaks)):
            peak, index = peaks[image, unit], EXAMPLES
            while index > 0 and peak > best_peaks[unit, index - 1]:
                index -= 1
            if index == EXAMPLES:
                continue
            for later in range(EXAMPLES - 1, index, -1):
                best[unit, later] = best[unit, later - 1]
                best_peaks[unit, later] = best_peaks[unit, later - 1]
                best_maps[unit, later] = best_maps[unit, later - 1]
            best[unit, index], best_peaks[unit, index] = first_image + image, peak
            for position in range(maps.shape[2]):
                best_maps[unit, index, position] = maps[image, unit, position]
