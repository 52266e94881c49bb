"""Measure the receptive fields of a layer's units: their strides and centres in the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor, nn

from prunescope.errors import InputError
from prunescope.networks.layers import UnitsAxis, units_axes
from prunescope.networks.observing import observe
from prunescope.networks.running import blank_images, evaluating, image_channels
from prunescope.networks.strips import INSTEAD, LONGEST, RefusedError, Strips, plain_convolutions, run_network

# The amounts in pixels by which images are lengthened to measure a stride. The longest suffices to determine strides of
# up to 90 pixels exactly.
_GROWTHS = (1024, 2048, 4096, 16384)


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
    model: nn.Module,
    layers: Sequence[str],
    image_size: tuple[int, int],
    *,
    units_axis: UnitsAxis | None = None,
    channels: int | None = None,
) -> dict[str, Geometry]:
    """Measure the receptive fields of layers (the anchors of Bau et al. 2017, section 2.2).

    The network runs on blank image strips that are NaN at one end. Every operation passes NaN on, and even 0 times
    NaN is NaN. A position of the map is therefore NaN exactly if its receptive field reaches the NaN end, and moving
    the edge of that end finds the edges of the field, pruned weights included. The strips are long enough that no
    field is cut off at a border. The network runs only as far as the layer, and it is left unchanged.

    Parameters
    ----------
    model
        The network. It takes images [n, channels, h, w]; up to the layers, it must also take images larger than
        `image_size`.
    layers
        Names of layers, as in `named_modules()`. Their outputs are maps, or tensors that `as_maps` turns into maps. The
        field of a map position extends from the first to the last pixel that affects any unit there. Pixels in between
        that affect none (with strides larger than kernels, or dilation) count as part of the field.
    image_size
        The height and the width of the images in pixels, (ih, iw).
    units_axis
        The axis of the layers' outputs that holds the units, as in `dissect`.
    channels
        The number of channels of the images. By default, it is determined by `image_channels`.

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
    with evaluating(model), torch.no_grad(), plain_convolutions():
        try:
            channels = channels or image_channels(model, image_size)
            axes = units_axes(model, layers, image_size, units_axis, channels=channels)
            # Use a batch of two images, because a batch of one cannot reveal that the first axis is not the batch axis.
            _check_maps(model, layers, blank_images(model, 2, image_size, channels), axes)
            return {layer: _geometry(model, layer, image_size, axes[layer], channels) for layer in layers}
        except RefusedError as refused:
            error = refused.__cause__
            raise InputError(
                f"the network {type(model).__name__} cannot take images of {refused.size[0]} x {refused.size[1]} "
                f"pixels ({type(error).__name__}: {(str(error).splitlines() or [''])[0]}), on which its receptive "
                f"fields for images of {image_size[0]} x {image_size[1]} are measured; {INSTEAD}"
            ) from error


def _check_maps(model: nn.Module, layers: Sequence[str], images: Tensor, axes: Mapping[str, int]) -> None:
    """Check that layers return maps without NaN."""
    with observe(model, layers, axes) as outputs:
        run_network(model, images)
    for layer, output in outputs.items():
        if output.ndim != 4:
            raise InputError(
                f"layer {layer!r} returns {list(output.shape)}, not maps [n, units, h, w], so its units have no "
                f"positions in the image; {INSTEAD}"
            )
        if output.isnan().any():
            raise InputError(f"layer {layer!r} returns NaN for a blank image; check the weights, or {INSTEAD}")


def _geometry(model: nn.Module, layer: str, image_size: tuple[int, int], units_axis: int, channels: int) -> Geometry:
    ih, iw = image_size
    down = _measure(Strips(model, layer, units_axis, 0, iw, channels), ih, None)
    along = _measure(Strips(model, layer, units_axis, 1, ih, channels), iw, down)
    return Geometry((Fraction(down.stride), Fraction(along.stride)), (down.centre, along.centre))


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


def _measure(strips: Strips, pixels: int, like: _Fields | None) -> _Fields:
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
            f"{stride} pixels apart), as after upsampling or in windows of attention; {INSTEAD}"
        )
    return fields


def _close_in(strips: Strips, stride: int, room: _Room) -> _Fields:
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


def _hold(strips: Strips, fields: _Fields, room: _Room) -> bool:
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


def _stride(strips: Strips, pixels: int) -> int:
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
        f"between its units' receptive fields is not a fixed number of pixels; {INSTEAD}"
    )


def _room(strips: Strips, pixels: int, stride: int, wanted: int) -> _Room:
    """Find a length of at least `wanted` pixels for strips in which fields are not cut off by the borders."""
    while wanted <= LONGEST:
        # The strip is longer than the images by a multiple of the stride, so that size-dependent padding is the same.
        length = pixels + -(-(wanted - pixels) // stride) * stride
        first, last, begin, end = strips.edges(length, length // 2, length // 2)
        far = min(end - 1 - first, last - 1 - begin, length // 2 // stride - 2)
        if far >= 1:
            return _Room(length, first, last, far)
        wanted += max(wanted // 2, 1)
    raise InputError(
        f"layer {strips.layer!r}: its units depend on the whole image, as after global pooling, attention or "
        f"squeeze-and-excitation, so their receptive fields all have the same centre; {INSTEAD}"
    )
