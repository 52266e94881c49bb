"""Networks and layers that return tuples, lists, mappings or output objects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunescope
from prunescope.devices import import_torchvision
from prunescope.errors import InputError
from prunescope.networks import list_layers, observe, units_axes
from prunescope.networks.geometry import receptive_fields
from prunescope.networks.outputs import named_tensors
from tests.cli.commands import GOLDEN

CONCEPTS = GOLDEN / "dissection" / "concepts"


@pytest.fixture(scope="module")
def segmenting() -> nn.Module:
    """torchvision's smallest network that returns a mapping, and whose backbone returns another."""
    torch.manual_seed(0)
    models = import_torchvision().models.segmentation
    return models.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3).train()


def observed(model: nn.Module, layer: str, images: Tensor) -> Tensor:
    axes = units_axes(model, [layer], (images.shape[2], images.shape[3]))
    model.eval()
    with torch.no_grad(), observe(model, [layer], axes) as outputs:
        model(images)
    return outputs[layer]


def test_the_first_map_of_a_mapping_belongs_to_the_layer_and_each_can_be_named(segmenting: nn.Module) -> None:
    listed = list_layers(segmenting, 64).set_index("layer")["shape"]
    assert listed["backbone"] == listed["backbone:low"] == (40, 8, 8)
    assert listed["backbone:high"] == (960, 4, 4)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = segmenting.eval().backbone(images)
    assert torch.equal(observed(segmenting, "backbone", images), expected["low"])
    assert torch.equal(observed(segmenting, "backbone:high", images), expected["high"])


def test_a_network_that_returns_a_mapping_is_dissected_and_saved_by_the_outputs_name(
    segmenting: nn.Module, tmp_path: Path
) -> None:
    segmenting.train()
    layers = ["backbone", "backbone:high"]
    found = prunescope.dissect(segmenting, layers=layers, concepts=CONCEPTS, align="half-pixel")
    assert found.summary["units"].tolist() == [40, 960]
    assert segmenting.training
    found.save(tmp_path)
    assert (tmp_path / "backbone:high" / "units.parquet").is_file()


def test_the_hidden_states_of_a_network_of_transformers_are_found_in_its_output_object() -> None:
    import_torchvision()
    import transformers

    config = transformers.ViTConfig(
        image_size=32, patch_size=8, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48
    )
    model = transformers.ViTModel(config).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(images)
    assert "last_hidden_state" in named_tensors(expected)
    wrapped = nn.Sequential(model)
    assert list_layers(wrapped, 32).set_index("layer")["shape"]["0"] == (24, 4, 4)
    found = observed(wrapped, "0:last_hidden_state", images)
    assert torch.equal(found.flatten(2).transpose(1, 2), expected.last_hidden_state[:, 1:])


def test_the_feature_maps_of_a_network_of_timm_are_named_by_position() -> None:
    import_torchvision()
    import timm

    model = nn.Sequential(timm.create_model("mobilenetv3_small_050", features_only=True))
    listed = list_layers(model, 64).set_index("layer")["shape"]
    assert listed["0"] == listed["0:0"]
    assert [listed[f"0:{i}"][1] for i in range(5)] == [32, 16, 8, 4, 2]
    assert observed(model, "0:2", torch.rand(1, 3, 64, 64)).shape == (1, *listed["0:2"])


class Returning(nn.Module):
    def __init__(self, made: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.inner = nn.Conv2d(3, 8, 3, padding=1), nn.Identity()
        self.inner.forward = made  # type: ignore[method-assign]

    def forward(self, images: Tensor) -> Any:
        return self.inner(self.conv(images))


@pytest.mark.parametrize(
    ("made", "layer", "said"),
    [
        (
            lambda x: (x, {"b": x}),
            "inner:2",
            r"'inner' returns no tensor '2'; it returns: 0 \[2, 8, 16, 16\], 1\.b \[2",
        ),
        (lambda x: x, "inner:0", r"'inner' returns one tensor of shape \[2, 8, 16, 16\], and no '0'; leave out :0"),
        (lambda x: x, "iner:0", r"has no layer 'iner:0'; the nearest are: inner"),
        (lambda x: x.mean(3), "inner", r"returns a tensor of shape \[2, 8, 16\] for images"),
        (
            lambda x: x[:, :, None],
            "inner",
            r"returns a tensor of shape \[2, 8, 1, 16, 16\] .* volumes are not supported",
        ),
        (lambda x: (x.flatten(), None), "inner", r"returns a tuple of 0 \[4096\] for images"),
        (lambda x: (x.flatten(), None), "inner:0", r"returns a tuple of 0 \[4096\] for images"),
        (
            lambda x: (x.flatten(2).transpose(1, 2) @ x.flatten(2), x),
            "inner",
            r"several maps with their units on different axes; choose one: inner:0, inner:1",
        ),
    ],
)
def test_an_output_that_cannot_be_used_is_refused_with_its_names_and_shapes(
    made: Callable[[Tensor], Any], layer: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        observed(Returning(made), layer, torch.rand(2, 3, 16, 16))


def test_maps_with_their_units_on_different_axes_can_be_named() -> None:
    model, images = Returning(lambda x: (x.permute(0, 2, 3, 1), x)), torch.rand(2, 3, 16, 16)
    assert torch.equal(observed(model, "inner:0", images), observed(model, "inner:1", images))


def test_receptive_fields_are_those_of_the_named_output() -> None:
    model = Returning(lambda x: (x, nn.functional.avg_pool2d(x, 2)))
    found = receptive_fields(model, ["inner:0", "inner:1"], (32, 48))
    assert (found["inner:0"].stride, found["inner:1"].stride) == ((1, 1), (2, 2))


def test_a_network_in_training_mode_comes_back_in_it_even_after_an_error() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout()).train()
    model[1].eval()
    model[0].weight.data.fill_(np.nan)
    with pytest.raises(InputError, match="nan"):
        prunescope.dissect(model, layers=["0"], concepts=CONCEPTS)
    assert [module.training for module in model.modules()] == [True, True, False]


class _WithPenalty(nn.Module):
    """A layer that returns its maps and a penalty, which is a single number, as a mixture of experts does."""

    def __init__(self) -> None:
        super().__init__()
        self.maps, self.penalty = nn.Conv2d(3, 4, 3), _Mean()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.maps(images)
        return maps, self.penalty(maps)


class _Mean(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean()


def test_single_numbers_beside_the_maps_are_left_out_and_refused_as_a_layer() -> None:
    model, images = nn.Sequential(_WithPenalty()), torch.rand(2, 3, 16, 16)
    assert list_layers(model, 16)["layer"].tolist() == ["0", "0.maps"]
    assert torch.equal(observed(model, "0", images), model(images)[0])
    with pytest.raises(InputError, match=r"layer '0.penalty' returns a tensor of shape \[\] for images"):
        prunescope.dissect(model, layers=["0.penalty"], concepts=CONCEPTS)


class _Spectrum(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.fft.fft2(images)


def test_a_layer_that_returns_complex_numbers_is_refused() -> None:
    with pytest.raises(InputError, match="layer '0' returns complex numbers"):
        prunescope.dissect(nn.Sequential(_Spectrum()), layers=["0"], concepts=CONCEPTS)
