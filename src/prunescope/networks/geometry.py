"""Measure the receptive fields of a layer's units: their strides and centres in the image."""

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

# The amounts in pixels by which images are lengthened to measure a stride. The longest suffices to determine strides of
# up to 90 pixels exactly.
_GROWTHS = (1024, 2048, 4096, 16384)
_LONGEST = 16384
_NARROWEST = 8
_WIDEST = 1024
_INSTEAD = "choose another layer, or use the default alignment (half-pixel)"


@dataclass(frozen=True)
class Geometry:
    """The positions of the receptive fields of a layer's units.

    The receptive field of map position (y, x) is centred at `offset + stride * (y, x)`, in pixels of the image. The
    image extends from 0 to its height and from 0 to its width, so that the centre of its first pixel is at 0.5.

    Attributes
    ----------
    stride
        The vertical and the horizontal distance between neighbouring fields, in pixels.
    offset
        The vertical and the horizontal centre of the field of position (0, 0), in pixels.
    """

    stride: tuple[Fraction, Fraction]
    offset: tuple[Fraction, Fraction]


def receptive_fields(
    model: nn.Module, layers: Sequence[str], image_size: tuple[int, int], *, units_axis: UnitsAxis | None = None
) -> dict[str, Geometry]:
    """Measure the receptive fields of layers (the anchors of Bau et al. 2017, section 2.2).

    The network runs on blank strips of image that are NaN at one end. Every operation passes NaN on, and even 0 times
    NaN is NaN. A position of the map is therefore NaN exactly if its receptive field reaches the NaN end, and moving
    the edge of that end finds the edges of the field, pruned weights included. The strips are long enough that no
    field is cut off at a border. The network runs only as far as the layer, and it is left unchanged.

    Parameters
    ----------
    model
        The network. It takes images [n, 3, h, w]; up to the layers, it must also take images larger than `image_size`.
    layers
        Names of layers, as in `named_modules()`. Their outputs are maps, or tensors that `as_maps` turns into maps. The
        field of a map position extends from the first to the last pixel that affects any unit there. Pixels in between
        that affect none (with strides larger than kernels, or dilation) count as part of the field.
    image_size
        The height and the width of the images in pixels, (ih, iw).
    units_axis
        The axis of the layers' outputs that holds the units, as in `dissect`.

    Returns
    -------
    dict of str to Geometry
        The strides and centres for each layer.

    Raises
    ------
    InputError
        If a layer does not exist or does not return maps; if its units depend on the whole image (after global pooling,
        attention or squeeze-and-excitation); if the map positions are not evenly spread over the image, or their
        distance changes with the size of the image (adaptive pooling, upsampling, windows); or if the network takes
        images of one size only. The default alignment (half-pixel) can be used in these cases.

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
    """Check that layers return maps without NaN."""
    # A batch of two images, because a batch of one cannot reveal that the first axis is not the batch axis.
    images = blank_images(model, 2, image_size)
    with observe(model, layers, axes) as outputs:
        _run(model, images)
    for layer, output in outputs.items():
        if output.ndim != 4:
            raise InputError(
                f"layer {layer!r} returns {list(output.shape)}, not maps [n, units, h, w], so its units have no "
                f"positions in the image; {_INSTEAD}"
            )
        if output.isnan().any():
            raise InputError(f"layer {layer!r} returns NaN for a blank image; check the weights, or {_INSTEAD}")


def _geometry(model: nn.Module, layer: str, image_size: tuple[int, int], units_axis: int) -> Geometry:
    ih, iw = image_size
    down = _measure(_Strips(model, layer, units_axis, 0, iw), ih, None)
    along = _measure(_Strips(model, layer, units_axis, 1, ih), iw, down)
    return Geometry((Fraction(down.stride), Fraction(along.stride)), (down.centre, along.centre))


class _RefusedError(Exception):
    """The network cannot take images of this size (height, width)."""

    def __init__(self, size: tuple[int, ...]) -> None:
        super().__init__(size)
        self.size = size


class _ReachedError(Exception):
    """The layer has returned its output, and the rest of the network need not run."""


class _Edges(NamedTuple):
    """The map positions affected by NaN in two strips, the first with NaN at its start, the second at its end."""

    first: int  # the first position from which on none is affected by the NaN pixels of the first strip
    last: int  # all positions before this one are unaffected by the NaN pixels of the second strip
    begin: int  # the first affected position of the first strip; positions before it may depend on padding only
    end: int  # the position after the last affected one of the second strip


class _Strips:
    """Run a network up to a layer, on strips of image that are long in one direction and narrow in the other.

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
    """

    def __init__(self, model: nn.Module, layer: str, units_axis: int, axis: int, width: int) -> None:
        self.layer = layer
        self._model, self._units_axis, self._axis, self._width = model, units_axis, axis, width

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
            except _RefusedError:
                if self._width >= images_width:
                    raise
            if self._width < images_width:
                self._width = min(self._width + max(self._width // 2, _NARROWEST), images_width)
            else:
                # Even strips as wide as the images do not affect the output, so enlarge them in both directions.
                self._width, length = 2 * self._width, 2 * length
        raise InputError(f"layer {self.layer!r}: its units do not depend on the image; {_INSTEAD}")

    def cells(self, length: int) -> int:
        """Return the number of map positions along a strip of this length in pixels."""
        return self._blind(self._blank(1, length)).shape[1]

    def edges(self, length: int, before: int, after: int) -> _Edges:
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
        return _Edges(first, last, begin, end)

    def _blank(self, count: int, length: int) -> Tensor:
        size = (length, self._width) if self._axis == 0 else (self._width, length)
        return blank_images(self._model, count, size)

    def _blind(self, images: Tensor) -> Tensor:
        """Return where along the strips the layer's output has a NaN, as a bool tensor [strips, positions]."""
        output = _output(self._model, self.layer, images)
        if isinstance(output, Tensor) and output.ndim == 4:
            maps: Tensor | None = output.movedim(self._units_axis, 1)
        else:
            maps = as_maps(output, images.shape, prefix_tokens(self._model), self._units_axis)
        if maps is None or maps.ndim != 4:
            raise InputError(
                f"layer {self.layer!r} does not return maps [n, units, h, w] for images of {images.shape[2]} x "
                f"{images.shape[3]} pixels, on which its receptive fields are measured; {_INSTEAD}"
            )
        return maps.isnan().any(dim=1).any(dim=2 - self._axis).cpu()


@dataclass(frozen=True)
class _Fields:
    """The receptive fields along one axis, in pixels.

    The field of position i extends from `start + stride * i` to `stop + stride * i`, in the coordinates of `Geometry`.
    """

    stride: int
    start: int
    stop: int
    length: int  # the length of the strips on which the fields were measured

    @property
    def centre(self) -> Fraction:
        return Fraction(self.start + self.stop, 2)


class _Room(NamedTuple):
    """A length of strips that is sufficient to measure fields, and the positions with fields that end at the middle."""

    length: int
    first: int  # the first position from which on no field reaches a pixel before the middle
    last: int  # no field of a position before this one reaches a pixel after the middle
    far: int  # the number of further positions on either side that can be checked too


def _measure(strips: _Strips, pixels: int, like: _Fields | None) -> _Fields:
    """Measure the fields along one axis of images of length `pixels`.

    If `like` is given, these fields are tried first, because both axes usually have the same ones.
    """
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
    """Find the start and the end of the fields to the pixel by bisection."""
    # The field of position `first` has no pixel before `low`, and that of `last - 1` no pixel from `high` on.
    low = high = room.length // 2
    step = (1 << (stride - 1).bit_length()) >> 1
    while step:
        edges = strips.edges(room.length, low + step, high - step)
        low += step * (edges.first == room.first)
        high -= step * (edges.last == room.last)
        step //= 2
    return _Fields(stride, low - stride * room.first, high - stride * (room.last - 1), room.length)


def _hold(strips: _Strips, fields: _Fields, room: _Room) -> bool:
    """Return whether fields start and end at exactly the expected pixels, near the middle and far from it."""
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
    """Return the stride in pixels: the additional image length per additional map position."""
    cells = strips.cells(pixels)
    for growth in _GROWTHS:
        grown = strips.cells(pixels + growth) - cells
        if grown <= 0:
            break
        stride = max(round(growth / grown), 1)
        # The number of new positions is off by less than one, which here determines the stride to the pixel.
        if grown >= 2 * stride:
            return stride
    raise InputError(
        f"layer {strips.layer!r}: its map has {cells} positions along an image of {pixels} pixels, and "
        f"{cells + grown} along one of {pixels + growth}, as after global or adaptive pooling, so the distance "
        f"between its units' receptive fields is not a fixed number of pixels; {_INSTEAD}"
    )


def _room(strips: _Strips, pixels: int, stride: int, wanted: int) -> _Room:
    """Find a length of at least `wanted` pixels for strips in which fields are not cut off by the borders."""
    while wanted <= _LONGEST:
        # The strip is longer than the images by a multiple of the stride, so that size-dependent padding is the same.
        length = pixels + -(-(wanted - pixels) // stride) * stride
        first, last, begin, end = strips.edges(length, length // 2, length // 2)
        far = min(end - 1 - first, last - 1 - begin, length // 2 // stride - 2)
        if far >= 1:
            return _Room(length, first, last, far)
        wanted += max(wanted // 2, 1)
    raise InputError(
        f"layer {strips.layer!r}: its units depend on the whole image, as after global pooling, attention or "
        f"squeeze-and-excitation, so their receptive fields all have the same centre; {_INSTEAD}"
    )


def _run(model: nn.Module, images: Tensor) -> None:
    try:
        model(images)
    except (InputError, _ReachedError):
        raise
    except Exception as error:
        raise _RefusedError(tuple(images.shape[2:])) from error


def _output(model: nn.Module, layer: str, images: Tensor) -> Any:
    """Run a network up to a layer and return the layer's output; return None if the layer is not called."""
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
    """Disable backends with fast convolution algorithms (Winograd, FFT), which would spread a NaN to its neighbours.

    oneDNN, PyTorch's usual backend on a CPU, computes convolutions as sums of products and stays enabled.
    """
    with torch.backends.cudnn.flags(enabled=False), torch.backends.nnpack.flags(enabled=False):
        yield
