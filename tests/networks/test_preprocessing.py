"""Which preprocessing a network's images get, and which combinations are doubted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from prunescope.devices import import_torchvision
from prunescope.errors import InputError
from prunescope.networks import build_network
from prunescope.networks.chosen_preprocessing import choose_preprocessing
from prunescope.networks.doubts import doubts
from prunescope.networks.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocessing,
    arrange,
)
from prunescope.networks.published_preprocessing import preprocessing_of, remember_preprocessing

IMAGENET = Preprocessing(IMAGENET_MEAN, IMAGENET_STD)
SIZE = (32, 32)
HALF = (0.5, 0.5, 0.5)


def test_torchvisions_weights_state_their_size_and_a_plain_name_only_the_numbers() -> None:
    found = preprocessing_of("torchvision:vit_b_16@IMAGENET1K_SWAG_E2E_V1")
    assert found is not None
    assert (found.mean, found.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert (found.size, found.interpolation) == ((384, 384), "bicubic")
    plain = preprocessing_of("torchvision:vit_b_16")
    assert plain is not None
    assert (plain.mean, plain.size) == (IMAGENET_MEAN, None)


def test_timms_weights_are_found_by_name_and_in_a_network_of_timm() -> None:
    import_torchvision()
    import timm

    by_name = preprocessing_of("timm:vit_tiny_patch16_224@augreg_in21k_ft_in1k")
    assert by_name is not None
    assert (by_name.mean, by_name.std, by_name.size) == (HALF, HALF, (224, 224))
    assert preprocessing_of(timm.create_model("vit_tiny_patch16_224")) == by_name
    built = preprocessing_of(build_network("timm:vit_tiny_patch16_224", seed=0))
    assert built is not None
    assert (built.mean, built.size) == (HALF, None)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder as save_pretrained writes it: a tiny ViT with weights."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import_torchvision()
    import transformers

    config = transformers.ViTConfig(
        image_size=32, patch_size=8, hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=48
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    return tmp_path


def test_transformers_image_processor_is_read_from_its_folder(folder: Path) -> None:
    import transformers

    assert preprocessing_of(f"hf:{folder}") is None
    transformers.ViTImageProcessor(size={"height": 32, "width": 48}).save_pretrained(folder)
    found = preprocessing_of(f"hf:{folder}")
    assert found is not None
    assert (found.mean, found.std, found.size, found.interpolation) == (HALF, HALF, (32, 48), "bilinear")
    assert found.source == str(folder / "preprocessor_config.json")
    assert preprocessing_of(build_network(f"hf:{folder}")) == found
    assert preprocessing_of(transformers.ViTForImageClassification.from_pretrained(folder)) == found


@pytest.mark.parametrize(
    "options",
    [
        {"do_rescale": False, "image_mean": [120.0, 110.0, 100.0], "image_std": [60.0, 50.0, 40.0]},
        {"rescale_factor": 1 / 127.5},
        {"do_normalize": False},
        {"image_mean": [0.4, 0.3, 0.2], "image_std": [0.3, 0.2, 0.1]},
    ],
)
def test_images_get_the_values_that_the_image_processor_gives_them(tmp_path: Path, options: dict[str, Any]) -> None:
    import_torchvision()
    import transformers

    processor = transformers.ViTImageProcessor(do_resize=False, **options)
    processor.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    found = preprocessing_of(f"hf:{tmp_path}")
    assert found is not None
    pixels = torch.randint(256, (1, 4, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = processor(Image.fromarray(pixels[0].numpy()), return_tensors="pt")["pixel_values"]
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (found.mean, found.std))
    torch.testing.assert_close((arrange(pixels, found).permute(0, 3, 1, 2) / 255 - mean) / std, expected)


def test_channels_that_the_image_processor_reverses_are_reversed(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text('{"do_flip_channel_order": true}')
    found = preprocessing_of(f"hf:{tmp_path}")
    assert found is not None
    assert arrange(torch.tensor([[[[1, 2, 3]]]], dtype=torch.uint8), found).flatten().tolist() == [3, 2, 1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", r"cannot be read as JSON .*download it again, or delete it"),
        ("[]", r"expected a JSON object, found list"),
        (
            '{"image_mean": [0.5, 0.5], "image_std": [0.5, 0.5]}',
            r"image_mean is \[0\.5, 0\.5\].*expected three numbers",
        ),
        ('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0, 0.5]}', r"std above 0"),
        ('{"rescale_factor": "big"}', r"rescale_factor is 'big'"),
    ],
)
def test_an_image_processor_that_cannot_be_used_is_an_input_error(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(InputError, match=said):
        preprocessing_of(f"hf:{tmp_path}")


def test_given_numbers_take_precedence_and_the_source_says_which_were_given() -> None:
    models = {"": build_network("timm:vit_tiny_patch16_224", seed=0)}
    assert choose_preprocessing(models, SIZE).mean == HALF
    both = choose_preprocessing(models, SIZE, (0.1, 0.2, 0.3), (1, 1, 1))
    assert (both.mean, both.std, both.source) == ((0.1, 0.2, 0.3), (1, 1, 1), "given")
    one = choose_preprocessing(models, SIZE, mean=(0.1, 0.2, 0.3))
    assert (one.mean, one.std) == ((0.1, 0.2, 0.3), HALF)
    assert one.source.startswith("mean given; std: the default weights of the architecture, timm:")
    assert choose_preprocessing({"": nn.Linear(1, 1)}, SIZE).mean == IMAGENET_MEAN


def test_networks_that_were_trained_differently_need_given_numbers() -> None:
    models = {"a": build_network("timm:vit_tiny_patch16_224"), "b": build_network("torchvision:resnet18")}
    with pytest.raises(InputError, match="'a' and 'b' were trained with different preprocessing"):
        choose_preprocessing(models, SIZE)
    assert choose_preprocessing(models, SIZE, HALF, HALF).mean == HALF


def test_networks_of_channels_in_another_order_are_not_given_the_same_images() -> None:
    models = {name: nn.Sequential(nn.Conv2d(3, 4, 3)) for name in ("rgb", "bgr")}
    for name, model in models.items():
        remember_preprocessing(model, Preprocessing(HALF, HALF, order=name.upper()))
    with pytest.raises(InputError, match=r"'rgb' and 'bgr' .*\[0.5, 0.5, 0.5\] for channels in the order BGR"):
        choose_preprocessing(models, SIZE)
    with pytest.raises(InputError, match="in the order BGR"):
        choose_preprocessing(models, SIZE, HALF, HALF)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mean": (0.5,)}, r"mean is \[0\.5\], expected three numbers"),
        ({"std": (0.5, 0.0, 0.5)}, "std is .*above 0"),
        ({"mean": HALF, "channels": 1}, "expected one number, for grey images"),
        ({"mean": (float("nan"),) * 3}, "mean is"),
        ({"mean": "abc"}, "mean is 'abc', expected three numbers"),
        ({"std": 0.5}, r"std is 0\.5, expected three numbers"),
        ({"channels": 4}, r"channels is 4, expected 3 \(RGB\) or 1 \(grayscale\)"),
    ],
)
def test_numbers_that_do_not_fit_the_channels_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        choose_preprocessing({"": nn.Linear(1, 1)}, SIZE, **given)


def test_numbers_of_numpy_and_tensors_are_numbers_too() -> None:
    found = choose_preprocessing({"": nn.Linear(1, 1)}, SIZE, np.zeros(3, np.float32), torch.ones(3))  # type: ignore[arg-type]
    assert json.dumps([found.mean, found.std]) == "[[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (((0.5,), HALF), "expected three numbers each, or one each for grey images"),
        (((0.5, 0.5), (0.5, 0.5)), "expected three numbers each"),
        ((HALF, (0.5, 0.0, 0.5)), "std above 0"),
        ((HALF, HALF, None, None, "given", "GRB"), "'GRB', expected 'RGB' or 'BGR'"),
    ],
)
def test_a_preprocessing_that_is_none_is_refused(given: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Preprocessing(*given)


def test_doubts_about_several_networks_are_stated_once() -> None:
    models = {name: Scaled(nn.Identity()) for name in "ab"}
    with pytest.warns(UserWarning, match="do not fit images") as warned:
        choose_preprocessing(models, SIZE, (124, 116, 104), (58, 57, 57))
    assert len(warned) == 1


def test_gray_is_pillows() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    found = arrange(torch.from_numpy(pixels)[None], choose_preprocessing({"": nn.Linear(1, 1)}, SIZE, channels=1))
    assert np.array_equal(found[0, :, :, 0].numpy(), np.asarray(Image.fromarray(pixels).convert("L")))


class Scaled(nn.Module):
    def __init__(self, first: nn.Module) -> None:
        super().__init__()
        self.body, self.first = build_network("prunescope:resnet8x4", seed=0), first

    def forward(self, images: Tensor) -> Tensor:
        return self.body(self.first(images))


def normalise(mean: tuple[float, ...], std: tuple[float, ...]) -> nn.Module:
    return import_torchvision().transforms.Normalize(mean, std)


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        (IMAGENET_MEAN, IMAGENET_STD, "--mean 0,0,0 --std 1,1,1"),
        ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4), "since it expects 0..255"),
        ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0), "since it expects 0..255"),
    ],
)
def test_a_network_that_normalises_images_itself_is_doubted(
    mean: tuple[float, ...], std: tuple[float, ...], said: str
) -> None:
    model = Scaled(normalise(mean, std)).train()
    (doubt,) = doubts(model, IMAGENET, (16, 16))
    assert "module 'first' (Normalize) normalises the images" in doubt
    assert said in doubt
    assert model.training
    assert doubts(model, Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), (16, 16)) == []


@pytest.mark.parametrize(
    "first", [nn.Identity(), nn.BatchNorm2d(3), nn.InstanceNorm2d(3), nn.Conv2d(3, 3, 1), nn.Dropout(), nn.ReLU()]
)
def test_other_first_modules_are_not(first: nn.Module) -> None:
    assert doubts(Scaled(first), IMAGENET, (16, 16)) == []


def test_numbers_for_pixels_up_to_255_are_doubted() -> None:
    (doubt,) = doubts(Scaled(nn.Identity()), Preprocessing((124.0, 116.0, 104.0), (58.0, 57.0, 57.0)), (16, 16))
    assert "do not fit images that are scaled to 0..1" in doubt
    assert "divide by 255" in doubt


def test_imagenets_numbers_are_doubted_for_a_network_that_was_trained_on_0_to_255(folder: Path) -> None:
    given = {"do_rescale": False, "do_normalize": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(given))
    model = build_network(f"hf:{folder}")
    (doubt,) = doubts(model, IMAGENET, (32, 32))
    assert "the network was trained on numbers from 0 to 255" in doubt


def test_images_of_another_size_than_the_weights_were_trained_on_are_noted(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": 64, "image_mean": 0.5, "image_std": 0.5}))
    model = build_network(f"hf:{folder}")
    used = choose_preprocessing({"": model}, (64, 64))
    (doubt,) = doubts(model, used, (32, 32))
    assert "have 32 x 32 pixels, and the network's weights were trained on images of 64 x 64 pixels" in doubt
    assert doubts(model, used, (64, 64)) == []
