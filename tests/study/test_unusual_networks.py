"""Every command says the same of a network that cannot be used, before any work; numbers say what they count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prunescope.store import read_recipe
from prunescope.store.stored import open_study
from prunescope.study import run_study
from tests.cli.commands import refused, typed
from tests.report.page_data import read_data

NETWORKS = """\
import torch
from torch import nn
import torch.nn.functional as F


def plain(classes=16):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))


class Calling(nn.Module):
    def __init__(self, classes, call):
        super().__init__()
        self.conv, self.fc, self.call = nn.Conv2d(3, 8, 3), nn.Linear(8, classes), call

    def forward(self, images):
        return self.fc(self.call(self, images).relu().mean((2, 3)))


class Two(Calling):
    def forward(self, images, mask):
        return super().forward(images)


def gray(classes=16):
    model = plain(classes)
    model[0] = nn.Conv2d(1, 8, 3, padding=1)
    return model


def four(classes=16):
    model = plain(classes)
    model[0] = nn.Conv2d(4, 8, 3, padding=1)
    return model


def digits(classes=16):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, classes))


def two(classes=16):
    return Two(classes, None)


def dictionary(classes=16):
    return Calling(classes, lambda self, batch: self.conv(batch["image"]))


def video(classes=16):
    model = Calling(classes, lambda self, images: self.conv(images))
    model.conv = nn.Conv3d(3, 8, 3)
    return model


def frames(classes=16):
    def call(self, images):
        n, t, c, h, w = images.shape
        return self.conv(images.flatten(0, 1))
    return Calling(classes, call)


def scripted(classes=16):
    return torch.jit.script(plain(classes))


def exported(classes=16):
    return torch.export.export(plain(classes), (torch.zeros(2, 3, 32, 32),)).module()


def lazy(classes=16):
    model = plain(classes)
    model[0] = nn.LazyConv2d(8, 3)
    return model


def meta(classes=16):
    return plain(classes).to("meta")


def half(classes=16):
    return plain(classes).half()


def brain(classes=16):
    return plain(classes).bfloat16()


def double(classes=16):
    return plain(classes).double()


def compiled(classes=16):
    model = plain(classes)
    model.compile(backend="eager")
    return model


def wrapped(classes=16):
    return torch.compile(plain(classes), backend="eager")


def inside(classes=16):
    model = plain(classes)
    model[0] = torch.compile(model[0], backend="eager")
    model.forward = torch.compile(model.forward, backend="eager")
    return model


def quantised(classes=16):
    return torch.ao.quantization.quantize_dynamic(plain(classes).eval(), {nn.Linear})


class Standardised(nn.Conv2d):
    def forward(self, images):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(images, weight, self.bias, padding=1)


def standardised(classes=16):
    model = plain(classes)
    model[0] = Standardised(3, 8, 3)
    return model


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 3, 3, 3))

    def forward(self, images):
        return F.conv2d(images, self.weight, padding=1)


def spare(classes=16):
    model = plain(classes)
    model[0].spare = nn.Linear(8, 8)
    return model


class Helped(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body, self.help = plain(classes), nn.Linear(3, classes)
        self.hidden = [nn.Conv2d(3, 3, 3, padding=1, bias=False)]

    def forward(self, images):
        scores = self.body(self.hidden[0](images))
        return scores + self.help(images.mean((2, 3))) if self.training else scores


def helped(classes=16):
    return Helped(classes)


def deep(classes=16):
    middle = [nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    with torch.no_grad():
        middle[0].weight.mul_(0.01)
    return nn.Sequential(Own(), nn.ReLU(), *middle, *plain(classes)[2:])
"""


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(NETWORKS)
    return path


def commands(recipe: Path, network: str, layer: str, out: Path) -> dict[str, list[object]]:
    """The commands that look at a network, each with it."""
    concepts = recipe.parent / "concepts"
    changes = ["--set", f"network={network}", "--set", f"dissection.layers=['{layer}']", "--device", "cpu"]
    return {
        "layers": ["layers", network, "--size", 32],
        "dissect": ["dissect", network, "--layer", layer, "--concepts", concepts, "--out", out, "--device", "cpu"],
        "plan": ["plan", recipe, *changes],
        "study": ["study", recipe, *changes, "--out", out],
    }


@pytest.mark.parametrize(
    ("function", "layer", "said"),
    [
        ("four", "0", "its first convolution, '0', takes 4 channels, and images have 3"),
        (
            "digits",
            "1",
            "its module '1' is a Linear of 784 features, which fits an image of 1 channel and 28 x 28 pixels",
        ),
        ("two", "conv", "its forward needs 2 inputs"),
        ("dictionary", "conv", "it accesses parts of its input by name, as in a dictionary"),
        ("video", "conv", "its module 'conv' is a Conv3d, which takes videos or volumes"),
        ("frames", "conv", "another number of dimensions (not enough values to unpack (expected 5, got 4))"),
        ("scripted", "0", "is a torch.jit.ScriptModule, whose layers cannot be observed"),
        ("exported", "0", "is an exported program, which has one mode and no layers"),
        ("lazy", "0", "weight '0.weight' has no shape yet"),
        ("meta", "0", "weight '0.weight' is on the meta device and has no values"),
    ],
)
def test_all_commands_refuse_a_network_in_the_same_words_and_leave_nothing(
    recipe: Path, networks: Path, tmp_path: Path, function: str, layer: str, said: str
) -> None:
    found = {refused(*words) for words in commands(recipe, f"{networks}:{function}", layer, tmp_path / "out").values()}
    assert len(found) == 1
    assert said in found.pop()
    assert not (tmp_path / "out").exists()


def test_a_network_for_gray_images_is_listed_and_dissected_but_not_trained(
    recipe: Path, networks: Path, tmp_path: Path
) -> None:
    words = commands(recipe, f"{networks}:gray", "0", tmp_path / "out")
    assert typed(*words["layers"]).exit_code == 0
    assert typed(*words["dissect"]).exit_code == 0
    (summary,) = (tmp_path / "out").rglob("summary.json")
    settings = json.loads(summary.read_text())["settings"]
    assert settings["mean"] == [pytest.approx(0.299 * 0.485 + 0.587 * 0.456 + 0.114 * 0.406)]
    study = [*words["study"], "--out", tmp_path / "study"]
    assert "its first convolution, '0', takes 1 channel, and images have 3; wrap it" in refused(*study)
    assert "expected three numbers, one for each of R, G and B" in refused(
        *words["dissect"], "--channels", 3, "--std", 1
    )


@pytest.mark.parametrize("function", ["half", "brain", "double"])
def test_other_precisions_are_looked_at_and_dissected_but_not_trained(
    recipe: Path, networks: Path, tmp_path: Path, function: str
) -> None:
    words = commands(recipe, f"{networks}:{function}", "0", tmp_path / "out")
    for command in ("layers", "dissect"):
        result = typed(*words[command])
        assert result.exit_code == 0, result.output
    (summary,) = (tmp_path / "out").rglob("summary.json")
    dtypes = {"half": "float16", "brain": "bfloat16", "double": "float64"}
    assert json.loads(summary.read_text())["settings"]["dtype"] == dtypes[function]
    for command in ("plan", "study"):
        said = refused(*words[command], *(["--out", tmp_path / "study"] if command == "study" else []))
        assert "images: these are torch.float32, and its weight '0.weight' is torch." in said
        assert "let its function return `model.float()`" in said


@pytest.mark.parametrize("function", ["compiled", "wrapped", "inside"])
def test_a_compiled_network_is_taken_as_the_network_inside(
    recipe: Path, networks: Path, tmp_path: Path, function: str
) -> None:
    one = ["trials=1", "pruning.levels=1", "training.length=2it", "pruning.rewind_to=1it", "training.schedule=cosine"]
    for name in (function, "plain"):
        network = f"{networks}:{name}"
        changes = [*one, f"network={network}", "dissection.layers=['0']"]
        run_study(read_recipe(recipe, changes), tmp_path / name)
        assert typed(*commands(recipe, network, "0", tmp_path / f"{name}-dissected")["dissect"]).exit_code == 0
    listed = [
        typed(*commands(recipe, f"{networks}:{name}", "0", tmp_path)["layers"]).stdout for name in (function, "plain")
    ]
    assert listed[0] == listed[1] != ""
    level = Path("trial-0") / "level-01"
    for file in (level / "dissection/0/units.csv", level / "weights.safetensors"):
        assert (tmp_path / function / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()
    found = [tmp_path / f"{name}-dissected" / "0" / "units.csv" for name in (function, "plain")]
    assert found[0].read_bytes() == found[1].read_bytes()


def test_quantised_modules_are_told_apart_from_what_is_pruned(recipe: Path, networks: Path, tmp_path: Path) -> None:
    words = commands(recipe, f"{networks}:quantised", "0", tmp_path / "out")
    assert typed(*words["dissect"]).exit_code == 0
    for command in ("plan", "study"):
        said = refused(*words[command], *(["--out", tmp_path / "study"] if command == "study" else []))
        assert "module '4' of the network is quantised" in said


@pytest.mark.parametrize("command", ["plan", "study"])
def test_standardised_weights_are_refused_before_any_work_unless_excluded(
    recipe: Path, networks: Path, tmp_path: Path, command: str
) -> None:
    words = commands(recipe, f"{networks}:standardised", "0", tmp_path / "out")[command]
    assert "so that a pruned weight is not zero: 0.weight (Standardised)" in refused(*words)
    assert not (tmp_path / "out").exists()
    fast = ["--images-per-second", "100"] if command == "plan" else ["--dry-run"]
    assert typed(*words, "--set", "pruning.exclude=['0']", *fast).exit_code == 0


def test_what_is_never_pruned_and_layers_without_weights_are_named_in_plan_study_and_page(
    recipe: Path, networks: Path, tmp_path: Path
) -> None:
    words = commands(recipe, f"{networks}:deep", "0", tmp_path / "out")
    said = "counted over 704 convolution and linear weights, 74.6 % of the network's 944 parameters; never pruned: "
    said += "0.weight (216), biases, normalisation and the like (24)"
    assert said in typed(*words["plan"], "--images-per-second", "100").stderr
    for change in ("trials=1", "training.length=2it", "pruning.rewind_to=1it", "training.schedule=cosine"):
        words["study"] += ["--set", change]
    result = typed(*words["study"], "--set", "pruning.remaining=[0.5, 0.1]")
    assert result.exit_code == 0, result.output
    assert said in result.stderr
    assert "trial 0, level 2: no weights are left in 2;" in result.stderr
    assert json.loads((tmp_path / "out" / "trial-0" / "level-02" / "measured.json").read_text())["empty"] == ["2"]
    assert open_study(tmp_path / "out").measured(0, 0).empty == ()
    content = read_data(tmp_path / "out", "study")
    method, notes = dict(content["facts"])["Method"], " ".join(content["notes"])
    assert "Weights are counted over 704 prunable ones, 74.6 % of the network's 944 parameters" in method
    assert "0.weight is never pruned." in method
    assert "no weights in some layers" in notes
    assert "trial 0, level 2: 2." in notes


def test_a_weight_that_nothing_is_computed_with_is_named(recipe: Path, networks: Path, tmp_path: Path) -> None:
    words = commands(recipe, f"{networks}:spare", "0", tmp_path / "out")["plan"]
    said = typed(*words, "--images-per-second", "100").stderr
    assert "the network does not use 0.spare.weight when it runs on images" in said
    said = typed(*words, "--images-per-second", "100", "--set", "pruning.exclude=[0.spare]").stderr
    assert "computes nothing" not in said


def test_weights_that_only_training_uses_and_unregistered_ones_are_named(
    recipe: Path, networks: Path, tmp_path: Path
) -> None:
    words = commands(recipe, f"{networks}:helped", "body.0", tmp_path / "out")["plan"]
    said = typed(*words, "--images-per-second", "100").stderr
    assert "the network uses help.weight in training mode only" in said
    assert "parameters that are not registered in it, of shape 3 x 3 x 3 x 3" in said


def test_doubts_about_the_preprocessing_are_noted_once_for_all_levels(recipe: Path, tmp_path: Path) -> None:
    """The mean and the standard deviation are for pixels from 0 to 255, but images are scaled to 0..1."""
    words = ["study", recipe, "--set", "trials=1", "--set", "pruning.levels=1", "--device", "cpu"]
    doubted = ["--set", "data.mean=[124, 116, 104]", "--set", "data.std=[58, 57, 57]", "--out", tmp_path / "doubted"]
    result = typed(*words, *doubted)
    assert result.exit_code == 0
    assert " ".join(result.stderr.split()).count("(data.mean and data.std of the recipe) do not fit images") == 1
    assert len(list((tmp_path / "doubted").rglob("level-*/dissection/stage3/summary.json"))) == 2
    plain = typed(*words, "--out", tmp_path / "plain")
    assert plain.exit_code == 0
    assert "data.std" not in plain.stderr
