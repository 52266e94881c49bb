"""Process activation maps by tensor operations, on the device of the network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunescope.arrays import Array
from prunescope.dissection.examples import EXAMPLES, Examples
from prunescope.dissection.labels import LabelBatch, on_device
from prunescope.dissection.maps import KeptMaps, MapBatch, NotFiniteError, float_maps, shape_of
from prunescope.dissection.masks import UpsampleAxis
from prunescope.dissection.settings import Presence
from prunescope.dissection.tally import MaskCounts
from prunescope.dissection.tally_on_device import AT_ONCE, MaskTallyOnDevice
from prunescope.dissection.thresholds import Extremes, LargestValues
from prunescope.processes import Processes


class LargestOnDevice:
    """The largest values of each unit in a stream of activation maps, on a device; see `LargestValues`.

    Parameters
    ----------
    largest
        An empty `LargestValues`, which sets how many values are kept and receives them when processes are combined.
    device
        The device that the activation maps are on.
    """

    def __init__(self, largest: LargestValues, device: torch.device) -> None:
        self._largest, self._keep = largest, largest.keep
        units, self._room = largest.buffer.shape
        self._buffer = torch.full((units, self._room), -torch.inf, device=device)
        self._filled = torch.zeros(units, dtype=torch.int64, device=device)
        self.bounds = torch.full((units,), -torch.inf, device=device)

    def add(self, batch: KeptMaps[Tensor], /) -> None:
        """Add the values of some maps, sorted by unit; see `LargestOnCpu.add`."""
        units, maps = batch.units, batch.maps
        size = max(1, AT_ONCE // maps[0].numel()) if len(maps) else 1
        for some_units, some_maps in zip(torch.split(units, size), torch.split(maps.flatten(1), size), strict=True):
            self._insert(some_units, some_maps)

    def reduce(self, processes: Processes) -> None:
        """Copy the values that the thresholds need to the CPU, and add those of other processes."""
        count = min(self._keep, self._buffer.shape[1])
        size = max(1, AT_ONCE // self._buffer.shape[1])
        largest = torch.cat([part.topk(count, dim=1).values for part in torch.split(self._buffer, size)])
        if processes.count == 1 and count == self._keep:
            # A threshold lies between two of its unit's values; other processes may have values between these two.
            largest = largest[:, -2:]
            self._largest.keep = largest.shape[1]
        self._largest.buffer = largest.cpu().numpy()
        self._largest.filled = self._filled.clamp(max=largest.shape[1]).cpu().numpy()
        self._largest.reduce(processes)

    def result(self) -> Array:
        """Return the threshold of each unit, float64 [units]; see `LargestValues.thresholds`."""
        return self._largest.thresholds()

    def _insert(self, units: Tensor, rows: Tensor) -> None:
        above = rows > self.bounds[units, None]
        counts = torch.zeros_like(self._filled).index_add_(0, units, above.sum(1))
        widest = int((self._filled + counts).max())
        if widest > self._buffer.shape[1]:
            more = self._buffer.new_full((len(self._buffer), widest - self._buffer.shape[1]), -torch.inf)
            self._buffer = torch.cat([self._buffer, more], 1)
        positions = above.nonzero(as_tuple=True)
        owners = units[positions[0]]
        within = torch.arange(len(owners), device=owners.device) - (counts.cumsum(0) - counts)[owners]
        self._buffer[owners, self._filled[owners] + within] = rows[positions]
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


class ExtremesOnDevice:
    """The smallest and the largest value of each unit on a device; see `ExtremesOnCpu`."""

    def __init__(self, units: int, device: torch.device) -> None:
        self._lowest = torch.full((units,), torch.inf, device=device)
        self._highest = torch.full((units,), -torch.inf, device=device)

    def add(self, batch: MapBatch[Tensor], /) -> None:
        """Add the maps of some images.

        Raises
        ------
        NotFiniteError
            If a value is not finite.
        """
        finite = batch.lows.isfinite() & batch.peaks.isfinite()
        if not finite.all():
            image, unit = (~finite).nonzero()[0].tolist()
            values = batch.maps[image, unit].flatten()
            raise NotFiniteError(image, unit, float(values[~values.isfinite()][0]))
        self._lowest = torch.minimum(self._lowest, batch.lows.amin(0))
        self._highest = torch.maximum(self._highest, batch.peaks.amax(0))

    def reduce(self, processes: Processes) -> None:
        """Include the extremes in other processes."""
        self._lowest = _gathered(self._lowest, processes).amin(0)
        self._highest = _gathered(self._highest, processes).amax(0)

    def result(self) -> Extremes:
        """Return the extremes of each unit."""
        return Extremes(self._lowest.cpu().numpy(), self._highest.cpu().numpy())


class ExamplesOnDevice:
    """Keeps the images with the highest activations of each unit on a device; see `ExamplesOnCpu`."""

    def __init__(self, shape: tuple[int, int, int], device: torch.device) -> None:
        self._best = [torch.from_numpy(part).to(device) for part in vars(Examples.empty(*shape)).values()]
        self._device = device

    def add(self, batch: MapBatch[Tensor], /) -> None:
        """Add a batch of images, all of which must come after the images added before."""
        images, own_peaks, own_maps = self._best
        candidates = torch.cat([own_peaks, batch.peaks.T], 1)
        best = candidates.sort(dim=1, descending=True, stable=True).indices[:, :EXAMPLES]
        units = torch.arange(len(best), device=self._device)[:, None]
        new = (best >= EXAMPLES)[:, :, None, None]
        here = (best - EXAMPLES).clamp(min=0)
        self._best = [
            torch.where(new[:, :, 0, 0], batch.first_image + here, images.gather(1, best.clamp(max=EXAMPLES - 1))),
            candidates.gather(1, best),
            torch.where(new, batch.maps[here, units], own_maps[units, best.clamp(max=EXAMPLES - 1)]),
        ]

    def reduce(self, processes: Processes) -> None:
        """Merge the examples of all processes."""
        merged = self.result().merged(processes)
        self._best = [torch.from_numpy(part).to(self._device) for part in vars(merged).values()]

    def result(self) -> Examples:
        """Return the examples."""
        return Examples(*(part.cpu().numpy() for part in self._best))


@dataclass(frozen=True)
class DeviceTensors:
    """The backend that processes maps as tensors on a device, usually a GPU; see `Backend`."""

    device: torch.device

    def array(self, part: Array | Tensor) -> Tensor:
        """Return an array as a tensor on the device."""
        return torch.as_tensor(part, device=self.device)

    def labels(self, labels: LabelBatch[Array]) -> LabelBatch[Tensor]:
        """Return labels as tensors on the device."""
        return on_device(labels, self.device)

    def maps(self, first_image: int, output: Tensor) -> MapBatch[Tensor]:
        """Return the maps in a layer's output and their extremes."""
        maps = float_maps(output)
        return MapBatch(first_image, shape_of(output), maps, maps.amin((2, 3)), maps.amax((2, 3)))

    def above(self, batch: MapBatch[Tensor], bounds: Tensor) -> KeptMaps[Tensor]:
        """Return copies of the maps that exceed their unit's bound, sorted by unit."""
        units, images = (batch.peaks > bounds).T.nonzero(as_tuple=True)
        return KeptMaps(units, images, batch.peaks[images, units], batch.maps[images, units])

    def thresholds(self, units: int, positions: int, quantile: float) -> LargestOnDevice:
        """Estimate thresholds, given the number of values of each unit over all images."""
        return LargestOnDevice(LargestValues(units, positions, quantile), self.device)

    def extremes(self, units: int) -> ExtremesOnDevice:
        """Find the extremes of each unit."""
        return ExtremesOnDevice(units, self.device)

    def examples(self, shape: tuple[int, int, int]) -> ExamplesOnDevice:
        """Keep the images on which each unit is most active."""
        return ExamplesOnDevice(shape, self.device)

    def tally(
        self, counts: MaskCounts[Array], presence: Presence, axes: tuple[UpsampleAxis, UpsampleAxis]
    ) -> MaskTallyOnDevice:
        """Count the pixels that masks have in common with labels."""
        return MaskTallyOnDevice(counts, presence, axes, self.device)


def _gathered(values: Tensor, processes: Processes) -> Tensor:
    """Return the values of all processes on the CPU, [processes, ...]."""
    return torch.stack([torch.from_numpy(part) for part in processes.all_gather(values.cpu().numpy())])
