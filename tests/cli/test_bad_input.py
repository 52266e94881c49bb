"""What a user gets wrong ends with one clear message and exit code 2, and leaves nothing behind."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from prunescope.cli import app
from tests.cli.commands import GOLDEN, leftovers, refused, typed

NETWORK = ("prunescope:resnet8x4", "--layer", "stage3")


def refused_dissection(tmp_path: Path, *words: object) -> str:
    """Type a dissection that must be refused and write nothing."""
    said = refused("dissect", *words, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert leftovers(tmp_path) == []
    return said


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_index(folder: Path) -> None:
    (folder / "index.csv").unlink()


def with_a_cut_label_image(folder: Path) -> None:
    cut(folder / "images" / "000000_object.png")


def with_a_cut_jpeg(folder: Path) -> None:
    image = folder / "images" / "000005.jpg"
    Image.open(image.with_suffix(".png")).convert("RGB").save(image)
    cut(image)
    index = folder / "index.csv"
    index.write_text(index.read_text().replace("000005.png", "000005.jpg"))


def with_an_unknown_label(folder: Path) -> None:
    Image.fromarray(np.full((32, 32, 3), (231, 3, 0), np.uint8)).save(folder / "images" / "000004_color.png")


def with_a_path_that_leaves(folder: Path) -> None:
    Image.new("RGB", (32, 32)).save(folder.parent / "x.png")
    index = folder / "index.csv"
    index.write_text(index.read_text().replace("\n000002.png", "\n../../x.png"))


DAMAGES: list[tuple[Callable[[Path], None], tuple[str, ...]]] = [
    (without_index, ("no index.csv", "download broden")),
    (with_a_cut_label_image, ("000000_object.png", "truncated", "index.csv, line 2")),
    (with_a_cut_jpeg, ("000005.jpg", "JPEG", "damaged", "index.csv, line 7")),
    (with_an_unknown_label, ("000004_color.png", "label 999", "label.csv", "index.csv, line 6")),
    (with_a_path_that_leaves, ("index.csv:4", "'../../x.png'", "leaves the folder")),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_damaged_data_set_is_refused(
    miniature: Path, tmp_path: Path, damage: Callable[[Path], None], said: tuple[str, ...]
) -> None:
    damage(miniature)
    for message in (
        refused_dissection(tmp_path, *NETWORK, "--concepts", miniature),
        refused("concepts", "pack", miniature),
    ):
        assert [part for part in said if part not in message] == []
        assert message.count("\n") == 1
    assert not list(miniature.glob("packed/*.safetensors"))
    assert leftovers(tmp_path) == []


def test_a_study_on_a_damaged_data_set_is_refused(miniature: Path, recipe: Path, tmp_path: Path) -> None:
    without_index(miniature)
    assert "no index.csv" in refused("study", recipe, "--concepts", miniature, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert leftovers(tmp_path) == []


def test_a_study_is_refused_for_a_missing_image_before_anything_is_trained(
    miniature: Path, recipe: Path, tmp_path: Path
) -> None:
    missing = min((miniature / "images").rglob("*.png"))
    missing.unlink()
    said = refused("study", recipe, "--concepts", miniature, "--out", tmp_path / "out")
    assert f"{missing}: there is no such file" in said
    assert "(missing in all: 1)" in said
    assert not (tmp_path / "out").exists()


class Code:
    """Runs a command when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
@pytest.mark.parametrize("option", ["--weights", "--activations"])
def test_code_in_a_file_is_not_run(
    drawn: Path, tmp_path: Path, save: Callable[[object, Path], object], option: str
) -> None:
    file, mark = tmp_path / "file", tmp_path / "ran"
    save({"state_dict": Code(mark)}, file)
    network = NETWORK if option == "--weights" else ()
    said = refused_dissection(tmp_path, *network, option, file, "--concepts", drawn)
    assert str(file) in said
    assert not mark.exists()


def test_weights_with_code_are_named_as_such(drawn: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": Code(tmp_path / "ran")}, tmp_path / "w.pth")
    said = refused_dissection(tmp_path, *NETWORK, "--weights", tmp_path / "w.pth", "--concepts", drawn)
    assert "contains more than tensors" in said
    assert "ran nothing" in said


def test_weights_that_do_not_fit_are_named_with_their_shapes(drawn: Path, tmp_path: Path) -> None:
    from prunescope.networks import build_network

    torch.save(build_network("prunescope:resnet8x8").state_dict(), tmp_path / "w.pth")
    said = refused_dissection(tmp_path, *NETWORK, "--weights", tmp_path / "w.pth", "--concepts", drawn)
    assert "stem.0.weight: the network has [4, 3, 5, 5], the file [8, 3, 5, 5]" in said
    assert str(tmp_path / "w.pth") in said


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"maps": np.zeros((48, 2, 3, 3))}, "contains no array `features`"),
        ({"features": np.zeros((3, 2, 3, 3))}, "3 images"),
        ({"features": np.zeros((48, 2, 3))}, "[48, 2, 3]"),
        ({"features": np.array(["a"] * 48)}, "not real numbers"),
        ({"features": np.array([Code(Path("/nowhere/ran"))] * 48)}, "plain arrays"),
        ({"features": np.full((48, 2, 3, 3), np.nan)}, "unit 0, image made/00000.jpg"),
        ({"features": np.zeros((48, 2, 3, 3)), "thresholds": np.zeros(5)}, "thresholds are [5]"),
        ({"features": np.zeros((48, 2, 3, 3)), "thresholds": np.array(["a", "b"])}, "`thresholds` are not real"),
    ],
)
def test_activations_that_cannot_be_used_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    file = tmp_path / "maps.npz"
    np.savez(file, **arrays)
    assert said in refused_dissection(tmp_path, "--activations", file, "--concepts", GOLDEN / "dissection/concepts")


def test_a_file_of_activations_that_is_none_is_refused(tmp_path: Path) -> None:
    concepts = GOLDEN / "dissection" / "concepts"
    np.save(tmp_path / "plain.npy", np.zeros((48, 2, 3, 3)))
    np.savez(tmp_path / "cut.npz", features=np.zeros((48, 2, 3, 3)))
    cut(tmp_path / "cut.npz")
    (tmp_path / "text.npz").write_text("features")
    for name in ("plain.npy", "cut.npz", "text.npz"):
        said = refused_dissection(tmp_path, "--activations", tmp_path / name, "--concepts", concepts)
        assert f"{name}: is not an .npz file" in said
        assert "pickle" not in said
    assert "Is a directory" in refused_dissection(tmp_path, "--activations", tmp_path, "--concepts", concepts)
    assert "No such file" in refused_dissection(tmp_path, "--activations", tmp_path / "no", "--concepts", concepts)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("prunescope:resnet8x4", "--layer", "stage33"), "no layer 'stage33'; the nearest are: stage3"),
        (("torchvision:squeezenet1_1",), "no layers of torchvision:squeezenet1_1 are dissected by default"),
        ((*NETWORK, "--precision", "tf32", "--device", "cpu"), "tf32 is for NVIDIA GPUs"),
        ((*NETWORK, "--seed", "-1"), "seed -1 cannot be used"),
        (("torchvision:resnet51", "--layer", "layer4"), "the nearest are: resnet50"),
        (("prunescope:resnet9x4", "--layer", "stage3"), "resnet8x4"),
        (("banana", "--layer", "stage3"), "expected torchvision:resnet50"),
        ((), "either NETWORK or --activations"),
        ((*NETWORK, "--activations", "x.npz"), "either NETWORK or --activations"),
        (("--activations", "x.npz", "--layer", "stage3"), "leave them out"),
        ((*NETWORK, "--quantile", "2"), "quantile is 2.0"),
        ((*NETWORK, "--iou", "-1"), "iou is -1.0"),
        ((*NETWORK, "--presence", "overlaps"), "the nearest are: overlap"),
        ((*NETWORK, "--batch-size", "0"), "batch size is 0"),
        ((*NETWORK, "--mean", "1,2"), "--mean is '1,2', expected three numbers"),
        ((*NETWORK, "--mean", "red"), "--mean is 'red', expected three numbers"),
        ((*NETWORK, "--std", "1,1,nan"), "--std is '1,1,nan', expected three numbers"),
        ((*NETWORK, "--std", "1,1,0"), "above 0 and at most"),
        ((*NETWORK, "--device", "gpu"), "give cpu, cuda or auto"),
        ((*NETWORK, "--weights", "/nowhere.pth"), "/nowhere.pth cannot be read: No such file"),
        ((*NETWORK, "--weights", "/tmp"), "/tmp cannot be read: it is a folder without model.safetensors.index.json"),
        ((*NETWORK, "--concepts", __file__), "expected a data set in Broden's format"),
        ((*NETWORK, "--concepts", "/nowhere"), "/nowhere: there is no such folder"),
    ],
)
def test_a_dissection_that_cannot_be_is_refused(drawn: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    assert said in refused_dissection(tmp_path, "--concepts", drawn, *words)


@pytest.mark.parametrize(
    "words",
    [
        ("dissect", *NETWORK, "--concepts", "/nowhere", "--out"),
        ("import", "netdissect", GOLDEN / "tables" / "alexnet_imagenet.csv", "--out"),
        ("study", "demo", "--out"),
        ("study", "demo", "--dry-run", "--out"),
        ("concepts", "make", "miniature", "--images", "64"),
        ("concepts", "download", "broden", "--out"),
    ],
)
def test_a_file_where_a_folder_is_needed_is_named_before_any_work(tmp_path: Path, words: tuple[object, ...]) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert f"{file}: is a file" in refused(*words, file).replace(f"{file}: {file} is", f"{file}: is")
    assert f"{file} is a file" in refused(*words, file / "deep" / "er").replace(f"{file}/deep/er: is", f"{file} is")
    assert file.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("learning_rate: 0.05", "learning_rate: -0.05", "line 13: training.learning_rate is -0.05"),
        (
            "warmup: 1it",
            "warm_up: 1it",
            "line 14: training.warm_up is not a field of a recipe; the nearest are: warmup",
        ),
        ("rewind_to: 1ep1it", "rewind_to: 3ep", "line 19: pruning.rewind_to is '3ep'"),
        ("rewind_to: 1ep1it", "rewind_to: 2ep1it", "line 19: pruning.rewind_to is '2ep1it'"),
        ("length: 2ep", "length: soon", "line 11: training.length is 'soon'"),
        ("rewind_to: 1ep1it", "rewind_to: 7it", "pruning.rewind_to is 7it, after the end of training.length, 2ep"),
        ("stage3, stage1", "stage4", "no layer 'stage4'; the nearest are: stage3"),
        ("trials: 1", "trials: 1\ntrials: 2", "line 4: 'trials' occurs twice"),
        ("trials: 1", "trials: [", "not valid YAML"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_by_line_and_field(
    recipe: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    text = recipe.read_text()
    assert old in text
    mine = tmp_path / "mine.yaml"
    mine.write_text(text.replace(old, new))
    message = refused("study", mine, "--out", tmp_path / "out", "--device", "cpu")
    assert said in message
    assert "line" not in said or message.startswith(f"error: {mine}, {said[:7]}")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "training.learning_rate=-1"), "--set training.learning_rate=-1: training.learning_rate is -1"),
        (("--set", "training.lerning_rate=1"), "the nearest are: learning_rate"),
        (("--set", "trials"), "expected FIELD=VALUE"),
        (("--set", "trials.more=1"), "trials is a value and has no fields"),
        (("--data", "/nowhere"), "/nowhere/train: there is no such folder; expected ImageNet's layout"),
        (("--concepts", "/nowhere"), "/nowhere: there is no such folder"),
    ],
)
def test_changes_that_cannot_be_are_refused(recipe: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    assert said in refused("study", recipe, "--out", tmp_path / "out", *words)
    assert list(tmp_path.iterdir()) == []


def test_two_mistakes_in_a_recipe_are_both_named(recipe: Path, tmp_path: Path) -> None:
    said = refused("study", recipe, "--out", tmp_path, "--set", "trials=0", "--set", "seed=x")
    assert "trials is 0" in said
    assert "seed is 'x'" in said


def test_a_folder_that_holds_something_else_is_no_place_for_a_study(recipe: Path, miniature: Path) -> None:
    before = sorted(miniature.rglob("*"))
    for more in ((), ("--dry-run",)):
        assert "is not a study" in refused("study", recipe, "--out", miniature, *more)
    assert sorted(miniature.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("recipe", "show", "demoo"), "the nearest are: demo"),
        (("recipe", "show", "/nowhere.yaml"), "/nowhere.yaml: the recipe cannot be read (No such file or directory)"),
        (("study", "banana", "--out", "o"), "there are: cifar10, demo, filters"),
        (("report", "/nowhere"), "/nowhere contains no study"),
        (("report", __file__), "contains no study"),
        (("layers", "torchvision:resnet51"), "the nearest are: resnet50"),
        (("layers", "torchvision:alexnet", "--size", "16"), "cannot take images of 16 x 16 pixels"),
        (("import", "netdissect", "/nowhere.csv", "--out", "o"), "/nowhere.csv: this file does not exist"),
        (("import", "netdissect", __file__, "--out", "o"), "cannot be read as a CSV table"),
        (("import", "netdissect", GOLDEN / "tables/alexnet_imagenet.csv", "--iou", "7", "--out", "o"), "iou is 7.0"),
        (("concepts", "check", "/nowhere"), "/nowhere: there is no such folder"),
        (("concepts", "check", __file__), "expected a data set"),
        (("concepts", "pack", __file__), "expected a data set"),
        (("concepts", "download", "imagenet"), "the only one is: broden"),
        (("concepts", "download", "broden", "--size", "300"), "224, 227, 384"),
        (("concepts", "make", "miniature", "o", "--images", "0"), "the number of images is 0"),
        (("concepts", "make", "miniature", "o", "--images", "64", "--size", "1"), "16 to 1024"),
    ],
)
def test_what_other_commands_cannot_do_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[object, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(*words)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_another_miniature_is_not_overwritten(miniature: Path) -> None:
    said = refused("concepts", "make", "miniature", miniature, "--images", "80", "--size", "32", "--seed", "2")
    assert "contains a miniature of other settings (images 64, seed 2, size 32" in said


def test_a_path_that_cannot_be_stored_is_refused_before_any_work(miniature: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", features=np.zeros((1, 1, 2, 2)))
    out = tmp_path / "caf\udce9"
    said = refused("dissect", "--activations", tmp_path / "a.npz", "--concepts", miniature, "--out", out)
    assert r"caf\udce9': it cannot be written as UTF-8; rename the file or folder" in said
    assert not out.exists()


def test_text_that_the_terminal_cannot_show_is_escaped(tmp_path: Path) -> None:
    recipe = tmp_path / "given.yaml"
    recipe.write_text("name: café\n", encoding="utf-8")
    result = CliRunner(charset="ascii").invoke(app, ["recipe", "show", str(recipe)])
    assert (result.exit_code, result.stdout) == (0, "name: caf\\xe9\n")


def test_a_file_of_weights_in_place_of_a_network_is_told_where_it_belongs(miniature: Path, tmp_path: Path) -> None:
    said = refused("dissect", "dense.pt", "--concepts", miniature, "--layer", "stage1", "--out", tmp_path / "o")
    assert "--weights dense.pt" in said


def test_the_advice_for_gray_label_images_leads_to_the_same_numbers(miniature: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(miniature, tmp_path / "concepts"))
    path = next((root / "images").glob("*_object.png"))
    pixels = np.asarray(Image.open(path))
    numbers = pixels[..., 0].astype(int) + 256 * pixels[..., 1].astype(int)
    Image.fromarray(pixels[..., 0]).save(path)
    said = typed("concepts", "check", root).stdout
    assert "red is the label's number modulo 256, green is the number divided by 256, rounded down" in said
    as_said = np.stack([numbers % 256, numbers // 256, 0 * numbers], axis=-1).astype(np.uint8)
    assert np.array_equal(as_said, pixels)
    Image.fromarray(as_said).save(path)
    assert "no problems found" in typed("concepts", "check", root).stdout


def test_names_are_not_folded_where_output_goes_to_a_pipe(tmp_path: Path) -> None:
    name = "a_layer_with_a_name_that_is_far_longer_than_a_terminal_of_eighty_columns_is_wide"
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef net():\n"
        f"    model = nn.Sequential()\n    model.add_module('{name}', nn.Conv2d(3, 2, 1))\n    return model\n"
    )
    assert f"\n{name} " in typed("layers", f"{tmp_path / 'net.py'}:net", "--size", 8).stdout
