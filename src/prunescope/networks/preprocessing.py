"""Turn pixels into the numbers that a network is given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunescope.bounds import shown
from prunescope.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# The weights of ITU-R BT.601-2, as fractions and as the multiples of 2^-16 with which Pillow converts RGB to "L".
LUMA = (0.299, 0.587, 0.114)
_LUMA_BITS = (19595, 38470, 7471)


@dataclass(frozen=True)
class Preprocessing:
    """How images are turned into the input of a network.

    A pixel value p from 0 to 255 becomes (p / 255 - mean) / std, separately for each channel.

    Attributes
    ----------
    mean, std
        The mean and the standard deviation of each channel, for images that are scaled to 0..1. There are three of
        each for RGB images and one for grayscale images.
    size
        The height and the width in pixels of the images that the weights were trained on; None if this is not known,
        as for weights from elsewhere.
    interpolation
        The interpolation with which these images were resized, such as `bilinear` or `bicubic`; None if it is not
        known.
    source
        A description of where the numbers come from.
    order
        The order of the channels of RGB images: `RGB`, or `BGR` if the network takes them reversed. The mean and the
        standard deviation are in this order.

    Raises
    ------
    InputError
        If the mean and the standard deviation do not consist of three numbers or of one, or are out of range, or if
        `order` is another word.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None = None
    interpolation: str | None = None
    source: str = "given"
    order: str = "RGB"

    def __post_init__(self) -> None:
        values_fit = all(map(math.isfinite, self.mean)) and all(0 < value < math.inf for value in self.std)
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3) or not values_fit:
            raise InputError(
                f"mean {list(self.mean)} and std {list(self.std)} ({self.source}): expected three numbers each, or one "
                "each for grey images, std above 0"
            )
        if self.order not in ("RGB", "BGR"):
            raise InputError(f"the order of the channels is {self.order!r}, expected 'RGB' or 'BGR'")

    @property
    def channels(self) -> int:
        """The number of channels of the images that a network is given."""
        return len(self.mean)

    @property
    def numbers(self) -> tuple[tuple[float, ...], tuple[float, ...], str]:
        """The mean, the standard deviation and the order of the channels, which decide what a network is given."""
        return self.mean, self.std, self.order

    def noted(self) -> dict[str, Any]:
        """Return the entries for the settings of a summary. `order` is only included if it is not RGB."""
        order = {} if self.order == "RGB" else {"order": self.order}
        return {"mean": list(self.mean), "std": list(self.std), "preprocessing": self.source, **order}


def check_channels(channels: int) -> None:
    """Raise if images cannot be converted to a number of channels.

    Raises
    ------
    InputError
        If the number is neither 3 (RGB) nor 1 (grayscale).
    """
    if channels not in (1, 3):
        raise InputError(
            f"channels is {shown(channels)}, expected 3 (RGB) or 1 (grayscale); the images of a data set are RGB, and "
            "what other channels contain is not known here. Wrap the network in a module that makes its channels from "
            "an RGB image"
        )


def arrange(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Convert RGB images to the channels that a network takes.

    Parameters
    ----------
    pixels
        RGB images, uint8 [n, h, w, 3].
    preprocessing
        The preprocessing. With one channel, images are converted to grey as Pillow converts RGB to the mode "L".

    Returns
    -------
    Tensor
        The images, uint8 [n, h, w, channels].

    Examples
    --------
    >>> arrange(torch.tensor([[[[255, 0, 0]]]], dtype=torch.uint8), Preprocessing((0.5,), (0.5,))).flatten()
    tensor([76], dtype=torch.uint8)
    """
    if preprocessing.channels == 1:
        # Integer arithmetic without matrix products, which are not exact or not implemented on some devices.
        red, green, blue = (pixels[..., i].int() * weight for i, weight in enumerate(_LUMA_BITS))
        return ((red + green + blue + (1 << 15)) >> 16).to(torch.uint8).unsqueeze(-1)
    return pixels.flip(-1) if preprocessing.order == "BGR" else pixels


class Normaliser:
    """Turns RGB images into the input of a network.

    Parameters
    ----------
    preprocessing
        The channels of the network's input, and their mean and standard deviation.
    device
        The device that the images are on.
    """

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        self._preprocessing = preprocessing
        self._mean, self._std = (
            torch.tensor(color, dtype=torch.float32, device=device).view(1, -1, 1, 1)
            for color in (preprocessing.mean, preprocessing.std)
        )

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the input for RGB images uint8 [n, h, w, 3], as float32 [n, channels, h, w]."""
        arranged = arrange(pixels, self._preprocessing)
        return (arranged.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std


def colors(given: Any) -> tuple[float, ...] | None:
    """Return the numbers of one or three channels as a tuple of floats, or None if they are something else."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        given = (given,) * 3
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) not in (1, 3):
        return None
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in given):
        return None
    return tuple(float(value) for value in given) if all(math.isfinite(value) for value in given) else None
