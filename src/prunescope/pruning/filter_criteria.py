"""Choose the filters to prune next."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.conv import _ConvNd

from prunescope.errors import InputError
from prunescope.pruning.amount import Amount
from prunescope.pruning.criteria import BuiltinCriterion, Criterion, check_criterion, refuse_infinite, score
from prunescope.pruning.filters import Filters
from prunescope.pruning.groups import FilterGroup, Side, filter_axis, filter_groups, has_filters
from prunescope.pruning.mask import prunable_weights

Order = NDArray[np.int64]
Gone = dict[tuple[str, Side], Order]  # the indices of the removed channels, by module and side


def prune_filters(
    model: nn.Module,
    filters: Filters | None = None,
    *,
    fraction: float | None = None,
    remaining: float | None = None,
    criterion: BuiltinCriterion | Criterion = "magnitude",
    exclude: Sequence[str] = (),
    image_size: int | tuple[int, int],
    seed: int = 0,
) -> Filters:
    """Choose filters to remove, so that a given fraction of the weights is removed (Li et al. 2016, section 3.1).

    Filters of coupled layers, for example by a residual addition, are removed together and form a group. Each group
    loses the same share of its filters, namely those with the lowest scores. The share is the smallest one that leaves
    no more weights than requested, counted over all convolutions and linear modules. To find it, filters are removed
    one by one, always from the group that keeps the shares of the groups most equal. Among equal scores, filters at
    earlier positions are removed first, so that the result is a function of the weights alone. The model is not
    changed; use `shrink` for that.

    Parameters
    ----------
    model
        The trained network. If `filters` is given, it must already be shrunk to these filters.
    filters
        The filters that earlier levels kept, or None for a dense network.
    fraction
        The fraction of the current weights to remove, from 0 to 1. It is 0.2 if neither this nor `remaining` is given.
        Of n weights, at most n - ceil(fraction x n) remain.
    remaining
        The ratio of the weights left after pruning to the weights of the dense network, from 0 to 1; an alternative to
        `fraction`.
    criterion
        The score of a filter: the L1 norm of its weights (`magnitude`) or what a function returns, both averaged over
        the layers of a group, or a random number drawn with `seed` (`random`). The function is called as
        ``criterion(name, weight)`` for each weight tensor, whose first axis holds the filters, and returns a score for
        each filter. The tensor `weight` is a copy.
    exclude
        Names or shell patterns of weights or modules that keep all their filters. Filters coupled with these are kept
        too. The inputs of an excluded module may still be removed.
    image_size
        The height and width of the images that the network takes, in pixels, or one number for both.
    seed
        The seed of `criterion="random"`.

    Returns
    -------
    Filters
        The filters that are left now, a subset of `filters`. The outputs of the network are never removed.

    Warns
    -----
    UserWarning
        If a layer would lose all its filters. One filter is kept.

    Raises
    ------
    InputError
        If both `fraction` and `remaining` are given, or one is outside 0 to 1; if the criterion is unknown, or returns
        anything other than a score for each filter; if a pattern matches nothing; if weights are not finite; if the
        filters belong to another network; if no filter can be removed; or if removing all filters that can be removed
        still leaves more weights than requested.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3))
    >>> filters = prune_filters(model, remaining=0.5, image_size=8)
    >>> len(filters["0"]), len(filters["2"]), filters.weights_remaining(model)
    (4, 2, 0.5)
    """
    amount = Amount(fraction, remaining)
    check_criterion(criterion)
    refuse_infinite(prunable_weights(model))
    if filters is None:
        filters = Filters.all(model)
    else:
        filters.check(model, dense=False)
    groups = filter_groups(model, image_size, exclude)
    if not groups:
        raise InputError(
            f"no filter of the network {type(model).__name__} can be removed: all filters are excluded, are outputs of "
            "the network, or are coupled with operations that cannot lose channels; exclude less, or prune its "
            "weights instead"
        )
    layers = _layers(model, filters)
    most = amount.stay(_weights_left(layers, {}), sum(layer.dense for layer in layers.values()))
    orders = _orders(model, groups, criterion, seed)
    counts = _counts(groups, most, lambda counts: _weights_left(layers, _gone(groups, orders, counts)))
    outputs = {name: kept.clone() for name, kept in filters.outputs.items()}
    inputs = {name: kept.clone() for name, kept in filters.inputs.items()}
    for (name, side), indices in _gone(groups, orders, counts).items():
        kept = (outputs if side == "outputs" else inputs)[name]
        kept[kept.nonzero().flatten()[torch.from_numpy(indices)]] = False
    return Filters(outputs, inputs)


@dataclass(frozen=True)
class _Layer:
    """The size of a convolution or linear module; a grouped convolution counts as having one input."""

    outputs: int
    inputs: int
    of_pair: int  # the number of weights per pair of an output and an input
    dense: int  # the number of weights in the dense network

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


def _orders(
    model: nn.Module, groups: list[FilterGroup], criterion: BuiltinCriterion | Criterion, seed: int
) -> list[Order]:
    """Return the filters of each group in the order in which they are removed."""
    generator = np.random.default_rng(seed)
    if criterion == "random":
        return [generator.permutation(group.size) for group in groups]
    by = criterion if callable(criterion) else None
    return [np.argsort(_scores(model, group, by), kind="stable") for group in groups]


def _scores(model: nn.Module, group: FilterGroup, criterion: Criterion | None) -> NDArray[np.float64]:
    """Return the score of each filter of a group, averaged over its layers; the L1 norm if no criterion is given."""
    total, layers = np.zeros(group.size), np.zeros(group.size)
    for member in group.members:
        module = model.get_submodule(member.module)
        if member.side == "outputs" and isinstance(module, _ConvNd | nn.Linear):
            weight = module.weight.detach().transpose(0, filter_axis(module))
            if criterion is None:
                scores = weight.abs().flatten(1).sum(dim=1, dtype=torch.float64).cpu().numpy()
            else:
                name = f"{member.module}.weight" if member.module else "weight"
                scores = score(criterion, name, weight, weight.shape[:1]).double().numpy()
            np.add.at(total, member.filters, scores[member.indices])
            np.add.at(layers, member.filters, 1)
    result: NDArray[np.float64] = total / layers
    return result


def _counts(groups: list[FilterGroup], most: int, left: Callable[[list[int]], int]) -> list[int]:
    """Return the number of filters to remove from each group, so that at most `most` weights are left."""
    # The k-th of n filters is removed when the common share reaches (k - 1/2) / n, which rounds share x n to k.
    steps = sorted(
        (Fraction(2 * k - 1, 2 * group.size), g) for g, group in enumerate(groups) for k in range(1, group.size)
    )
    taken = np.array([g for _, g in steps], np.int64)

    def after(steps_done: int) -> list[int]:
        return [int(count) for count in np.bincount(taken[:steps_done], minlength=len(groups))]

    low, high = 0, len(steps)
    if left(after(high)) > most:
        raise InputError(
            f"not enough filters can be removed: with one filter left in each of the {len(groups)} groups of filters, "
            f"{left(after(high)):,} weights are left, but at most {most:,} were requested; prune less or exclude less"
        )
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if left(after(middle)) <= most else (middle + 1, high)
    share = steps[low - 1][0] if low else Fraction(0)
    spared = [group.name for group in groups if share >= Fraction(2 * group.size - 1, 2 * group.size)]
    if spared:
        warnings.warn(
            f"layer {', '.join(map(repr, spared))} would lose all filters; one filter is kept, so that the network "
            "still runs",
            stacklevel=3,
        )
    return after(low)


def _gone(groups: list[FilterGroup], orders: list[Order], counts: list[int]) -> Gone:
    """Return the indices of the removed channels, by module and side, if groups lose `counts` filters each."""
    gone: dict[tuple[str, Side], list[Order]] = {}
    for group, order, count in zip(groups, orders, counts, strict=True):
        if not count:
            continue
        goes = np.zeros(group.size, np.bool_)
        goes[order[:count]] = True
        for member in group.members:
            gone.setdefault((member.module, member.side), []).append(member.indices[goes[member.filters]])
    return {side: np.concatenate(indices) for side, indices in gone.items()}
