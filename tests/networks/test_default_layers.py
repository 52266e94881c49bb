from __future__ import annotations

import pytest
import torch
from torch import nn

from prunescope.errors import InputError
from prunescope.networks import build_network, default_layers, observe
from prunescope.networks.running import evaluating


@pytest.mark.parametrize(
    ("name", "size", "shapes"),
    [
        ("torchvision:alexnet", 67, [(64, 16, 16), (192, 7, 7), (384, 3, 3), (256, 3, 3), (256, 3, 3)]),
        ("torchvision:vgg16", 32, [(512, 2, 2)]),
        ("torchvision:googlenet", 64, [(1024, 2, 2)]),
        ("torchvision:densenet161", 64, [(2208, 2, 2)]),
        ("torchvision:resnet18", 64, [(512, 2, 2)]),
        ("torchvision:resnet50", 64, [(2048, 2, 2)]),
        ("torchvision:resnet152", 64, [(2048, 2, 2)]),
        ("prunescope:resnet8x4", 32, [(16, 4, 4)]),
    ],
)
def test_the_published_layers_are_there_and_give_maps(name: str, size: int, shapes: list[tuple[int, int, int]]) -> None:
    model = build_network(name, classes=2)
    layers = default_layers(name)
    with evaluating(model), torch.no_grad(), observe(model, layers, dict.fromkeys(layers, 1)) as outputs:
        model(torch.randn(2, 3, size, size))
    assert [tuple(outputs[layer].shape[1:]) for layer in layers] == shapes


@pytest.mark.parametrize("name", ["torchvision:alexnet", "torchvision:vgg16"])
def test_published_convolutions_are_observed_after_their_activation_function(name: str) -> None:
    features = build_network(name, classes=2, seed=0).get_submodule("features")
    for layer in default_layers(name):
        place = int(layer.removeprefix("features."))
        assert isinstance(features[place], nn.ReLU)  # type: ignore[index]
        assert isinstance(features[place - 1], nn.Conv2d)  # type: ignore[index]


def test_what_densenet_writes_over_its_features_is_not_what_is_observed() -> None:
    model = build_network("torchvision:densenet161", classes=2, seed=0).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad(), observe(model, ["features"], {"features": 1}) as outputs:
        model(images)
        assert torch.equal(outputs["features"], model.get_submodule("features")(images))
    assert outputs["features"].min() < 0


def test_published_weights_do_not_change_the_layers() -> None:
    assert default_layers("torchvision:vgg16@IMAGENET1K_V1") == default_layers("torchvision:vgg16")


@pytest.mark.parametrize("name", ["torchvision:resnet34", "timm:resnet50", "hf:here", "mine.py:build", "resnet50", ""])
def test_without_published_layers_the_error_says_where_layers_are_listed(name: str) -> None:
    with pytest.raises(
        InputError, match=rf"no layers of {name} are dissected by default.*`prunescope layers {name}` lists them"
    ):
        default_layers(name)


def test_a_misspelt_network_of_prunescopes_own_has_no_layers() -> None:
    with pytest.raises(InputError, match="nearest are resnet14x8"):
        default_layers("prunescope:resnet15x8")
