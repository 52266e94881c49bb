"""Small networks whose filters are pruned."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunescope.networks.source import build_network
from prunescope.pruning import Filters, prunable_weights, shrink

SIZE = 16


def chain(seed: int = 0) -> nn.Sequential:
    """Two convolutions, flattened into two linear modules, for images of 16 pixels."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(4),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 4, 10),
        nn.ReLU(),
        nn.Linear(10, 5),
    )


def unlike_any_other(model: nn.Module) -> nn.Module:
    """Draw normalisation and biases at random, so that no two channels do the same."""
    generator = torch.Generator().manual_seed(1)

    def between(low: float, high: float, like: Tensor) -> Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.weight.copy_(between(0.5, 1.5, module.weight))
                module.bias.copy_(between(-0.3, 0.3, module.bias))
                module.running_mean.copy_(between(-0.3, 0.3, module.bias))
                module.running_var.copy_(between(0.5, 1.5, module.bias))
            elif getattr(module, "bias", None) is not None:
                module.bias.copy_(between(-0.1, 0.1, module.bias))
    return model.eval()


def network(name: str) -> nn.Module:
    return unlike_any_other(chain() if name == "chain" else build_network(name, classes=5, seed=0))


def silenced(model: nn.Module, filters: Filters) -> nn.Module:
    """The dense network, with every parameter of each removed channel set to zero."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, kept in filters.outputs.items():
            module = model.get_submodule(name)
            for parameter in () if kept.all() else module.parameters():
                filters_last = parameter.ndim > 1 and getattr(module, "transposed", False) and module.groups == 1
                parameter.transpose(0, 1 if filters_last else 0)[~kept] = 0
    return model


def smaller(model: nn.Module, filters: Filters, size: int = SIZE) -> nn.Module:
    """A copy of a dense network, shrunk."""
    model = copy.deepcopy(model)
    shrink(model, filters, size)
    return model


def weights_in(model: nn.Module) -> int:
    return sum(weight.numel() for weight in prunable_weights(model).values())
