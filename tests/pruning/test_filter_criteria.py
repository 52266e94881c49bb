"""Filters go by the definition: the same share of every group, the lowest norms first, to the weights asked for."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunescope.errors import InputError
from prunescope.pruning import Filters, prune_filters
from tests.pruning.small import SIZE, chain, network, smaller, weights_in

PLAIN = {"0": 6, "4": 8, "7": 10}  # the chain's groups: filters of each


def plainly_chosen(model: nn.Sequential, most: int) -> dict[str, set[int]]:
    """Remove filters of the chain one by one, in the order in which a common share passes them."""
    norms = {name: model.get_submodule(name).weight.abs().flatten(1).sum(1).tolist() for name in PLAIN}
    orders = {name: sorted(range(len(norms[name])), key=lambda f, own=norms[name]: (own[f], f)) for name in PLAIN}
    passed = sorted(
        ((k - 0.5) / size, place, name, k)
        for place, (name, size) in enumerate(reversed(PLAIN.items()))
        for k in range(1, size)
    )
    gone = dict.fromkeys(PLAIN, 0)
    while weights_of_chain(gone) > most:
        _, _, name, k = passed.pop(0)
        gone[name] = k
    return {name: set(orders[name][gone[name] :]) for name in PLAIN}


def weights_of_chain(gone: dict[str, int]) -> int:
    a, b, c = (size - gone[name] for name, size in PLAIN.items())
    return 3 * 9 * a + 9 * a * b + 4 * b * c + 5 * c


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5), st.floats(0.06, 1.0), st.booleans())
def test_the_filters_that_go_are_those_of_the_definition(seed: int, share: float, of_what_is_left: bool) -> None:
    model = chain(seed)
    dense = weights_in(model)
    share = round(share, 3)
    goes = round(1 - share, 3)
    asked = {"fraction": goes} if of_what_is_left else {"remaining": share}
    filters = prune_filters(model, **asked, image_size=SIZE)
    expected = plainly_chosen(model, dense - math.ceil(round(goes * dense, 9)))
    assert {name: set(filters[name].tolist()) for name in PLAIN} == expected


@pytest.mark.parametrize("remaining", [0.9, 0.5, 0.2, 0.05])
def test_every_group_gives_the_same_share_and_the_weights_left_are_just_under_those_asked_for(remaining: float) -> None:
    model = network("prunescope:resnet14x16")
    filters = prune_filters(model, remaining=remaining, image_size=SIZE)
    assert remaining - 0.02 < weights_in(smaller(model, filters)) / weights_in(model) <= remaining
    gone = {name: (int((~kept).sum()), len(kept)) for name, kept in filters.outputs.items() if name != "fc"}
    least, most = (max((k - 0.5) / n for k, n in gone.values()), min((k + 0.5) / n for k, n in gone.values()))
    assert least <= most + 1e-9


def test_coupled_layers_are_scored_by_the_mean_of_their_norms() -> None:
    model = network("prunescope:resnet8x8")
    ends = ["stage2.0.conv2", "stage2.0.shortcut.0"]
    norms = [model.get_submodule(name).weight.detach().abs().sum(dim=(1, 2, 3)) for name in ends]
    filters = prune_filters(model, remaining=0.5, image_size=SIZE)
    kept = filters[ends[0]]
    assert torch.equal(kept, filters[ends[1]])
    assert torch.equal(kept, filters["stage2.0.bn2"])
    best = (norms[0] + norms[1]).topk(len(kept)).indices.sort().values
    assert torch.equal(kept, best)
    # Neither layer alone says the same, or this would show nothing.
    assert not any(torch.equal(kept, norm.topk(len(kept)).indices.sort().values) for norm in norms)


def test_the_memory_layout_does_not_matter() -> None:
    one, other = chain(), chain().to(memory_format=torch.channels_last)
    filters, same = (prune_filters(model, remaining=0.4, image_size=(SIZE, SIZE)) for model in (one, other))
    assert all(torch.equal(filters[name], same[name]) for name in filters)
    images = torch.ones(2, 3, SIZE, SIZE)
    torch.testing.assert_close(smaller(one.eval(), filters)(images), smaller(other.eval(), same)(images))


def test_equal_norms_go_by_position() -> None:
    model = chain()
    with torch.no_grad():
        model[4].weight.fill_(0.5)
    filters = prune_filters(model, remaining=0.5, image_size=SIZE)
    assert filters["4"].tolist() == list(range(8 - len(filters["4"]), 8))


def test_random_filters_depend_on_the_seed_only_and_are_as_many() -> None:
    def pruned(weights: int, seed: int, criterion: str = "random") -> Filters:
        return prune_filters(chain(weights), remaining=0.4, criterion=criterion, image_size=SIZE, seed=seed)

    one, again, other, by_norm = pruned(0, 1), pruned(9, 1), pruned(0, 2), pruned(0, 1, "magnitude")
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert {name: len(one[name]) for name in one} == {name: len(by_norm[name]) for name in by_norm}


@pytest.mark.parametrize("exclude", ["4", "4.weight", "[45]"])
def test_an_excluded_layer_keeps_its_filters_while_its_inputs_become_fewer(exclude: str) -> None:
    model = chain()
    filters = prune_filters(model, remaining=0.4, exclude=[exclude], image_size=SIZE)
    assert filters["4"].tolist() == list(range(8))
    assert weights_in(smaller(model, filters)) <= 0.4 * weights_in(model)
    assert smaller(model, filters)[4].in_channels == len(filters["0"]) < 6


def test_excluding_a_layer_keeps_what_is_coupled_with_it() -> None:
    filters = prune_filters(network("prunescope:resnet14x16"), remaining=0.6, exclude=["stem"], image_size=SIZE)
    whole = {name for name, kept in filters.outputs.items() if kept.all()}
    assert whole == {"stem.0", "stem.1", "fc"} | {f"stage1.{n}.{end}" for n in (0, 1) for end in ("conv2", "bn2")}


def test_the_networks_outputs_are_never_removed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    filters = prune_filters(model, remaining=0.3, image_size=SIZE)
    assert len(filters["2"]) == 5
    assert smaller(model, filters)(torch.zeros(2, 3, SIZE, SIZE)).shape == (2, 5)


def test_a_layer_that_would_lose_all_filters_keeps_one_and_says_so() -> None:
    model = nn.Sequential(nn.Conv2d(3, 1, 3), nn.Conv2d(1, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 2, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few = prune_filters(model, remaining=0.8, image_size=SIZE)
    with pytest.warns(UserWarning, match="^layer '0' would lose all filters; one filter is kept"):
        many = prune_filters(model, remaining=0.2, image_size=SIZE)
    assert len(few["0"]) == len(many["0"]) == 1
    assert len(many["1"]) < len(few["1"])


def test_more_than_is_left_is_nothing_to_prune() -> None:
    model = chain()
    filters = prune_filters(model, remaining=0.4, image_size=SIZE)
    again = prune_filters(smaller(model, filters), filters, remaining=0.9, image_size=SIZE)
    assert all(torch.equal(filters[name], again[name]) for name in filters)


class Shuffled(nn.Module):
    """Two groups of channels, interleaved."""

    def forward(self, maps: Tensor) -> Tensor:
        n, channels, h, w = maps.shape
        return maps.view(n, 2, channels // 2, h, w).transpose(1, 2).reshape(n, channels, h, w)


@pytest.mark.parametrize(
    "between",
    [
        nn.GroupNorm(2, 8),
        nn.Conv2d(8, 8, 3, groups=2),
        Shuffled(),
        nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
    ],
    ids=lambda module: type(module).__name__,
)
def test_filters_that_cannot_go_one_by_one_stay(between: nn.Module) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), between, nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3)).eval()
    filters = prune_filters(model, fraction=0.2, image_size=SIZE)
    assert len(filters["0"]) == 8
    assert len(filters["2"]) < 8
    smaller(model, filters)


class PaddedShortcut(nn.Module):
    """Four channels added to the middle ones of eight, as in He et al. 2016, section 4.2, option A."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(4, 8, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        return self.wide(maps) + nn.functional.pad(maps, (0, 0, 0, 0, 2, 2))


@pytest.mark.parametrize(
    ("between", "channels"),
    [(nn.GLU(dim=1), 4), (nn.PixelShuffle(2), 2), (nn.Sequential(nn.GLU(dim=1), PaddedShortcut()), 8)],
    ids=["halved", "rearranged", "padded"],
)
def test_filters_whose_channels_become_fewer_or_more_stay(between: nn.Module, channels: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), between, nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3)).eval()
    filters = prune_filters(model, fraction=0.2, image_size=SIZE)
    assert [name for name, kept in filters.outputs.items() if not kept.all()] == ["2"]
    smaller(model, filters)


def test_a_module_that_runs_twice_keeps_its_filters() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again, self.last = (nn.Conv2d(c, d, 3, padding=1) for c, d in ((3, 6), (6, 6), (6, 2)))

        def forward(self, images: Tensor) -> Tensor:
            return self.last(self.again(self.again(self.first(images).relu()).relu()).relu())

    with pytest.raises(InputError, match=r"no filter of the network .* can be removed"):
        prune_filters(Twice(), image_size=SIZE)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"criterion": "shuffled"}, "criterion is 'shuffled'"),
        ({"fraction": 2}, "from 0 to 1"),
        ({"exclude": ["fc"]}, "no prunable weight or module is called 'fc'"),
        ({"remaining": 0.01}, r"one filter left in each of the 3 groups .* 45 weights are left, but at most 9"),
        ({"exclude": ["*"]}, "no filter of the network .* can be removed"),
        ({"image_size": 4}, "cannot take images of 4 x 4 pixels"),
    ],
)
def test_what_cannot_be_pruned_is_said(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        prune_filters(chain(), **{"image_size": SIZE} | arguments)


@pytest.mark.parametrize("criterion", ["magnitude", "random"])
@pytest.mark.parametrize("layer", [4, 9], ids=["of a group", "the classifier"])
def test_weights_that_are_not_finite_are_refused(layer: int, criterion: str) -> None:
    model = chain()
    with torch.no_grad():
        model[layer].weight[0] = float("inf")
    with pytest.raises(InputError, match=rf"'{layer}\.weight' contains values that are not finite"):
        prune_filters(model, criterion=criterion, image_size=SIZE)


def test_layers_that_share_a_weight_keep_it_whole() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.a, self.b, self.next, self.last = (nn.Conv2d(c, 6, 1) for c in (3, 6, 6, 6, 6))
            self.b.weight = self.a.weight

        def forward(self, images: Tensor) -> Tensor:
            maps = self.first(images).relu()
            return self.last(self.next((self.a(maps) + self.b(maps)).relu()).relu())

    model = Tied()
    filters = prune_filters(model, remaining=0.8, image_size=SIZE)
    assert [name for name, kept in filters.outputs.items() if not kept.all()] == ["next"]
    shrunk = smaller(model, filters)
    assert weights_in(shrunk) == filters.mask(model).kept <= 0.8 * weights_in(model)


def test_a_network_with_a_part_that_only_trains_is_refused() -> None:
    class WithAuxiliary(nn.Sequential):
        def forward(self, images: Tensor) -> Tensor:
            return self[0](images)

    with pytest.raises(InputError, match="module '1' does not run in evaluation mode"):
        prune_filters(WithAuxiliary(chain(), nn.Conv2d(3, 3, 3)), image_size=SIZE)


def test_a_criterion_of_the_users_own_decides_which_filters_are_removed() -> None:
    model = chain()
    own = prune_filters(model, remaining=0.5, image_size=SIZE)
    by_norm = prune_filters(
        model, remaining=0.5, image_size=SIZE, criterion=lambda _name, weight: weight.abs().flatten(1).sum(1)
    )
    reverse = prune_filters(
        model, remaining=0.5, image_size=SIZE, criterion=lambda _name, weight: -weight.abs().flatten(1).sum(1)
    )
    assert all(torch.equal(own[name], by_norm[name]) for name in own)
    assert any(not torch.equal(own[name], reverse[name]) for name in own)
    with pytest.raises(
        InputError, match=r"returned torch.float32 \[.*\] for weight '.*weight'; expected a tensor of scores of shape"
    ):
        prune_filters(model, image_size=SIZE, criterion=lambda _name, weight: weight)
