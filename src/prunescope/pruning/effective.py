"""Check that pruned weights are also zero in the operations that use them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd

from prunescope.errors import InputError
from prunescope.networks.checks import running_eagerly
from prunescope.pruning.watching import WatchingWeights, WeightUse

_SHOWN = 6


class Use(NamedTuple):
    """How a network uses the weights that are to be pruned.

    Attributes
    ----------
    unused
        The names of the weights that no operation used, neither in training nor in evaluation mode.
    training_only
        The names of the weights that were used in training mode only.
    unregistered
        The shapes of parameters that the network used although it does not have them, such as those of modules in a
        Python list.
    """

    unused: tuple[str, ...]
    training_only: tuple[str, ...]
    unregistered: tuple[tuple[int, ...], ...]


def check_effective(model: nn.Module, names: Collection[str], images: Tensor) -> Use:
    """Check that weights that are set to zero are also zero in the operations that use them.

    A network may compute the weight of a convolution from its parameter, for example by subtracting the mean (weight
    standardisation), by an addition or by a softmax. The zeros of a mask are then not zeros in the convolution, and the
    reported weights remaining would be wrong.

    To detect this, the network runs twice: in training mode with a random half of each weight tensor set to zero, and
    in evaluation mode with the other half set to zero. If every entry of the tensor that an operation uses is a
    multiple of one prunable weight, then it is zero in one of the two runs, even if the entries have been rearranged.
    An entry that is not zero in either run depends on something else as well.

    Parameters
    ----------
    model
        The network. It is left unchanged.
    names
        The names of the parameters to prune.
    images
        A batch of at least two images that the network takes, [n, 3, h, w].

    Returns
    -------
    Use
        The weights that the network does not use, and the parameters that it uses without having them.

    Raises
    ------
    InputError
        If a weight that is set to zero does not stay zero. The message names the first such weights and their modules.
    """
    # A weight that several modules share has several names. Its values are set under the first of them.
    first_names = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    weights = {first_names[id(parameters[name])]: name for name in names}
    generator = torch.Generator().manual_seed(0)
    values = _nowhere_zero(model, generator)
    gone = {
        name: torch.empty(values[name].shape, dtype=torch.bool).random_(generator=generator).to(values[name].device)
        for name in weights
    }
    first = _run(model, values, gone, images, training=True)
    second = _run(model, values, {name: ~half for name, half in gone.items()}, images, training=False)
    found = _not_masked(first, second)
    _refuse(model, [name for first_name, name in weights.items() if first_name in found])
    return Use(
        tuple(name for first_name, name in weights.items() if first_name not in first.used | second.used),
        tuple(name for first_name, name in weights.items() if first_name in first.used - second.used),
        tuple((first.unregistered | second.unregistered).values()),
    )


def check_own_forward(model: nn.Module, weights: Collection[str]) -> None:
    """Check each convolution and linear module in isolation, as `check_effective` does for a whole network.

    This does not require the size of the images, but it cannot detect what a network does with a weight outside the
    weight's module. Only modules of classes that are not PyTorch's own are run, on a random input of a suitable shape;
    PyTorch's own modules use their weights unchanged.

    Parameters
    ----------
    model
        The network. It is left unchanged.
    weights
        The names of the parameters to prune.

    Raises
    ------
    InputError
        If a weight that is set to zero does not stay zero in its module, as in `check_effective`.
    """
    found = []
    for name, module in model.named_modules():
        full = f"{name}.weight" if name else "weight"
        if full not in weights or type(module).__module__.startswith("torch.nn."):
            continue
        given = _made_up(module)
        # A module that needs other inputs fails here; it can only be checked by running the whole network.
        with suppress(Exception):
            try:
                check_effective(module, ["weight"], given)
            except InputError:
                found.append(full)
    _refuse(model, found)


def _not_masked(first: WeightUse, second: WeightUse) -> set[str]:
    """Return the names of the weights with entries that are not zero in the run in which they are set to zero."""
    found = first.broken | second.broken
    for key in first.computed.keys() | second.computed.keys():
        pair = [seen.computed[key] for seen in (first, second) if key in seen.computed]
        if len(pair) == 2 and pair[0].shape == pair[1].shape:
            if (pair[0] & pair[1]).any():
                found |= key[0]
            continue
        # The tensor was used in one of the two modes only, so expect half of the entries to be zero, up to chance.
        for filled in pair:
            if filled.float().mean() > 0.5 + 2.5 / filled.numel() ** 0.5:
                found |= key[0]
    return found


def _refuse(model: nn.Module, named: Sequence[str]) -> None:
    if not named:
        return
    modules = dict(model.named_modules(remove_duplicate=False))
    shown = [f"{name} ({type(modules[name.rpartition('.')[0]]).__name__})" for name in named[:_SHOWN]]
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    raise InputError(
        f"the network {type(model).__name__} transforms weights before it uses them (as in weight standardisation), so "
        f"that a pruned weight is not zero: {', '.join(shown)}{more}. Exclude these weights (`pruning.exclude` in a "
        "recipe, `exclude=` in Python), or use a network whose modules use their weights directly"
    )


def _nowhere_zero(model: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """Return the parameters and buffers, with zeros in parameters replaced by small numbers.

    Zeros would otherwise hide an addition: a sum with a bias of zero, for example, has the same zeros as the weight.
    """
    values: dict[str, Tensor] = {name: buffer.detach() for name, buffer in model.named_buffers()}
    for name, parameter in model.named_parameters():
        value = parameter.detach()
        zeros = value == 0
        if value.is_floating_point() and zeros.any():
            noise = 0.01 * (1 + torch.rand(value.shape, generator=generator))
            value = torch.where(zeros, noise.to(value), value)
        values[name] = value
    return values


def _run(
    model: nn.Module, values: Mapping[str, Tensor], gone: Mapping[str, Tensor], images: Tensor, *, training: bool
) -> WeightUse:
    """Run a network with some of its weights set to zero, and record where operations use nonzero weights."""
    parameters = {name for name, _ in model.named_parameters()}
    given = {}
    for name, value in values.items():
        own = value.masked_fill(gone[name], 0) if name in gone else value.clone()
        given[name] = nn.Parameter(own, requires_grad=False) if name in parameters else own
    watching = WatchingWeights({name: given[name] for name in gone}, gone, images, given.values())
    modes = [(module, module.training) for module in model.modules()]
    try:
        with running_eagerly(model), torch.random.fork_rng(devices=[]), torch.no_grad(), watching:
            functional_call(_InMode(model, training), {f"model.{name}": value for name, value in given.items()}, images)
    finally:
        for module, mode in modes:
            module.training = mode
    return watching.seen


class _InMode(nn.Module):
    """Run a network in training or evaluation mode.

    A network may change its weights when its mode changes, for example merge a low-rank update into them. Therefore the
    mode is changed, and changed back, while the network has the values that it runs with.
    """

    def __init__(self, model: nn.Module, training: bool) -> None:
        super().__init__()
        self.model, self._mode = model, training

    def forward(self, images: Tensor) -> None:
        """Change the mode, run the network and change the mode back."""
        before = self.model.training
        self.model.train(self._mode)
        try:
            self.model(images)
        finally:
            self.model.train(before)


def _made_up(module: nn.Module) -> Tensor:
    """Return a random input of a suitable shape for a convolution or linear module."""
    like = module.get_parameter("weight")
    if isinstance(module, _ConvNd):
        sizes = [max(8, 2 * reach * (kernel - 1) + 1) for kernel, reach in zip(*_kernel(module), strict=True)]
        shape = [2, module.in_channels, *sizes]
    else:
        shape = [2, int(like.shape[-1])]
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(like)


def _kernel(module: _ConvNd) -> tuple[Sequence[int], Sequence[int]]:
    return module.kernel_size, module.dilation
