"""Networks look at images: what their layers put out is handed on while it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn

from prunescope.dissection.batches import Batch
from prunescope.dissection.settings import Precision
from prunescope.networks.layers import observe

Key = tuple[str, str]  # network, layer
_Take = Callable[[Key, Tensor, Batch], None]


class Look:
    """Shows batches of images to networks, and hands on what their layers put out.

    Parameters
    ----------
    models
        Networks by name.
    device
        Where they are.
    mean, std
        Of each color channel.
    """

    def __init__(
        self, models: Mapping[str, nn.Module], device: torch.device, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self._models, self.device = models, device
        self._mean = torch.tensor(mean, dtype=torch.float32, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, dtype=torch.float32, device=device).view(1, 3, 1, 1)
        self.pinned = device.type == "cuda"

    def at(self, batch: Batch, wanted: Sequence[Key], take: _Take, *, to_the_end: bool = True) -> None:
        """Show a batch to every network that has wanted layers.

        Parameters
        ----------
        batch
            With images.
        wanted
            Network and layer.
        take
            Called with network and layer, the layer's output while it is there, and the batch.
        to_the_end
            Whether a network runs on when its wanted layers have put out: if so, a layer that is called once more is
            noticed.
        """
        assert batch.images is not None
        pixels = batch.images.to(self.device, non_blocking=self.pinned).permute(0, 3, 1, 2)
        images = (pixels.float() / 255 - self._mean) / self._std
        for name, model in self._models.items():
            left = [layer for other, layer in wanted if other == name]
            if left:
                with observe(model, left, _handing(name, left, take, batch, to_the_end)), suppress(_SeenEnoughError):
                    model(images)


@contextmanager
def arithmetic(precision: Precision, device: torch.device) -> Iterator[None]:
    """Let the forward pass compute in this precision, for as long as the block lasts."""
    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolution


class _SeenEnoughError(Exception):
    """All layers that are wanted have put out; the rest of the network need not run."""


def _handing(
    name: str, layers: Sequence[str], take: _Take, batch: Batch, to_the_end: bool
) -> Callable[[str, Tensor], None]:
    left = set(layers)

    def hand(layer: str, output: Tensor) -> None:
        take((name, layer), output, batch)
        left.discard(layer)
        if not (left or to_the_end):
            raise _SeenEnoughError

    return hand
