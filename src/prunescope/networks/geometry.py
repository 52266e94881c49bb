"""Where in the image a unit looks: strides and centres of receptive fields, measured from the network itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from prunescope.errors import InputError
from prunescope.networks.layers import UnitsAxis, blank_images, evaluating, observe, prefix_tokens, units_axes
from prunescope.networks.tokens import as_maps

# Lengths by which an image grows to count how the map grows with it; the last tells strides up to 90 pixels apart.
_GROWTHS = (1024, 2048, 4096, 16384)
_LONGEST = 16384
_NARROWEST = 8
_WIDEST = 1024
_INSTEAD = "choose another layer, or use the default alignment (half-pixel)"


@dataclass(frozen=True)
class Geometry:
    """Where the units of a layer look.

    The receptive field of map position (y, x) is centred at `offset + stride * (y, x)`, in pixels of the image; the
    image spans 0 to its height and width, and the centre of its first pixel is at 0.5.
    """

    stride: tuple[Fraction, Fraction]  # down, along
    offset: tuple[Fraction, Fraction]


def receptive_fields(
    model: nn.Module, layers: Sequence[str], image_size: tuple[int, int], *, units_axis: UnitsAxis | None = None
) -> dict[str, Geometry]:
    """Measure where the units of some layers look (the anchors of Bau et al. 2017, section 2.2).

    The network runs on blank strips of image of which one end is NaN. Whatever depends on NaN, by whichever operation,
    is NaN itself, and 0 times NaN is too: the edge at which a map position falls blind is the edge of its receptive
    field, pruned weights included. Strips are as long as the fields need, so that borders cut none off; the network
    runs no further than the layer. It is left as it was.

    Parameters
    ----------
    model
        Takes images [n, 3, h, w], larger ones than `image_size` too up to the layer.
    layers
        Names as `named_modules()` gives them; their outputs are maps, or what `as_maps` takes as such. A position's
        field reaches from the first pixel that any of the layer's units sees there to the last; pixels between them
        that none sees (strides larger than kernels, dilation) count as seen.
    image_size
        ih, iw: the images' height and width in pixels.
    units_axis
        As in `dissect`.

    Returns
    -------
    dict of str to Geometry
        By layer.

    Raises
    ------
    InputError
        A layer that is not there or has another output; units that look at the whole image (after global pooling,
        attention, squeeze-and-excitation); a map whose positions are not evenly spread over the image, or not the same
        number of pixels apart in larger images (adaptive pooling, upsampling, windows); a network that takes images of
        one size only. Then there are no centres to anchor at, and the default alignment is the one to use.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 7, stride=2, padding=3), nn.MaxPool2d(3, 2))
    >>> receptive_fields(model, ["0", "1"], (64, 64))["1"].stride
    (Fraction(4, 1), Fraction(4, 1))
    >>> receptive_fields(model, ["0", "1"], (64, 64))["1"].offset
    (Fraction(5, 2), Fraction(5, 2))
    """
    with evaluating(model), torch.no_grad(), _plain_convolutions():
        try:
            axes = units_axes(model, layers, image_size, units_axis)
            _check_maps(model, layers, image_size, axes)
            return {layer: _geometry(model, layer, image_size, axes[layer]) for layer in layers}
        except _RefusedError as refused:
            error = refused.__cause__
            raise InputError(
                f"the network {type(model).__name__} cannot take images of {refused.size[0]} x {refused.size[1]} "
                f"pixels ({type(error).__name__}: {(str(error).splitlines() or [''])[0]}), on which its receptive "
                f"fields for images of {image_size[0]} x {image_size[1]} are measured; {_INSTEAD}"
            ) from error


def _check_maps(model: nn.Module, layers: Sequence[str], image_size: tuple[int, int], axes: Mapping[str, int]) -> None:
    """Check that layers put out maps."""
    # Two, so that an output that does not begin with the images is told apart.
    images = blank_images(model, 2, image_size)
    with observe(model, layers, axes) as outputs:
        _run(model, images)
    for layer, output in outputs.items():
        if output.ndim != 4:
            raise InputError(
                f"layer {layer!r} puts out {list(output.shape)} and no maps [n, units, h, w]: its units have no places "
                f"in the image; {_INSTEAD}"
            )
        if output.isnan().any():
            raise InputError(f"layer {layer!r} puts out nan for a blank image; look at the weights, or {_INSTEAD}")


def _geometry(model: nn.Module, layer: str, image_size: tuple[int, int], units_axis: int) -> Geometry:
    ih, iw = image_size
    down = _measure(_Strips(model, layer, units_axis, 0, iw), ih, None)
    along = _measure(_Strips(model, layer, units_axis, 1, ih), iw, down)
    return Geometry((Fraction(down.stride), Fraction(along.stride)), (down.centre, along.centre))


class _RefusedError(Exception):
    """The network cannot take images of a size."""

    def __init__(self, size: tuple[int, ...]) -> None:
        super().__init__(size)
        self.size = size


class _ReachedError(Exception):
    """The layer has put out what is needed; the rest of the network need not run."""


class _Edges(NamedTuple):
    """Which positions see what of two strips, one blind from its start up to a pixel, one from a pixel to its end."""

    first: int  # position from which on none sees the first strip's blind pixels
    last: int  # position before which none sees the second strip's
    begin: int  # the first that sees any pixel, and the one after the last: beyond, there is but padding
    end: int


class _Strips:
    """A network up to a layer, on strips of image that are long in one direction and narrow in the other.

    Parameters
    ----------
    model, layer
        The network and the layer's name.
    units_axis
        Of the layer's output.
    axis
        In which direction strips are long: 0 down, 1 along.
    width
        Of the images, across.
    """

    def __init__(self, model: nn.Module, layer: str, units_axis: int, axis: int, width: int) -> None:
        self.layer = layer
        self._model, self._units_axis, self._axis, self._width = model, units_axis, axis, width

    def narrow(self, length: int) -> None:
        """Find the narrowest strips that the network takes and of which the layer sees anything.

        Where a strip has shrunk to few positions across, a dilated window looks past them on either side, into padding:
        nothing along the strip would be seen either.
        """
        images_width = self._width
        self._width = min(_NARROWEST, images_width)
        while self._width <= max(_WIDEST, images_width):
            try:
                if self._blind(self._blank(1, length).fill_(torch.nan)).any():
                    return
            except _RefusedError:
                if self._width >= images_width:
                    raise
            if self._width < images_width:
                self._width = min(self._width + max(self._width // 2, _NARROWEST), images_width)
            else:
                # The images themselves shrink to nothing to see, in either direction.
                self._width, length = 2 * self._width, 2 * length
        raise InputError(f"layer {self.layer!r}: its units see nothing of the image; {_INSTEAD}")

    def cells(self, length: int) -> int:
        """Count the map's positions along a strip."""
        return self._blind(self._blank(1, length)).shape[1]

    def edges(self, length: int, before: int, after: int) -> _Edges:
        """Blind a strip from its start up to pixel `before`, and another from pixel `after` to its end."""
        images = self._blank(2, length)
        along = images.transpose(2, 2 + self._axis)
        along[0, :, :before] = torch.nan
        along[1, :, after:] = torch.nan
        from_start, to_end = self._blind(images)
        cells = len(from_start)
        seen, seeing = from_start.nonzero().flatten().tolist(), to_end.nonzero().flatten().tolist()
        begin, first = (seen[0], seen[-1] + 1) if seen else (cells, 0)
        last, end = (seeing[0], seeing[-1] + 1) if seeing else (cells, 0)
        return _Edges(first, last, begin, end)

    def _blank(self, count: int, length: int) -> Tensor:
        size = (length, self._width) if self._axis == 0 else (self._width, length)
        return blank_images(self._model, count, size)

    def _blind(self, images: Tensor) -> Tensor:
        """Bool [strips, positions]: where along the strips the layer's output has a NaN."""
        output = _output(self._model, self.layer, images)
        if isinstance(output, Tensor) and output.ndim == 4:
            maps: Tensor | None = output.movedim(self._units_axis, 1)
        else:
            maps = as_maps(output, images.shape, prefix_tokens(self._model), self._units_axis)
        if maps is None or maps.ndim != 4:
            raise InputError(
                f"layer {self.layer!r} puts out no maps [n, units, h, w] for images of {images.shape[2]} x "
                f"{images.shape[3]} pixels, on which its receptive fields are measured; {_INSTEAD}"
            )
        return maps.isnan().any(dim=1).any(dim=2 - self._axis).cpu()


@dataclass(frozen=True)
class _Fields:
    """The receptive fields along one axis: position i sees pixels `start + stride * i` up to `stop + stride * i`."""

    stride: int
    start: int
    stop: int
    length: int  # of the strips that showed them

    @property
    def centre(self) -> Fraction:
        return Fraction(self.start + self.stop, 2)


class _Room(NamedTuple):
    """A length of strips with which fields end on either side of the middle, and where they do."""

    length: int
    first: int  # position from which on none sees a pixel before the middle
    last: int  # position before which none sees a pixel after the middle
    far: int  # how many more there are, at least, beyond both


def _measure(strips: _Strips, pixels: int, like: _Fields | None) -> _Fields:
    """Find the fields along one axis of images that are `pixels` long; where they are `like` others, soon."""
    strips.narrow(pixels)
    if like is not None and _hold(strips, like, _room(strips, pixels, like.stride, max(like.length, pixels))):
        return like
    stride = _stride(strips, pixels)
    room = _room(strips, pixels, stride, pixels)
    fields = _close_in(strips, stride, room)
    if not _hold(strips, fields, room):
        raise InputError(
            f"layer {strips.layer!r}: its units' receptive fields are not evenly spread over the image (some "
            f"{stride} pixels apart), as after upsampling or in windows of attention; {_INSTEAD}"
        )
    return fields


def _close_in(strips: _Strips, stride: int, room: _Room) -> _Fields:
    """Find the ends of two fields to the pixel, by halving."""
    # Position `first` sees nothing before pixel `low`, position `last - 1` nothing from pixel `high` on.
    low = high = room.length // 2
    step = (1 << (stride - 1).bit_length()) >> 1
    while step:
        edges = strips.edges(room.length, low + step, high - step)
        low += step * (edges.first == room.first)
        high -= step * (edges.last == room.last)
        step //= 2
    return _Fields(stride, low - stride * room.first, high - stride * (room.last - 1), room.length)


def _hold(strips: _Strips, fields: _Fields, room: _Room) -> bool:
    """Check that fields begin and end at their very pixels, near the middle and far from it."""
    return all(
        strips.edges(
            room.length,
            fields.start + fields.stride * (room.first + there) + more,
            fields.stop + fields.stride * (room.last - 1 - there) - more,
        )[:2]
        == (room.first + there + more, room.last - there - more)
        for there in (1, room.far)
        for more in (0, 1)
    )


def _stride(strips: _Strips, pixels: int) -> int:
    """How many pixels longer an image must be for one more position, to the nearest pixel."""
    cells = strips.cells(pixels)
    for growth in _GROWTHS:
        grown = strips.cells(pixels + growth) - cells
        if grown <= 0:
            break
        stride = max(round(growth / grown), 1)
        # The growth is known to less than one position: enough to tell whole pixels apart.
        if grown >= 2 * stride:
            return stride
    raise InputError(
        f"layer {strips.layer!r}: its map has {cells} positions along an image of {pixels} pixels, and "
        f"{cells + grown} along one of {pixels + growth}, as after global or adaptive pooling: its units' receptive "
        f"fields are no fixed number of pixels apart; {_INSTEAD}"
    )


def _room(strips: _Strips, pixels: int, stride: int, wanted: int) -> _Room:
    """Find strips, `wanted` pixels long or more, in which fields have room."""
    while wanted <= _LONGEST:
        # Whole strides longer than the images: then padding that depends on the size is the same.
        length = pixels + -(-(wanted - pixels) // stride) * stride
        first, last, begin, end = strips.edges(length, length // 2, length // 2)
        far = min(end - 1 - first, last - 1 - begin, length // 2 // stride - 2)
        if far >= 1:
            return _Room(length, first, last, far)
        wanted += max(wanted // 2, 1)
    raise InputError(
        f"layer {strips.layer!r}: its units look at the whole image, as after global pooling, attention or "
        f"squeeze-and-excitation, so that their receptive fields have no centres of their own; {_INSTEAD}"
    )


def _run(model: nn.Module, images: Tensor) -> None:
    try:
        model(images)
    except (InputError, _ReachedError):
        raise
    except Exception as error:
        raise _RefusedError(tuple(images.shape[2:])) from error


def _output(model: nn.Module, layer: str, images: Tensor) -> Any:
    """Run a network as far as a layer, and return what that puts out; None if the network does not come there."""
    outputs: list[Any] = []

    def stop(_module: nn.Module, _arguments: Any, output: Any) -> None:
        outputs.append(output)
        raise _ReachedError

    handle = model.get_submodule(layer).register_forward_hook(stop)
    try:
        with suppress(_ReachedError):
            _run(model, images)
    finally:
        handle.remove()
    return outputs[0] if outputs else None


@contextmanager
def _plain_convolutions() -> Iterator[None]:
    """Keep to convolutions that sum products: fast ones (Winograd, Fourier) mix neighbours and would spread a NaN.

    oneDNN, PyTorch's usual backend on a CPU, sums products and stays.
    """
    with torch.backends.cudnn.flags(enabled=False), torch.backends.nnpack.flags(enabled=False):
        yield
