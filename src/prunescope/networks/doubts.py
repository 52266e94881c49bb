"""Find combinations of a network and a preprocessing that are probably mistakes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from prunescope.networks.preprocessing import Preprocessing
from prunescope.networks.published_preprocessing import preprocessing_of
from prunescope.networks.random_weights import random_weights
from prunescope.networks.running import blank_images, evaluating


def doubts(model: nn.Module, used: Preprocessing, image_size: tuple[int, int]) -> list[str]:
    """Return warnings about a preprocessing that does not seem to fit a network or the images.

    Parameters
    ----------
    model
        The network. It is left unchanged.
    used
        The preprocessing of the images that the network is given.
    image_size
        The height and the width of the images in pixels.

    Returns
    -------
    list of str
        A sentence for each doubt: images that are normalised twice, values whose range cannot be right, or images of
        another size than those that the weights were trained on. The last is not always a mistake.
    """
    found = [
        _own_normalisation(model, used, image_size),
        _nearly_constant(used) or _other_range(model, used),
        _other_size(model, used, image_size),
    ]
    return [doubt for doubt in found if doubt is not None]


def _nearly_constant(used: Preprocessing) -> str | None:
    """Warn about numbers for pixels from 0 to 255, with which images that are scaled to 0..1 are nearly constant."""
    if all(-1 <= mean <= 2 for mean in used.mean) and all(std <= 10 for std in used.std):
        return None
    return (
        f"mean {list(used.mean)} and std {list(used.std)} ({used.source}) do not fit images that are scaled to 0..1, "
        f"and every pixel becomes a number from {_range(used)}. If they are for pixels from 0 to 255, divide by 255"
    )


def _other_range(model: nn.Module, used: Preprocessing) -> str | None:
    """Warn about values of another magnitude than those that the weights were trained on, such as 0..1 for 0..255."""
    known = preprocessing_of(model)
    if known is None or random_weights(model):
        return None
    ratios = [ours / theirs for ours, theirs in zip(used.std, known.std, strict=False)]
    if all(0.1 <= ratio <= 10 for ratio in ratios):
        return None
    return (
        f"with mean {list(used.mean)} and std {list(used.std)} ({used.source}), pixels become numbers from "
        f"{_range(used)}, but the network was trained on numbers from {_range(known)} ({known.source}). Leave out mean "
        f"and std, or give {list(known.mean)} and {list(known.std)}"
    )


def _range(preprocessing: Preprocessing) -> str:
    pairs = list(zip(preprocessing.mean, preprocessing.std, strict=True))
    return f"{min((0 - mean) / std for mean, std in pairs):.3g} to {max((1 - mean) / std for mean, std in pairs):.3g}"


def _other_size(model: nn.Module, used: Preprocessing, image_size: tuple[int, int]) -> str | None:
    if used.size is None or used.size == image_size or random_weights(model):
        return None
    (h, w), (ih, iw) = used.size, image_size
    return (
        f"the images of the data set have {ih} x {iw} pixels, and the network's weights were trained on images of {h} "
        f"x {w} pixels. Images are not resized, so units may detect less than at that size ({used.source})"
    )


def _own_normalisation(model: nn.Module, used: Preprocessing, image_size: tuple[int, int]) -> str | None:
    """Warn if the network normalises images in its first module, and its input is normalised as well."""
    if set(used.mean) == {0.0}:
        return None
    own = _first_scaling(model, used.channels, image_size)
    if own is None:
        return None
    name, kind, expects_bytes = own
    std, reason = ("0.00392157", "since it expects 0..255") if expects_bytes else ("1", "to normalise them only once")
    given = f"--mean {','.join(['0'] * used.channels)} --std {','.join([std] * used.channels)}"
    return (
        f"the network's module {name!r} ({kind}) normalises the images, which are normalised before with mean "
        f"{list(used.mean)} and std {list(used.std)} ({used.source}). Give {given} (in a recipe, data.mean and "
        f"data.std), {reason}"
    )


class _Begun(Exception):
    """The first module with weights has been reached."""


def _first_scaling(model: nn.Module, channels: int, image_size: tuple[int, int]) -> tuple[str, str, bool] | None:
    """Find a module without weights that scales or shifts the images themselves.

    Returns
    -------
    tuple of str, str and bool, or None
        The module's name and class, and whether it expects pixels from 0 to 255; None if there is none.
    """
    images = blank_images(model, 1, image_size, channels)
    given: list[tuple[str, nn.Module]] = []

    def note(name: str, module: nn.Module, arguments: Sequence[Any]) -> None:
        if any(weight.requires_grad for weight in module.parameters(recurse=False)) or isinstance(module, _ConvNd):
            raise _Begun
        scales = not isinstance(module, _NormBase) and not any(weight.requires_grad for weight in module.parameters())
        if name and scales and arguments and arguments[0] is images:
            given.append((name, module))

    devices = [images.device] if images.is_cuda else []
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                handle = module.register_forward_pre_hook(
                    lambda module, arguments, name=name: note(name, module, arguments)
                )
                stack.callback(handle.remove)
        stack.enter_context(evaluating(model))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices))
        # A network that cannot take the images is refused elsewhere, with the reason.
        stack.enter_context(suppress(Exception))
        model(images)
    for name, module in given:
        with suppress(Exception), torch.no_grad():
            # A copy is called, because a module may store what it was called with.
            if (scaling := _scaling(copy.deepcopy(module), images)) is not None:
                slope, intercept = scaling
                # It subtracts -intercept / slope from a pixel: about 124 for pixels from 0 to 255, and 0.5 for 0..1.
                return name, type(module).__name__, bool((-intercept / slope).max() > 2 or slope.max() < 0.1)
    return None


def _scaling(module: nn.Module, images: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return slope and intercept, [channels] each, if a module computes `slope * image + intercept` and changes it."""
    module.eval()
    zero, one = module(images), module(images + 1)
    if not isinstance(zero, Tensor) or zero.shape != images.shape:
        return None
    slope, intercept = (one - zero)[0, :, 0, 0], zero[0, :, 0, 0]
    probe = torch.linspace(-2, 2, images.numel(), dtype=images.dtype, device=images.device).view(images.shape)
    expected = slope.view(1, -1, 1, 1) * probe + intercept.view(1, -1, 1, 1)
    tolerance = 1e-2 if images.dtype.itemsize < 4 else 1e-4
    affine = torch.allclose(module(probe), expected, rtol=tolerance, atol=tolerance) and bool((slope != 0).all())
    changes = not torch.equal(slope, torch.ones_like(slope)) or bool(intercept.any())
    return (slope, intercept) if affine and changes else None
