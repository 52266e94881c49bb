"""Networks that cannot be trained are refused before they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import prunescope
from prunescope.errors import InputError
from prunescope.study.checks import check_training

NETWORKS = """\
import torch
from torch import nn


class Network(nn.Module):
    def __init__(self, classes, put_out=lambda self, scores: scores):
        super().__init__()
        self.conv, self.fc, self.put_out = nn.Conv2d(3, 8, 3), nn.Linear(8, classes), put_out

    def forward(self, images):
        if images.shape[-1] != 32:
            raise ValueError("of 32 pixels only")
        return self.put_out(self, self.fc(self.conv(images).relu().mean((2, 3))))


def plain(classes):
    return Network(classes)


def pair(classes):
    return Network(classes, lambda self, scores: (scores, scores))


def auxiliary(classes):
    return Network(classes, lambda self, scores: (scores, scores) if self.training else scores)


def explained(classes):
    return Network(classes, lambda self, scores: scores if self.training else (scores, scores))


def structure(classes):
    return Network(classes, lambda self, scores: {"logits": scores})


def double(classes):
    return Network(classes).double()


def eager(classes):
    return auxiliary(classes).eval()


def lazy(classes):
    network = Network(classes)
    network.conv = nn.LazyConv2d(8, 3)
    return network


def frozen(classes):
    return Network(classes).requires_grad_(False)


def few():
    return Network(7)
"""


@pytest.mark.parametrize(
    ("function", "change", "said"),
    [
        ("pair", "seed=1", "returns tuple for 2 images in training mode"),
        ("auxiliary", "seed=1", "returns tuple for 2 images in training mode"),
        (
            "explained",
            "seed=1",
            r"returns tuple for 2 images, expected \[2, 16\]: a tensor with a score for each class",
        ),
        ("structure", "seed=1", "returns dict for 2 images"),
        ("eager", "seed=1", "returns tuple for 2 images in training mode"),
        ("lazy", "seed=1", r"weight 'conv\.weight' has no shape yet"),
        ("lazy", "pruning.scope=filters", r"weight 'conv\.weight' has no shape yet"),
        ("double", "seed=1", r"weight 'conv\.weight' is torch\.float64; let its function return `model\.float\(\)`"),
        ("frozen", "seed=1", "cannot be trained"),
        ("few", "seed=1", r"returns \[2, 7\] for 2 images in training mode, expected \[2, 16\]"),
        ("plain", "data={size: 48, in_memory: false}", r"cannot take images of 48 x 48 pixels .*of 32 pixels only"),
    ],
)
def test_a_network_that_cannot_be_trained_is_refused_before_it_is(
    recipe: Path, tmp_path: Path, function: str, change: str, said: str
) -> None:
    (tmp_path / "net.py").write_text(NETWORKS)
    changes = [f"network={tmp_path / 'net.py'}:{function}", "dissection.layers=[conv]", change]
    with pytest.raises(InputError, match=said):
        prunescope.Study(recipe, tmp_path / "out", changes=changes, device="cpu").run()
    assert not (tmp_path / "out").exists()


NO_TRACE = """\
import torch
from torch import nn


class Network(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv, self.place = nn.Conv2d(3, 32, 3, stride=(1, 2), padding=1), nn.Parameter(torch.zeros(3, 32, 32))
        self.block, self.fc = nn.Identity(), nn.Linear(32, classes)

    def forward(self, images):
        maps = torch.conv2d(images + self.place, self.conv.weight, padding=1, stride=(1, 2))
        return self.fc(self.block(maps).mean((2, 3)))
"""


def test_a_layer_whose_units_cannot_be_told_is_refused_before_training_unless_the_recipe_tells(
    recipe: Path, tmp_path: Path
) -> None:
    (tmp_path / "net.py").write_text(NO_TRACE)
    changes = [f"network={tmp_path / 'net.py'}:Network", "dissection.layers=[block]", "pruning.levels=1"]
    study = prunescope.Study(recipe, tmp_path / "out", changes=changes, device="cpu")
    for attempt in (study.run, lambda: prunescope.plan([study.recipe], images_per_second=(1, 1))):
        with pytest.raises(InputError, match=r"'block' returns \[n, 32, 32, 16\] .*dissection\.units_axis"):
            attempt()
    assert not (tmp_path / "out").exists()
    told = prunescope.Study(
        recipe, tmp_path / "out", changes=[*changes, "dissection.units_axis={block: 1}"], device="cpu"
    )
    told.run()
    assert len(told.units(trial=0, level=1)) == 32


@pytest.mark.parametrize("axis", ["0", "4", "first", "{stage3: 0}", "{conv: 1}", "true"])
def test_what_is_no_axis_is_refused_in_a_recipe(recipe: Path, tmp_path: Path, axis: str) -> None:
    with pytest.raises(InputError, match=r"dissection\.units_axis"):
        prunescope.Study(recipe, tmp_path / "out", changes=[f"dissection.units_axis={axis}"])


class Whitened(nn.Module):
    """A frozen double-precision part before one that is trained; images without any contrast are an error in it."""

    def __init__(self) -> None:
        super().__init__()
        self.colors = nn.Parameter(torch.eye(3, dtype=torch.float64), requires_grad=False)
        self.order = nn.Parameter(torch.tensor([2, 1, 0]), requires_grad=False)
        self.fc = nn.Linear(3, 7)

    def forward(self, images: Tensor) -> Tensor:
        colors = (images.double().mean((2, 3)) @ self.colors)[:, self.order]
        torch.linalg.cholesky(images.flatten(0, 1).flatten(1).cov())
        scores: Tensor = self.fc(nn.functional.dropout(colors.float(), training=self.training))
        return scores


def test_a_network_that_can_be_trained_is_left_to_be_so() -> None:
    network, before = Whitened(), torch.get_rng_state()
    check_training(network, "whitened", classes=7, size=32)
    assert torch.equal(torch.get_rng_state(), before)
