"""Estimate the statistics of normalisation layers again after pruning, which makes them wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunescope.errors import InputError


@dataclass
class _Moments:
    """Sums over all positions of a layer's input, from which its mean and variance are computed."""

    count: int
    total: Tensor  # float64 [channels]
    squares: Tensor  # float64 [channels]: the sum of squared differences from the mean so far

    def add(self, values: Tensor) -> None:
        """Add the input of one batch, [images, channels, ...]."""
        rows = values.detach().double().transpose(0, 1).flatten(1)
        count, mean = rows.shape[1], rows.mean(1)
        squares = (rows - mean[:, None]).square().sum(1)
        if self.count:
            # Two sets are merged as in Chan, Golub and LeVeque 1979, which is accurate even if the mean is large.
            between = (self.total / self.count - mean).square() * (self.count * count / (self.count + count))
            squares = squares + self.squares + between
        self.count, self.total, self.squares = self.count + count, self.total + mean * count, squares


def estimate_statistics(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Set the running mean and variance of every batch normalisation layer from images, in place.

    While the images pass through the network, each batch normalisation layer normalises with the statistics of the
    batch, as in training; all other modules are in evaluation mode. Afterwards, the layer's running mean and variance
    are the mean and the unbiased variance of its input over all positions of all images. This is done after pruning
    without retraining, because pruned weights change the distribution of the layers' inputs.

    Parameters
    ----------
    model
        The network. The mode of each module is restored afterwards.
    batches
        Batches of normalised images, [n, channels, height, width], on the network's device. The result depends on how
        images are grouped into batches, because layers see inputs that were normalised batch by batch.

    Returns
    -------
    int
        The number of layers whose statistics were set. It is 0 for a network without batch normalisation, through which
        no images are passed.

    Raises
    ------
    InputError
        If `batches` is empty, or if a batch has a single value per channel in some layer.
    """
    layers = {name: module for name, module in model.named_modules() if _has_statistics(module)}
    if not layers:
        return 0
    found: dict[str, _Moments] = {}

    def observed(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def observe(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            values = inputs[0]
            if name not in found:
                zeros = torch.zeros(values.shape[1], dtype=torch.float64, device=values.device)
                found[name] = _Moments(0, zeros, zeros.clone())
            found[name].add(values)

        return observe

    hooks = [module.register_forward_pre_hook(observed(name)) for name, module in layers.items()]
    seen = False
    try:
        with _normalising_by_batch(model, layers.values()), torch.no_grad():
            for images in batches:
                seen = True
                try:
                    model(images)
                except ValueError as error:
                    if "more than 1 value per channel" not in str(error):
                        raise
                    raise InputError(
                        f"the statistics of normalisation layers cannot be estimated from a batch of {len(images)} "
                        "images: a layer has a single value per channel; give more images"
                    ) from error
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        raise InputError("the statistics of normalisation layers cannot be estimated without images; give at least two")
    for name, moments in found.items():
        layer: Any = layers[name]
        layer.running_mean.copy_(moments.total / moments.count)
        layer.running_var.copy_(moments.squares / max(1, moments.count - 1))
    return len(found)


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_mean is not None


@contextmanager
def _normalising_by_batch(model: nn.Module, layers: Iterable[nn.Module]) -> Iterator[None]:
    """Put the given layers into training mode and all others into evaluation mode; restore modes and buffers."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    buffers = {}
    for layer in layers:
        layer.train()
        buffers[layer] = [buffer.clone() for buffer in layer.buffers()]
    try:
        yield
    finally:
        for layer, before in buffers.items():
            for buffer, value in zip(layer.buffers(), before, strict=True):
                buffer.copy_(value)
        for module, training in modes.items():
            module.training = training
