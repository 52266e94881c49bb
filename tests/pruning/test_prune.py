"""Pruning keeps what the definition says, exactly as many, and never brings a weight back."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune as torch_prune

from prunescope.errors import InputError
from prunescope.pruning import Mask, prune, prune_filters, shuffle


def small_network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(20, 7))


def plainly_pruned(weights: dict[str, torch.Tensor], mask: dict[str, torch.Tensor], count: int) -> set[tuple[str, int]]:
    """Sort every kept weight by magnitude, then by position; the first `count` go."""
    kept = []
    for tensor_number, (name, weight) in enumerate(weights.items()):
        for position, value in enumerate(weight.flatten().tolist()):
            if mask[name].flatten()[position]:
                kept.append((abs(value), tensor_number, position, name))
    return {(name, position) for _, _, position, name in sorted(kept)[:count]}


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.integers(-3, 3), min_size=27, max_size=27),
    fraction=st.sampled_from([0.0, 0.05, 0.07, 0.2, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 1000),
)
def test_the_lowest_magnitudes_go_and_ties_go_by_position(values: list[int], fraction: float, seed: int) -> None:
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(5, 3, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(values[:12]).reshape(4, 3))
        model[1].weight.copy_(torch.tensor(values[12:]).reshape(3, 5))
    generator = torch.Generator().manual_seed(seed)
    before = Mask({f"{i}.weight": torch.rand(model[i].weight.shape, generator=generator) < 0.7 for i in range(2)})
    after = prune(model, before, fraction=fraction)
    count = math.ceil(round(fraction * before.kept, 9))
    gone = plainly_pruned(dict(model.named_parameters()), dict(before), count)
    for name in before:
        for position, was_kept in enumerate(before[name].flatten().tolist()):
            expected = was_kept and (name, position) not in gone
            assert after[name].flatten()[position].item() == expected


def test_masks_equal_those_of_torch_global_unstructured_pruning() -> None:
    ours, theirs = small_network(), small_network()
    mask = prune(ours, fraction=0.2)
    amount = mask.prunable - mask.kept
    torch_prune.global_unstructured(
        [(theirs[0], "weight"), (theirs[4], "weight")], torch_prune.L1Unstructured, amount=amount
    )
    assert torch.equal(mask["0.weight"], theirs[0].weight_mask.bool())
    assert torch.equal(mask["4.weight"], theirs[4].weight_mask.bool())


def test_level_eight_keeps_16_8_percent_and_level_ten_10_7() -> None:
    model, mask, remaining = nn.Linear(1000, 100, bias=False), None, []
    for _ in range(10):
        mask = prune(model, mask)
        remaining.append(round(mask.weights_remaining, 3))
    assert (remaining[7], remaining[9]) == (0.168, 0.107)


def test_biases_and_normalisation_are_not_prunable() -> None:
    assert list(prune(small_network())) == ["0.weight", "4.weight"]


def test_scope_layer_takes_the_fraction_from_every_tensor() -> None:
    mask = prune(small_network(), fraction=0.2, scope="layer")
    assert [int((~tensor).sum()) for tensor in mask.values()] == [27, 28]


def test_random_pruning_depends_on_its_seed_only() -> None:
    one, again, other = (prune(small_network(w), criterion="random", seed=s) for w, s in ((0, 1), (9, 1), (0, 2)))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_excluded_weights_stay_whole_by_name_or_pattern_of_the_weight_or_of_a_module_around_it() -> None:
    model = nn.ModuleDict(
        {"conv1": nn.Conv2d(3, 4, 3), "layer1": nn.Sequential(small_network()), "fc": nn.Linear(4, 2)}
    )
    whole = {
        ("fc.weight",): ["conv1.weight", "layer1.0.0.weight", "layer1.0.4.weight"],
        ("conv1", "fc"): ["layer1.0.0.weight", "layer1.0.4.weight"],
        ("layer1",): ["conv1.weight", "fc.weight"],
        ("layer1.*",): ["conv1.weight", "fc.weight"],
        ("*.4", "conv?"): ["layer1.0.0.weight", "fc.weight"],
    }
    for exclude, pruned in whole.items():
        assert list(prune(model, exclude=exclude)) == pruned


@pytest.mark.parametrize("remaining", [1.0, 0.8, 0.5, 0.333, 0.07, 0.0])
def test_pruning_down_to_given_weights_remaining_keeps_exactly_that_many_in_one_or_more_steps(remaining: float) -> None:
    model = small_network()
    kept = 275 - math.ceil(round((1 - remaining) * 275, 9))
    at_once = prune(model, remaining=remaining)
    in_steps = prune(model, prune(model, remaining=(1 + remaining) / 2), remaining=remaining)
    assert at_once.kept == in_steps.kept == kept
    assert all(torch.equal(at_once[name], in_steps[name]) for name in at_once)


def test_every_tensor_comes_down_to_the_weights_remaining_in_scope_layer() -> None:
    model = small_network()
    mask = prune(model, prune(model, scope="layer"), remaining=0.5, scope="layer")
    assert [int(tensor.sum()) for tensor in mask.values()] == [67, 70]


def test_weights_that_are_gone_do_not_come_back_for_more_remaining() -> None:
    model = small_network()
    with pytest.raises(InputError, match=r"keeps only 0\.4982 of its"):
        prune(model, prune(model, remaining=0.5), remaining=0.8)
    mask = prune(model, prune(model, fraction=0.5, scope="layer"), fraction=0.9)
    with pytest.raises(InputError, match=r"0\.weight keeps only"):
        prune(model, mask, remaining=0.5, scope="layer")


def test_a_shuffled_mask_keeps_as_many_weights_of_each_tensor_but_others() -> None:
    mask = prune(small_network(), fraction=0.6)
    one, again, other = shuffle(mask, 1), shuffle(mask, 1), shuffle(mask, 2)
    assert list(one) == list(mask)
    for name in mask:
        assert one[name].shape == mask[name].shape
        assert one[name].sum() == mask[name].sum()
        assert torch.equal(one[name], again[name])
        assert not torch.equal(one[name], mask[name])
        assert not torch.equal(one[name], other[name])


def test_a_mask_is_saved_read_and_applied(tmp_path: Path) -> None:
    model = small_network()
    mask = prune(model, fraction=0.5)
    mask.save(tmp_path / "mask.safetensors")
    read = Mask.load(tmp_path / "mask.safetensors")
    read.apply(model)
    assert read.weights_remaining == mask.weights_remaining
    assert all((model.get_parameter(name)[~read[name]] == 0).all() for name in read)
    assert all((model.get_parameter(name)[read[name]] != 0).all() for name in read)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"fraction": 1.2}, "fraction is 1.2, expected a number from 0 to 1"),
        ({"remaining": -0.1}, "remaining is -0.1, expected a number from 0 to 1"),
        ({"remaining": 0.5, "fraction": 0.5}, "give one of them"),
        ({"remaining": float("nan")}, "remaining is nan"),
        ({"criterion": "magnitud"}, "nearest are: magnitude"),
        ({"scope": "gobal"}, "global"),
        ({"exclude": ["5.weight"]}, "nearest are: 4.weight"),
    ],
)
def test_what_cannot_be_pruned_is_said(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        prune(small_network(), **arguments)


def test_weights_that_are_not_finite_are_refused() -> None:
    model = small_network()
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match=r"'0\.weight'"):
        prune(model)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), r"'0\.weight' is not a parameter but computed"),
        (nn.utils.spectral_norm(nn.Linear(3, 4)), r"'0\.weight' is not a parameter but computed"),
        (nn.LazyLinear(4), r"'0\.weight' has no shape yet"),
    ],
    ids=["weight norm", "spectral norm", "lazy"],
)
def test_a_weight_that_is_not_there_as_such_is_refused_unless_it_is_excluded(layer: nn.Module, said: str) -> None:
    model = nn.Sequential(layer, nn.Linear(4, 2))
    with pytest.raises(InputError, match=said):
        prune(model)
    with pytest.raises(InputError, match=said):
        prune_filters(model, image_size=8)
    assert list(prune(model, exclude=["0"])) == ["1.weight"]


def test_a_file_that_holds_no_mask_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mask.safetensors"
    with pytest.raises(InputError, match=r"mask\.safetensors: the file does not exist; expected a mask"):
        Mask.load(path)
    path.write_text("mask")
    with pytest.raises(InputError, match=r"mask\.safetensors cannot be read as a mask"):
        Mask.load(path)
    save_file({}, path)
    with pytest.raises(InputError, match=r"mask\.safetensors is not a mask: it contains no tensors"):
        Mask.load(path)
    save_file({"fc.weight": torch.ones(2, 2)}, path)
    with pytest.raises(InputError, match=r"mask\.safetensors .*'fc\.weight' is torch\.float32, expected torch\.bool"):
        Mask.load(path)


def test_a_mask_of_another_network_is_refused() -> None:
    with pytest.raises(InputError, match="shape"):
        Mask({"0.weight": torch.ones(2, 2, dtype=torch.bool)}).apply(small_network())
    with pytest.raises(InputError, match="not in the network"):
        Mask({"conv.weight": torch.ones(2, 2, dtype=torch.bool)}).apply(small_network())


def test_attentions_own_projections_are_pruned_too() -> None:
    same, other = nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2, kdim=4, vdim=6)
    assert list(Mask.dense(same)) == ["in_proj_weight", "out_proj.weight"]
    assert list(Mask.dense(other)) == ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"]
    assert prune(same, fraction=0.5).kept == (3 * 64 + 64) // 2


def test_a_criterion_of_the_users_own_decides_which_weights_are_pruned() -> None:
    model = small_network()
    kept = prune(model, fraction=0.3, criterion=lambda _name, weight: weight.abs())
    own = prune(model, fraction=0.3)
    assert all(torch.equal(kept[name], own[name]) for name in own)
    names = []

    def later_layers_first(name: str, weight: torch.Tensor) -> torch.Tensor:
        names.append(name)
        weight.zero_()  # the criterion is given a copy
        return torch.full(weight.shape, -len(names))

    before = {name: weight.clone() for name, weight in model.named_parameters()}
    mask = prune(model, fraction=0.1, criterion=later_layers_first)
    assert names == list(mask)
    assert all(mask[name].all() for name in names[:-1])
    assert not mask[names[-1]].all()
    assert all(torch.equal(before[name], weight) for name, weight in model.named_parameters())


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (
            lambda weight: weight.sum(),
            r"returned torch.float32 \[\] for weight '.*'; expected a tensor of scores of shape \[",
        ),
        (lambda weight: weight.tolist(), "returned list for weight"),
        (lambda weight: weight * float("nan"), "returned NaN for weight"),
        (lambda weight: weight + 0j, "returned torch.complex64"),
    ],
)
def test_a_criterion_that_gives_no_scores_is_refused(
    returned: Callable[[torch.Tensor], torch.Tensor], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        prune(small_network(), criterion=lambda _name, weight: returned(weight))
