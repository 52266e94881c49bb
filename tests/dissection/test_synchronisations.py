"""How often work on a device waits for it: what a batch costs beside the network depends on that (docs/gpu.md)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from prunescope.concepts import open_concepts
from prunescope.dissection import batches as reading
from prunescope.dissection.arrangement import arrange
from prunescope.dissection.batches import batches
from prunescope.dissection.labels import on_device
from prunescope.dissection.layer_pass import LayerPass, Resources
from prunescope.dissection.maps import KeptMaps
from prunescope.dissection.masks import half_pixel_axis
from prunescope.dissection.on_device import DeviceTensors
from prunescope.dissection.settings import Settings
from prunescope.dissection.storage import Budget, Storage
from prunescope.dissection.tally import MaskBatch, empty_counts
from prunescope.dissection.tally_on_device import MaskTallyOnDevice
from prunescope.processes import Processes
from prunescope.tasks.task import TaskBatch
from prunescope.training.acceleration import accelerating
from prunescope.training.descent import Descent, optimiser_of
from tests.dissection.worlds import GOLDEN
from tests.training.small import half_mask, network, recipe

CPU = torch.device("cpu")
# The size of what these put out, or their value, is known to the host only once the device has computed it.
_WAITING = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.repeat_interleave.Tensor,
    torch.ops.aten.equal.default,
    torch.ops.aten._unique2.default,
}


class Waits(TorchDispatchMode):
    """Counts the operations for which the host would wait if the tensors were on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        masked = operation is torch.ops.aten.index.Tensor and any(
            index is not None and index.dtype == torch.bool for index in arguments[1]
        )
        self.count += masked or operation in _WAITING
        return operation(*arguments, **(named or {}))


def test_what_waits_is_counted() -> None:
    values = torch.arange(4)
    with Waits() as waits:
        values.nonzero()
        values[values > 1]
        int(values.max())
        values.repeat_interleave(values)
        values[torch.tensor([0, 2])] + 1
    assert waits.count == 4


@pytest.mark.parametrize("batch", [1, 7])
def test_a_first_pass_waits_four_times_a_batch(batch: int) -> None:
    random = torch.Generator().manual_seed(0)
    data = open_concepts(GOLDEN / "concepts")
    labels = next(batches(data, batch, range(batch), with_images=False)).labels
    with Storage(Budget()) as storage:
        layer = LayerPass(
            "0", (5, 4, 4), Resources(data, arrange(data), Settings(quantile=0.01), DeviceTensors(CPU), storage)
        )
        for first in range(0, len(data) - batch, batch):
            with Waits() as waits:
                output = torch.randn(batch, 5, 4, 4, generator=random)
                layer.add(output, reading.Batch(first, data.names[first : first + batch], None, labels))
            assert waits.count == 4


def test_counting_masks_by_tensor_operations_waits_nine_times_a_batch() -> None:
    data = open_concepts(GOLDEN / "concepts")
    counts = empty_counts(3, len(data.labels), len(data.categories), np.array([1 << 20]))
    tally = MaskTallyOnDevice(counts, "image", (half_pixel_axis(7, 112), half_pixel_axis(7, 112)), CPU)
    maps = torch.randn(3, 8, 7, 7, generator=torch.Generator().manual_seed(0))
    units, images = torch.arange(3).repeat_interleave(8), torch.arange(8).repeat(3)
    kept = KeptMaps(units, images, maps.amax((2, 3)).flatten(), maps.flatten(0, 1))
    labels = on_device(next(batches(data, 8, range(8), with_images=False)).labels, CPU)
    with Waits() as waits:
        tally.add(MaskBatch(kept, torch.ones(3, dtype=torch.float64), labels))
    assert waits.count == 9


def test_a_training_step_under_a_mask_waits_for_nothing() -> None:
    model, training = network(), recipe()
    optimiser = optimiser_of(model, training, CPU)
    batch = TaskBatch(torch.randn(8, 3, 16, 16), torch.zeros(8, dtype=torch.int64))
    with accelerating(training, CPU, Processes(), None) as accelerator:
        descent = Descent.prepare(model, optimiser, half_mask(model), training, 8, accelerator, Processes())
        descent.step(batch, 0.1)
        with Waits() as waits:
            descent.step(batch, 0.1)
    assert waits.count == 0
