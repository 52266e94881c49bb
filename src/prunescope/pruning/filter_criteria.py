"""Which of the filters go next."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.conv import _ConvNd

from prunescope.errors import InputError, nearest
from prunescope.pruning.criteria import Amount, refuse_infinite
from prunescope.pruning.filters import Filters
from prunescope.pruning.groups import FilterGroup, Side, filter_axis, filter_groups, has_filters
from prunescope.pruning.mask import prunable_weights

FilterCriterion = Literal["magnitude", "random"]
Order = NDArray[np.int64]
Gone = dict[tuple[str, Side], Order]  # of which module and side, which places


def prune_filters(
    model: nn.Module,
    filters: Filters | None = None,
    *,
    fraction: float | None = None,
    remaining: float | None = None,
    criterion: FilterCriterion = "magnitude",
    exclude: Sequence[str] = (),
    image_size: int | tuple[int, int],
    seed: int = 0,
) -> Filters:
    """Choose the filters that go, so that a fraction of the weights goes with them (Li et al. 2016, section 3.1).

    Filters of layers that are coupled, by a residual addition say, go together: they are one group. Every group gives
    the same share of its filters, those of lowest score. The share is the least at which the weights that are really
    left, of all convolutions and linear modules, are not more than asked for: filters go one by one, next the one that
    leaves its group's share nearest to the others'. Ties go by position, so that the filters are a function of the
    weights alone. The model itself is not changed: `shrink` does that.

    Parameters
    ----------
    model
        The trained network; where `filters` are given, already shrunk to them.
    filters
        What earlier levels left; None for a dense network.
    fraction
        Of the weights left that go, 0 to 1; 0.2 if neither this nor `remaining` is given. At most
        left - ceil(fraction x left) weights stay.
    remaining
        Instead of `fraction`: weights left / weights of the dense network afterwards, 0 to 1.
    criterion
        `magnitude`: the score is the L1 norm of the filter's weights, in a group of several layers the mean over their
        filters; `random`: it is drawn from `seed`.
    exclude
        Names or shell patterns of weights or modules that keep their filters, and so all that is coupled with them;
        their inputs may still become fewer.
    image_size
        Height and width of the images the network takes, in pixels, or one number for both.
    seed
        Of `criterion="random"`.

    Returns
    -------
    Filters
        What is left now; a subset of `filters`. The network's outputs are never removed.

    Warns
    -----
    UserWarning
        A layer would lose all its filters: it keeps one.

    Raises
    ------
    InputError
        A number outside 0 to 1, an unknown criterion, a pattern that matches nothing, weights that are not finite,
        filters of another network, no filter that can go, or too few to come down so far.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3))
    >>> filters = prune_filters(model, remaining=0.5, image_size=8)
    >>> len(filters["0"]), len(filters["2"]), filters.weights_remaining(model)
    (4, 2, 0.5)
    """
    amount = Amount.given(fraction, remaining)
    if criterion not in get_args(FilterCriterion):
        raise InputError(f"criterion is {criterion!r}; {nearest(str(criterion), get_args(FilterCriterion))}")
    refuse_infinite(prunable_weights(model))
    if filters is None:
        filters = Filters.all(model)
    else:
        filters.check(model, dense=False)
    groups = filter_groups(model, image_size, exclude)
    if not groups:
        raise InputError(
            f"no filter of the network {type(model).__name__} can go: all are excluded, its outputs, or coupled with "
            "something that cannot lose them; exclude less, or prune its weights instead"
        )
    layers = _layers(model, filters)
    most = amount.stay(_weights_left(layers, {}), sum(layer.dense for layer in layers.values()))
    orders = _orders(model, groups, criterion, seed)
    counts = _counts(groups, most, lambda counts: _weights_left(layers, _gone(groups, orders, counts)))
    outputs = {name: kept.clone() for name, kept in filters.outputs.items()}
    inputs = {name: kept.clone() for name, kept in filters.inputs.items()}
    for (name, side), places in _gone(groups, orders, counts).items():
        kept = (outputs if side == "outputs" else inputs)[name]
        kept[kept.nonzero().flatten()[torch.from_numpy(places)]] = False
    return Filters(outputs, inputs)


@dataclass(frozen=True)
class _Layer:
    """A convolution or linear module; one input where each of its outputs has inputs of its own."""

    outputs: int
    inputs: int
    of_pair: int  # weights for each pair of them
    dense: int  # weights in the dense network

    def left(self, outputs_gone: int, inputs_gone: int) -> int:
        return (self.outputs - outputs_gone) * (self.inputs - inputs_gone) * self.of_pair


def _layers(model: nn.Module, filters: Filters) -> dict[str, _Layer]:
    layers = {}
    for name, module in model.named_modules():
        if has_filters(module):
            outputs = filters.outputs[name]
            of_its_own = name not in filters.inputs or getattr(module, "groups", 1) > 1
            inputs = torch.ones(1, dtype=torch.bool) if of_its_own else filters.inputs[name]
            left, among = int(outputs.sum()), int(inputs.sum())
            of_pair = module.get_parameter("weight").numel() // (left * among)
            layers[name] = _Layer(left, among, of_pair, len(outputs) * len(inputs) * of_pair)
    return layers


def _weights_left(layers: dict[str, _Layer], gone: Gone) -> int:
    return sum(
        layer.left(len(gone.get((name, "outputs"), ())), len(gone.get((name, "inputs"), ())))
        for name, layer in layers.items()
    )


def _orders(model: nn.Module, groups: list[FilterGroup], criterion: str, seed: int) -> list[Order]:
    """Order each group's filters, the first to go first."""
    generator = np.random.default_rng(seed)
    if criterion == "random":
        return [generator.permutation(group.size) for group in groups]
    return [np.argsort(_norms(model, group), kind="stable") for group in groups]


def _norms(model: nn.Module, group: FilterGroup) -> NDArray[np.float64]:
    """Give the L1 norm of each filter, the mean over the group's layers."""
    total, layers = np.zeros(group.size), np.zeros(group.size)
    for member in group.members:
        module = model.get_submodule(member.module)
        if member.side == "outputs" and isinstance(module, _ConvNd | nn.Linear):
            weight = module.weight.detach().transpose(0, filter_axis(module))
            norms = weight.abs().flatten(1).sum(dim=1, dtype=torch.float64).cpu().numpy()
            np.add.at(total, member.filters, norms[member.places])
            np.add.at(layers, member.filters, 1)
    result: NDArray[np.float64] = total / layers
    return result


def _counts(groups: list[FilterGroup], most: int, left: Callable[[list[int]], int]) -> list[int]:
    """Find how many filters of each group go, for at most that many weights to be left."""
    # Filter k of n goes when the common share passes (k - 1/2) / n: then k is the share of n, rounded.
    steps = sorted(
        (Fraction(2 * k - 1, 2 * group.size), g) for g, group in enumerate(groups) for k in range(1, group.size)
    )
    taken = np.array([g for _, g in steps], np.int64)

    def after(steps_done: int) -> list[int]:
        return [int(count) for count in np.bincount(taken[:steps_done], minlength=len(groups))]

    low, high = 0, len(steps)
    if left(after(high)) > most:
        raise InputError(
            f"filters cannot be pruned so far: with one filter left in each of the {len(groups)} groups that can lose "
            f"some, {left(after(high)):,} weights are left, and at most {most:,} were asked for; prune less, or "
            "exclude less"
        )
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if left(after(middle)) <= most else (middle + 1, high)
    share = steps[low - 1][0] if low else Fraction(0)
    spared = [group.name for group in groups if share >= Fraction(2 * group.size - 1, 2 * group.size)]
    if spared:
        warnings.warn(
            f"layer {', '.join(map(repr, spared))} would lose all filters; one is kept, so that the network still runs",
            stacklevel=3,
        )
    return after(low)


def _gone(groups: list[FilterGroup], orders: list[Order], counts: list[int]) -> Gone:
    """Say which places of which modules' sides go when each group loses its first filters."""
    gone: dict[tuple[str, Side], list[Order]] = {}
    for group, order, count in zip(groups, orders, counts, strict=True):
        if not count:
            continue
        goes = np.zeros(group.size, np.bool_)
        goes[order[:count]] = True
        for member in group.members:
            gone.setdefault((member.module, member.side), []).append(member.places[goes[member.filters]])
    return {side: np.concatenate(places) for side, places in gone.items()}
