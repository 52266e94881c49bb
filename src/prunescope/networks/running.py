"""Run a network on blank images, and leave its mode and its device as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from prunescope.networks.checks import failed_module, running_eagerly


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and restore the mode of each of its modules afterwards.

    A compiled network runs without compilation within the context, because compiled code ignores hooks that are added
    later.

    Parameters
    ----------
    model
        The network.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with running_eagerly(model):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def moved_to(model: nn.Module, device: str | torch.device) -> Iterator[None]:
    """Move a network to a device within the context, and move each of its modules back afterwards.

    Parameters
    ----------
    model
        The network. The context moves it back after an error too.
    device
        The device to run on.

    Examples
    --------
    >>> model = nn.Linear(2, 2)
    >>> with moved_to(model, "cuda:0" if torch.cuda.is_available() else "cpu"):
    ...     outputs = model(torch.zeros(1, 2, device=model.weight.device))
    >>> model.weight.device
    device(type='cpu')
    """
    # Modules come before the modules in them, which may have been on another device.
    before = [
        (module, tensor.device)
        for module in model.modules()
        for tensor in list(chain(module.parameters(recurse=False), module.buffers(recurse=False)))[:1]
    ]
    try:
        model.to(device)
        yield
    finally:
        for module, own in before:
            module.to(own)


def image_channels(model: nn.Module, image_size: tuple[int, int]) -> int:
    """Return the number of channels of the images that a network takes.

    The network runs on blank images only if its first convolution does not take three channels.

    Parameters
    ----------
    model
        The network. It is left unchanged.
    image_size
        The height and the width of the images in pixels.

    Returns
    -------
    int
        1 if the first convolution that is given the images takes one channel, otherwise 3. Networks that take any
        other number of channels are refused when they run on RGB images.

    Examples
    --------
    >>> image_channels(nn.Sequential(nn.Conv2d(1, 8, 3)), (32, 32)), image_channels(nn.Linear(3, 3), (32, 32))
    (1, 3)
    """
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None or first.in_channels == 3:
        return 3
    images = blank_images(model, 2, image_size, 3)
    devices = [images.device] if images.is_cuda else []
    # Modules are registered in any order, so the convolution that comes first is the one that fails on RGB images.
    try:
        with evaluating(model), torch.no_grad(), torch.random.fork_rng(devices):
            model(images)
    except Exception as error:
        found = failed_module(error)
        if found is not None and isinstance(found[0], nn.Conv2d) and found[1].shape == images.shape:
            return 1 if found[0].in_channels == 1 else 3
    return 3


def blank_images(model: nn.Module, count: int, size: tuple[int, int], channels: int) -> Tensor:
    """Return zeros [count, channels, height, width] in the network's precision and on its device."""
    like = next(model.parameters(), torch.zeros(()))
    return torch.zeros(count, channels, *size, dtype=like.dtype, device=like.device)
