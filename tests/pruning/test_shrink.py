"""A shrunk network computes what the dense one does without the removed filters, and its units keep their numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from prunescope.errors import InputError
from prunescope.networks.observing import observe
from prunescope.networks.weights import load_weights, save_weights
from prunescope.pruning import Filters, prune_filters, shrink, unit_numbers
from tests.pruning.small import SIZE, chain, network, silenced, smaller, weights_in


def observed(model: nn.Module, layers: list[str], images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    with observe(model, layers, dict.fromkeys(layers, 1)) as outputs, torch.no_grad():
        scores = model(images)
    return scores, outputs


NETWORKS = {
    "chain": (SIZE, ["0", "2", "3", "5", "7"]),
    "prunescope:resnet14x16": (32, ["stem", "stage1", "stage1.0", "stage2.0.shortcut", "stage3", "pool"]),
    "torchvision:resnet18": (32, ["relu", "layer1", "layer2.0", "layer2.0.bn1", "layer4"]),
    "torchvision:densenet121": (
        32,
        ["features.denseblock1", "features.transition1", "features.denseblock4", "features"],
    ),
    "torchvision:googlenet": (32, ["maxpool1", "inception3a", "inception4d.branch3", "maxpool4", "inception5b"]),
    "torchvision:alexnet": (63, ["features.1", "features.5", "features", "classifier.2"]),
    "torchvision:mobilenet_v2": (32, ["features.2", "features.3.conv.1", "features.18"]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_shrunk_network_computes_what_the_dense_one_does_with_the_removed_filters_silent(name: str) -> None:
    size, layers = NETWORKS[name]
    model = network(name)
    filters = prune_filters(model, remaining=0.4, image_size=size)
    shrunk = smaller(model, filters, size)
    assert weights_in(shrunk) == filters.mask(model).kept
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2))
    scores, maps = observed(shrunk, layers, images)
    same_scores, same_maps = observed(silenced(model, filters), layers, images)
    other_scores, _ = observed(model, layers, images)
    torch.testing.assert_close(scores, same_scores, rtol=1e-3, atol=1e-5 * float(same_scores.abs().max()))
    assert (other_scores - scores).abs().max() > 1e-2 * scores.abs().max()
    numbers = unit_numbers(model, shrunk, filters, layers, size)
    for layer in layers:
        expected = same_maps[layer][:, numbers[layer]]
        torch.testing.assert_close(maps[layer], expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
        assert maps[layer].shape[1] < same_maps[layer].shape[1]


def test_what_is_left_of_a_chain_are_slices_of_its_tensors() -> None:
    model = chain()
    filters = prune_filters(model, remaining=0.4, image_size=SIZE)
    first, second, hidden = (filters[name] for name in ("0", "4", "7"))
    features = (second[:, None] * 4 + torch.arange(4)).flatten()
    dense, small = model.state_dict(), smaller(model, filters).state_dict()
    by_hand = {
        **{f"0.{name}": dense[f"0.{name}"][first] for name in ("weight", "bias")},
        **{f"1.{name}": dense[f"1.{name}"][first] for name in ("weight", "bias", "running_mean", "running_var")},
        "4.weight": dense["4.weight"][second][:, first],
        "4.bias": dense["4.bias"][second],
        "7.weight": dense["7.weight"][hidden][:, features],
        "7.bias": dense["7.bias"][hidden],
        "9.weight": dense["9.weight"][:, hidden],
        "9.bias": dense["9.bias"],
    }
    assert small.keys() - by_hand.keys() == {"1.num_batches_tracked"}
    for name, tensor in by_hand.items():
        assert torch.equal(small[name], tensor), name
    assert torch.equal(filters["1"], first)
    assert 0 < len(first) < 6
    assert 0 < len(second) < 8


def test_the_mask_says_which_of_the_dense_weights_are_left() -> None:
    model = chain()
    filters = prune_filters(model, remaining=0.4, image_size=SIZE)
    mask, small = filters.mask(model), smaller(model, filters)
    for name, kept in mask.items():
        assert torch.equal(model.get_parameter(name)[kept], small.get_parameter(name).flatten())
    assert filters.weights_remaining(model) == mask.weights_remaining == weights_in(small) / weights_in(model)


def test_numbers_stay_the_dense_networks_when_pruning_goes_on() -> None:
    model = network("prunescope:resnet8x8")
    filters, shrunk = None, model
    for _ in range(3):
        before = filters or Filters.all(model)
        filters = prune_filters(shrunk, filters, fraction=0.3, image_size=SIZE)
        assert all(set(filters[name].tolist()) <= set(before[name].tolist()) for name in filters)
        shrunk = smaller(model, filters)
        at_once = {name: tensor.shape for name, tensor in shrunk.state_dict().items()}
        assert weights_in(shrunk) == filters.mask(model).kept
        assert at_once.keys() == model.state_dict().keys()
    scores = silenced(model, filters)(torch.ones(1, 3, SIZE, SIZE))
    torch.testing.assert_close(shrunk(torch.ones(1, 3, SIZE, SIZE)), scores, rtol=1e-4, atol=1e-5)
    numbers = unit_numbers(model, shrunk, filters, ["stage3"], SIZE)["stage3"]
    np.testing.assert_array_equal(numbers, filters["stage3.0.bn2"])


def test_weights_of_a_shrunk_network_fit_a_freshly_built_one_that_is_shrunk_alike(tmp_path: Path) -> None:
    model = network("prunescope:resnet8x8")
    filters = prune_filters(model, remaining=0.5, image_size=SIZE)
    filters.save(tmp_path / "filters.safetensors")
    save_weights(smaller(model, filters), tmp_path / "weights.safetensors")
    fresh = network("prunescope:resnet8x8")
    shrink(fresh, Filters.load(tmp_path / "filters.safetensors"), SIZE)
    load_weights(fresh, tmp_path / "weights.safetensors")
    images = torch.ones(1, 3, SIZE, SIZE)
    assert torch.equal(fresh(images), smaller(model, filters)(images))


def test_a_filter_that_a_concatenation_carries_on_is_followed_to_where_it_lies() -> None:
    model = network("torchvision:googlenet")
    filters = prune_filters(model, fraction=0.5, image_size=32)
    shrunk = smaller(model, filters, 32)
    numbers = unit_numbers(model, shrunk, filters, ["inception3a"], 32)["inception3a"]
    ends = {"branch1.conv": 64, "branch2.1.conv": 128, "branch3.1.conv": 32, "branch4.1.conv": 32}
    starts = np.cumsum([0, *ends.values()])
    expected = [filters[f"inception3a.{name}"].numpy() + start for name, start in zip(ends, starts, strict=False)]
    np.testing.assert_array_equal(numbers, np.concatenate(expected))


def test_a_network_is_left_in_its_mode_with_its_frozen_weights_and_without_hooks() -> None:
    model = chain().train()
    model[0].weight.requires_grad_(False)
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    filters = prune_filters(model, image_size=SIZE)
    unit_numbers(model, smaller(model, filters), filters, ["3"], SIZE)
    assert [module.training for module in model[:3]] == [True, False, True]
    assert not model[0].weight.requires_grad
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "between",
    [
        nn.BatchNorm2d(8, affine=False),
        nn.BatchNorm2d(8, track_running_stats=False),
        nn.PReLU(),
        nn.PReLU(8),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.ConvTranspose2d(8, 8, 3),
        nn.ConvTranspose2d(8, 8, 3, groups=8),
        nn.ConvTranspose2d(8, 12, 3, groups=2),
    ],
    ids=str,
)
def test_filters_go_beside_every_kind_of_module_that_carries_their_channels_on(between: nn.Module) -> None:
    torch.manual_seed(0)
    width = getattr(between, "out_channels", 8)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), between, nn.Conv2d(width, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3)).eval()
    filters = prune_filters(model, remaining=0.6, image_size=SIZE)
    shrunk = smaller(model, filters)
    assert weights_in(shrunk) == filters.mask(model).kept <= 0.6 * weights_in(model)
    assert len(filters["0"]) < 8 or width == 12
    images = torch.randn(2, 3, SIZE, SIZE)
    torch.testing.assert_close(shrunk(images), silenced(model, filters)(images), rtol=1e-4, atol=1e-5)
    numbers = unit_numbers(model, shrunk, filters, ["1"], SIZE)["1"]
    np.testing.assert_array_equal(numbers, filters["1"] if "1" in filters else filters["0"])


def test_units_of_wide_layers_are_told_apart() -> None:
    model = nn.Sequential(nn.Conv2d(3, 60_000, 1), nn.ReLU(), nn.Conv2d(60_000, 2, 1))
    numbers = unit_numbers(model, model, Filters.all(model), ["1"], 2)["1"]
    np.testing.assert_array_equal(numbers, np.arange(60_000))


def test_what_is_frozen_stays_frozen_once_it_is_smaller() -> None:
    model = chain()
    model[4].weight.requires_grad_(False)
    shrunk = smaller(model, prune_filters(model, remaining=0.4, image_size=SIZE))
    assert [name for name, parameter in shrunk.named_parameters() if not parameter.requires_grad] == ["4.weight"]


def test_images_that_the_network_does_not_take_are_refused() -> None:
    model = chain()
    filters = prune_filters(model, image_size=SIZE)
    shrunk = smaller(model, filters)
    with pytest.raises(InputError, match="Sequential cannot take images of 20 x 20 pixels"):
        shrink(model, filters, 20)
    with pytest.raises(InputError, match="Sequential cannot take images of 4 x 16 pixels"):
        unit_numbers(model, shrunk, filters, ["3"], (4, 16))
    with pytest.raises(InputError, match="images cannot be of -1 x -1 pixels"):
        shrink(model, filters, -1)


class Mixing(nn.Module):
    """Each channel less the mean of all."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps - maps.mean(dim=1, keepdim=True)


def test_units_behind_an_operation_that_mixes_channels_cannot_be_numbered() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), Mixing(), nn.Flatten(), nn.LazyLinear(4))
    model(torch.zeros(1, 3, 6, 6))
    filters = Filters.all(model)
    filters.outputs["0"][5] = False
    filters.inputs["4"][80:96] = False
    shrunk = nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(), Mixing(), nn.Flatten(), nn.Linear(112, 4))
    assert unit_numbers(model, shrunk, filters, ["1"], 6)["1"].tolist() == [0, 1, 2, 3, 4, 6, 7]
    with pytest.raises(InputError, match=r"layer '2': its units cannot be distinguished"):
        unit_numbers(model, shrunk, filters, ["2"], 6)
    with pytest.raises(InputError, match=r"layer '3': its units cannot be distinguished"):
        unit_numbers(model, shrunk, filters, ["3"], 6)


def test_filters_that_leave_other_channels_coming_in_than_going_out_are_refused() -> None:
    model = chain()
    filters = Filters.all(model)
    filters.outputs["0"][2] = filters.outputs["1"][2] = False
    filters.inputs["4"][3] = False
    with pytest.raises(InputError, match=r"gives module '4' other channels than those it keeps"):
        shrink(model, filters, SIZE)
    filters.inputs["4"][2] = False
    with pytest.raises(InputError, match="does not run with these filters left"):
        shrink(chain(), filters, SIZE)


def test_filters_of_another_network_are_refused() -> None:
    filters = prune_filters(chain(), image_size=SIZE)
    with pytest.raises(InputError, match=r"module '0' is not in the network; there are"):
        shrink(network("prunescope:resnet8x8"), filters, SIZE)
    with pytest.raises(InputError, match=r"has 5 output channels, but 6 in the dense network"):
        filters.mask(smaller(chain(), filters))
    with pytest.raises(InputError, match=r"has 6 output channels, but 5 in the shrunk network"):
        prune_filters(chain(), filters, image_size=SIZE)


def test_a_file_that_holds_no_filters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the file does not exist"):
        Filters.load(tmp_path / "filters.safetensors")
    (tmp_path / "text.safetensors").write_text("filters")
    with pytest.raises(InputError, match="cannot be read as a record of filters"):
        Filters.load(tmp_path / "text.safetensors")
    save_file({"0.weight": torch.ones(3, dtype=torch.bool)}, tmp_path / "mask.safetensors")
    with pytest.raises(InputError, match=r"'0\.weight' is not of the form outputs/MODULE"):
        Filters.load(tmp_path / "mask.safetensors")
    save_file({"outputs/0": torch.ones(3)}, tmp_path / "floats.safetensors")
    with pytest.raises(InputError, match=r"floats\.safetensors .* expected torch\.bool"):
        Filters.load(tmp_path / "floats.safetensors")
