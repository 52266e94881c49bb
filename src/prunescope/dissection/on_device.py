"""The first pass over the images in tensor operations, on the device of the network."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunescope.dissection.examples import EXAMPLES, Examples
from prunescope.dissection.first_pass import Levels, settled
from prunescope.dissection.maps import KeptMaps, NotFiniteError, as_maps
from prunescope.dissection.thresholds import LargestValues
from prunescope.processes import Processes

Array = np.ndarray[Any, Any]

# Work is split so that the largest tensors have about this many elements: a few hundred megabytes each.
AT_ONCE = 1 << 24


class LargestOnDevice:
    """The largest values of each unit in a stream of activation maps, on a device; see `LargestValues`.

    Parameters
    ----------
    largest
        An empty `LargestValues`, which sets how many values are kept and receives them at the end.
    device
        The device that the activation maps are on.
    """

    def __init__(self, largest: LargestValues, device: torch.device) -> None:
        self._largest, self._keep = largest, largest.keep
        units, self._room = largest.buffer.shape
        self._buffer = torch.full((units, self._room), -torch.inf, device=device)
        self._filled = torch.zeros(units, dtype=torch.int64, device=device)
        self.bounds = torch.full((units,), -torch.inf, device=device)

    def add(self, units: Tensor, maps: Tensor) -> None:
        """Add the values of some maps. Maps without a value above their unit's bound may be left out.

        Parameters
        ----------
        units
            int64 [maps]: the unit of each map, in ascending order.
        maps
            float32 [maps, h, w]: the maps, with finite values.
        """
        size = max(1, AT_ONCE // maps[0].numel()) if len(maps) else 1
        for some_units, some_maps in zip(torch.split(units, size), torch.split(maps.flatten(1), size), strict=True):
            self._insert(some_units, some_maps)

    def on_cpu(self, *, alone: bool) -> LargestValues:
        """Copy the values that the thresholds need to the CPU.

        Parameters
        ----------
        alone
            Whether no other process has values of these units. If so, two values of each unit are enough: those
            between which its threshold lies.

        Returns
        -------
        LargestValues
            The object given at construction, now filled.
        """
        count = min(self._keep, self._buffer.shape[1])
        size = max(1, AT_ONCE // self._buffer.shape[1])
        largest = torch.cat([part.topk(count, dim=1).values for part in torch.split(self._buffer, size)])
        if alone and count == self._keep:
            largest = largest[:, -2:]
            self._largest.keep = largest.shape[1]
        self._largest.buffer = largest.cpu().numpy()
        self._largest.filled = self._filled.clamp(max=largest.shape[1]).cpu().numpy()
        return self._largest

    def _insert(self, units: Tensor, rows: Tensor) -> None:
        above = rows > self.bounds[units, None]
        counts = torch.zeros_like(self._filled).index_add_(0, units, above.sum(1))
        widest = int((self._filled + counts).max())
        if widest > self._buffer.shape[1]:
            more = self._buffer.new_full((len(self._buffer), widest - self._buffer.shape[1]), -torch.inf)
            self._buffer = torch.cat([self._buffer, more], 1)
        places = above.nonzero(as_tuple=True)
        owners = units[places[0]]
        within = torch.arange(len(owners), device=owners.device) - (counts.cumsum(0) - counts)[owners]
        self._buffer[owners, self._filled[owners] + within] = rows[places]
        self._filled += counts
        if widest > self._room:
            self._compact()

    def _compact(self) -> None:
        size = max(1, AT_ONCE // self._buffer.shape[1])
        largest = torch.cat([part.topk(self._keep, dim=1).values for part in torch.split(self._buffer, size)])
        self.bounds = torch.maximum(self.bounds, largest[:, -1])
        self._filled.clamp_(max=self._keep)
        room = largest.new_full((len(largest), self._room - self._keep), -torch.inf)
        self._buffer = torch.cat([largest, room], 1)


class FirstPassOnDevice:
    """A first pass in tensor operations on a device.

    Parameters
    ----------
    shape, images, quantile, given
        As in `FirstPassOnCpu`.
    device
        The device that the layer's output is on.
    """

    def __init__(
        self, shape: tuple[int, int, int], images: int, quantile: float, given: Array | None, device: torch.device
    ) -> None:
        units, h, w = shape
        self._given, self._device = given, device
        self._largest = (
            LargestOnDevice(LargestValues(units, images * h * w, quantile), device) if given is None else None
        )
        self._fixed = None if given is None else torch.tensor(given, device=device)
        self._best = [torch.from_numpy(part).to(device) for part in vars(Examples.empty(units, h, w)).values()]
        self._lowest = torch.full((units,), torch.inf, device=device)
        self._highest = torch.full((units,), -torch.inf, device=device)

    @property
    def _bounds(self) -> Tensor:
        bounds = self._fixed if self._largest is None else self._largest.bounds
        assert bounds is not None
        return bounds

    def add(self, first_image: int, output: Tensor) -> KeptMaps:
        """Add the layer's output for the next images; see `FirstPass.add`."""
        maps = as_maps(output)
        lows, peaks = maps.amin((2, 3)), maps.amax((2, 3))
        kept = _taken(maps, peaks, self._bounds)
        _refuse_not_finite(maps, lows, peaks)
        self._lowest = torch.minimum(self._lowest, lows.amin(0))
        self._highest = torch.maximum(self._highest, peaks.amax(0))
        self._rank(first_image, peaks, maps)
        if self._largest is not None:
            self._largest.add(kept.units, kept.maps)
        return kept

    def above(self, output: Tensor, thresholds: Array) -> KeptMaps:
        """Return copies of the maps that exceed their unit's threshold."""
        maps = as_maps(output)
        return _taken(maps, maps.amax((2, 3)), torch.from_numpy(thresholds).to(self._device))

    def still_possible(self, kept: KeptMaps) -> KeptMaps:
        """Return only the maps that may still exceed their unit's threshold."""
        return kept.above(self._bounds)

    def settle(self, processes: Processes) -> tuple[Levels, Examples]:
        """Return the thresholds and the images with the highest activations; see `FirstPass.settle`."""
        examples = Examples(*(part.cpu().numpy() for part in self._best))
        examples.reduce(processes)
        largest = None if self._largest is None else self._largest.on_cpu(alone=processes.count == 1)
        lowest, highest = self._lowest.cpu().numpy(), self._highest.cpu().numpy()
        return settled(largest, self._given, lowest, highest, processes), examples

    def _rank(self, first_image: int, peaks: Tensor, maps: Tensor) -> None:
        """Update the images with the highest activations; of images with equal peaks, the earlier one comes first."""
        images, own_peaks, own_maps = self._best
        candidates = torch.cat([own_peaks, peaks.T], 1)
        best = candidates.sort(dim=1, descending=True, stable=True).indices[:, :EXAMPLES]
        units = torch.arange(len(best), device=self._device)[:, None]
        new = (best >= EXAMPLES)[:, :, None, None]
        here = (best - EXAMPLES).clamp(min=0)
        self._best = [
            torch.where(new[:, :, 0, 0], first_image + here, images.gather(1, best.clamp(max=EXAMPLES - 1))),
            candidates.gather(1, best),
            torch.where(new, maps[here, units], own_maps[units, best.clamp(max=EXAMPLES - 1)]),
        ]


def _taken(maps: Tensor, peaks: Tensor, bounds: Tensor) -> KeptMaps:
    """Return copies of the maps in `maps` [n, units, h, w] that exceed their unit's bound, sorted by unit."""
    units, images = (peaks > bounds).T.nonzero(as_tuple=True)
    return KeptMaps(units, images, peaks[images, units], maps[images, units])


def _refuse_not_finite(maps: Tensor, lows: Tensor, peaks: Tensor) -> None:
    finite = lows.isfinite() & peaks.isfinite()
    if not finite.all():
        image, unit = (~finite).nonzero()[0].tolist()
        values = maps[image, unit].flatten()
        raise NotFiniteError(image, unit, float(values[~values.isfinite()][0]))
