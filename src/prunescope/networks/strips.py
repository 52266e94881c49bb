"""Run a network on image strips that are partly NaN, to see which map positions depend on which pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from prunescope.errors import InputError
from prunescope.networks.observing import prefix_tokens
from prunescope.networks.outputs import named_tensors, split_layer
from prunescope.networks.running import blank_images
from prunescope.networks.tokens import as_maps

LONGEST = 16384
_NARROWEST = 8
_WIDEST = 1024
INSTEAD = "choose another layer, or use the default alignment (half-pixel)"


class RefusedError(Exception):
    """The network cannot take images of this size (height, width)."""

    def __init__(self, size: tuple[int, ...]) -> None:
        super().__init__(size)
        self.size = size


class _ReachedError(Exception):
    """The layer has returned its output, and the rest of the network need not run."""


class Edges(NamedTuple):
    """The map positions affected by NaN in two strips, the first with NaN at its start, the second at its end."""

    first: int  # the first position from which on none is affected by the NaN pixels of the first strip
    last: int  # all positions before this one are unaffected by the NaN pixels of the second strip
    begin: int  # the first affected position of the first strip; positions before it may depend on padding only
    end: int  # the position after the last affected one of the second strip


class Strips:
    """Run a network up to a layer, on image strips that are long in one direction and narrow in the other.

    Parameters
    ----------
    model, layer
        The network and the layer's name.
    units_axis
        The axis of the layer's output that holds the units.
    axis
        The direction in which strips are long: 0 is vertical, 1 is horizontal.
    width
        The size of the images in the other direction, in pixels.
    channels
        The number of channels of the images.
    """

    def __init__(self, model: nn.Module, layer: str, units_axis: int, axis: int, width: int, channels: int) -> None:
        self.layer = layer
        self._model, self._units_axis, self._axis, self._width = model, units_axis, axis, width
        self._channels = channels

    def narrow(self, length: int) -> None:
        """Find a small width of strips that the network accepts and that affect the layer's output.

        In a map with few positions across the strip, the window of a dilated convolution can miss them and cover only
        padding on either side. The output would then not depend on the strip at all, so strips are widened until it
        does.
        """
        images_width = self._width
        self._width = min(_NARROWEST, images_width)
        while self._width <= max(_WIDEST, images_width):
            try:
                if self._blind(self._blank(1, length).fill_(torch.nan)).any():
                    return
            except RefusedError:
                if self._width >= images_width:
                    raise
            if self._width < images_width:
                self._width = min(self._width + max(self._width // 2, _NARROWEST), images_width)
            else:
                # Even strips as wide as the images do not affect the output, so enlarge them in both directions.
                self._width, length = 2 * self._width, 2 * length
        raise InputError(f"layer {self.layer!r}: its units do not depend on the image; {INSTEAD}")

    def cells(self, length: int) -> int:
        """Return the number of map positions along a strip of this length in pixels."""
        return self._blind(self._blank(1, length)).shape[1]

    def edges(self, length: int, before: int, after: int) -> Edges:
        """Return the positions affected by NaN in the pixels before `before`, and in those from `after` on."""
        images = self._blank(2, length)
        along = images.transpose(2, 2 + self._axis)
        along[0, :, :before] = torch.nan
        along[1, :, after:] = torch.nan
        from_start, to_end = self._blind(images)
        cells = len(from_start)
        seen, seeing = from_start.nonzero().flatten().tolist(), to_end.nonzero().flatten().tolist()
        begin, first = (seen[0], seen[-1] + 1) if seen else (cells, 0)
        last, end = (seeing[0], seeing[-1] + 1) if seeing else (cells, 0)
        return Edges(first, last, begin, end)

    def _blank(self, count: int, length: int) -> Tensor:
        size = (length, self._width) if self._axis == 0 else (self._width, length)
        return blank_images(self._model, count, size, self._channels)

    def _blind(self, images: Tensor) -> Tensor:
        """Return where along the strips the layer's output has a NaN, as a bool tensor [strips, positions]."""
        output = _output(self._model, self.layer, images)
        _, part = split_layer(self.layer, [name for name, _ in self._model.named_modules()])
        if part is not None:
            output = named_tensors(output).get(part)
        if isinstance(output, Tensor) and output.ndim == 4:
            maps: Tensor | None = output.movedim(self._units_axis, 1)
        else:
            maps = as_maps(output, images.shape, prefix_tokens(self._model), self._units_axis)
        if maps is None or maps.ndim != 4:
            raise InputError(
                f"layer {self.layer!r} does not return maps [n, units, h, w] for images of {images.shape[2]} x "
                f"{images.shape[3]} pixels, on which its receptive fields are measured; {INSTEAD}"
            )
        return maps.isnan().any(dim=1).any(dim=2 - self._axis).cpu()


def run_network(model: nn.Module, images: Tensor) -> None:
    """Run a network; raise `RefusedError` if it cannot take images of this size."""
    try:
        model(images)
    except (InputError, _ReachedError):
        raise
    except Exception as error:
        raise RefusedError(tuple(images.shape[2:])) from error


def _output(model: nn.Module, layer: str, images: Tensor) -> Any:
    """Run a network up to a layer and return the layer's output; return None if the layer is not called."""
    outputs: list[Any] = []

    def stop(_module: nn.Module, _arguments: Any, output: Any) -> None:
        outputs.append(output)
        raise _ReachedError

    modules = dict(model.named_modules())
    handle = modules[split_layer(layer, modules)[0]].register_forward_hook(stop)
    try:
        with suppress(_ReachedError):
            run_network(model, images)
    finally:
        handle.remove()
    return outputs[0] if outputs else None


@contextmanager
def plain_convolutions() -> Iterator[None]:
    """Disable backends with fast convolution algorithms (Winograd, FFT), which would spread a NaN to its neighbours.

    oneDNN, PyTorch's usual backend on a CPU, computes convolutions as sums of products and stays enabled.
    """
    with torch.backends.cudnn.flags(enabled=False), torch.backends.nnpack.flags(enabled=False):
        yield
