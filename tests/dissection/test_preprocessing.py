"""What a dissection's networks are given, on the command line and in Python."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import prunescope
from prunescope.devices import import_torchvision
from prunescope.networks.preprocessing import Preprocessing
from prunescope.networks.published_preprocessing import remember_preprocessing
from tests.cli.commands import GOLDEN, refused, typed

CONCEPTS = GOLDEN / "dissection" / "concepts"


class Seen(nn.Module):
    """A network that keeps the range of the numbers it is given."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv, self.images = nn.Conv2d(channels, 4, 3), torch.empty(0)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self.images = images
        return {"maps": self.conv(images)}


def last_image() -> Tensor:
    """Return the image that a network with a batch size of one is given last."""
    path = sorted((CONCEPTS / "images" / "made").glob("*.jpg"))[-1]
    import_torchvision()
    from torchvision.transforms.functional import pil_to_tensor

    return pil_to_tensor(Image.open(path)).float() / 255


def test_a_network_is_given_images_normalised_as_its_weights_were_trained() -> None:
    model = Seen()
    model.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.3, 0.2, 0.1), "architecture": "own"}
    found = prunescope.dissect(model, layers=["conv"], concepts=CONCEPTS, batch_size=1)
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.3, 0.2, 0.1]).view(3, 1, 1)
    assert torch.equal(model.images[0], (last_image() - mean) / std)
    settings = found["conv"].summary["settings"]
    assert settings["preprocessing"] == "pretrained_cfg of timm:own"
    assert settings["std"] == [0.3, 0.2, 0.1]


def test_a_network_for_one_channel_is_given_gray_images() -> None:
    model = Seen(1)
    prunescope.dissect(model, layers=["conv"], concepts=CONCEPTS, batch_size=1, mean=[0.5], std=[0.25])
    path = sorted((CONCEPTS / "images" / "made").glob("*.jpg"))[-1]
    from torchvision.transforms.functional import pil_to_tensor

    gray = pil_to_tensor(Image.open(path).convert("L")).float() / 255
    assert torch.equal(model.images[0], (gray - 0.5) / 0.25)


def test_matched_networks_are_given_the_same_images_as_dissected_ones() -> None:
    models = [Seen(), Seen()]
    for model in models:
        model.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.3, 0.2, 0.1), "architecture": "own"}
    prunescope.match_units(*models, layers=["conv"], concepts=CONCEPTS, batch_size=1)
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.3, 0.2, 0.1]).view(3, 1, 1)
    assert all(torch.equal(model.images[0], (last_image() - mean) / std) for model in models)
    gray = [Seen(1), Seen(1)]
    prunescope.match_units(*gray, layers=["conv"], concepts=CONCEPTS)
    assert gray[0].images.shape[1] == 1
    del models[0].pretrained_cfg
    with pytest.raises(prunescope.InputError, match="'B' and 'A' were trained with different preprocessing"):
        prunescope.match_units(*models, layers=["conv"], concepts=CONCEPTS)


def test_matched_networks_are_each_given_images_as_they_were_trained() -> None:
    one, other, gray = Seen(), Seen(), Seen(1)
    one.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.3, 0.2, 0.1), "architecture": "own"}
    other.pretrained_cfg = {"mean": (0.1, 0.1, 0.1), "std": (1, 1, 1), "architecture": "own"}
    image, options = last_image(), {"layers": ["conv"], "concepts": CONCEPTS, "batch_size": 1, "device": "cpu"}
    prunescope.match_units(one, other, **options)  # type: ignore[arg-type]
    for model in (one, other):
        mean, std = (torch.tensor(model.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
        assert torch.equal(model.images[0], (image - mean) / std)
    zero, unit = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    prunescope.match_units(one, gray, mean={"A": zero, "B": [0]}, std={"A": unit, "B": [1]}, **options)  # type: ignore[arg-type]
    assert torch.equal(one.images[0], image)
    assert gray.images.shape[1] == 1
    # One mean and standard deviation for both still apply to both.
    prunescope.match_units(one, other, mean=zero, std=unit, **options)  # type: ignore[arg-type]
    assert torch.equal(one.images, other.images)
    with pytest.raises(prunescope.InputError, match="mean is given for 'C', expected the networks A, B"):
        prunescope.match_units(one, other, mean={"C": zero}, **options)  # type: ignore[arg-type]


def test_a_matched_network_of_channels_in_the_order_bgr_is_given_them_reversed() -> None:
    one, other = Seen(), Seen()
    for model, order in ((one, "RGB"), (other, "BGR")):
        remember_preprocessing(model, Preprocessing((0.5, 0.4, 0.3), (0.3, 0.2, 0.1), order=order))
    prunescope.match_units(one, other, layers=["conv"], concepts=CONCEPTS, batch_size=1, device="cpu")
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.3, 0.2, 0.1]).view(3, 1, 1)
    assert torch.equal(one.images[0], (last_image() - mean) / std)
    assert torch.equal(other.images[0], (last_image().flip(0) - mean) / std)


def test_a_network_keeps_its_mode_and_device_even_after_an_error() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).eval()).train()
    model[1].eval()
    nn.init.constant_(model[0].weight, torch.nan)
    with pytest.raises(prunescope.InputError, match="nan"):
        prunescope.dissect(model, layers=["0"], concepts=CONCEPTS)
    assert [module.training for module in model.modules()] == [True, True, False]
    assert model[0].weight.device.type == "cpu"


def test_the_command_stores_what_was_used_and_a_doubt_is_a_note(tmp_path: Path) -> None:
    words = ["dissect", "torchvision:squeezenet1_1", "--layer", "features.0", "--concepts", CONCEPTS]
    words += ["--out", tmp_path / "out", "--device", "cpu", "--chance", "0"]
    assert typed(*words).exit_code == 0
    settings = json.loads((tmp_path / "out" / "features.0" / "summary.json").read_text())["settings"]
    assert settings["preprocessing"].startswith("the default weights of the architecture, torchvision:squeezenet1_1@")
    shutil.rmtree(tmp_path / "out")
    result = typed(*words, "--mean", "124,116,104", "--std", "58,57,57")
    assert result.exit_code == 0
    assert "do not fit images that are scaled to 0..1" in " ".join(result.stderr.split())
    assert "  preprocessing: " not in refused(*words)
    assert "  mean: [124" in refused(*words)


def test_a_mean_of_another_length_is_refused(tmp_path: Path) -> None:
    words = ["dissect", "prunescope:resnet8x4", "--concepts", CONCEPTS, "--chance", 0, "--out", tmp_path / "out"]
    assert "expected three numbers" in refused(*words, "--mean", "0.5")
    assert "expected one number" in refused(*words, "--channels", "1", "--mean", "0.5,0.5,0.5")
    assert "channels is 2, expected 3 (RGB) or 1 (grayscale)" in refused(*words, "--channels", "2")
    assert "takes 3 channels, and images have 1; leave out" in refused(*words, "--channels", "1")


def test_images_need_not_be_square(tmp_path: Path) -> None:
    """Cropping every image to its upper half gives other numbers, and works as before."""
    folder = tmp_path / "concepts"
    shutil.copytree(CONCEPTS, folder)
    shutil.rmtree(folder / "packed", ignore_errors=True)
    index = pd.read_csv(folder / "index.csv", dtype=str)
    half = {name: int(index[name].astype(int).iloc[0]) // 2 for name in ("ih", "sh")}
    for path in (folder / "images").rglob("*.*"):
        with Image.open(path) as image:
            height = half["ih" if path.suffix == ".jpg" else "sh"]
            cropped = image.crop((0, 0, image.width, height))
        cropped.save(path)
    index.assign(**{name: str(value) for name, value in half.items()}).to_csv(folder / "index.csv", index=False)
    model = prunescope.build_network("prunescope:resnet8x4", seed=0)
    for align in ("half-pixel", "receptive-field"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = prunescope.dissect(model, layers=["stage1"], concepts=folder, align=align)
        assert found.summary["units"].tolist() == [4]
