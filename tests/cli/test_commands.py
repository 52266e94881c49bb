"""Every command does what its help says, on small data."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from prunescope.store import recipe_text, shipped_recipes
from tests.cli.commands import GOLDEN, PLAIN, leftovers, typed, without_notes


def test_a_miniature_is_drawn_checked_and_packed(tmp_path: Path) -> None:
    folder = tmp_path / "miniature"
    made = typed("concepts", "make", "miniature", folder, "--images", 64, "--seed", 3, "--size", 32)
    assert made.exit_code == 0
    assert str(folder) in made.stdout
    assert {path.name for path in (folder / "classification").iterdir()} == {"train", "val"}
    checked = typed("concepts", "check", folder)
    assert checked.exit_code == 0
    assert checked.stdout.endswith(f"{folder}: no problems found\n")
    assert checked.stdout.splitlines()[0].split() == ["category", "images", "concepts", "pixels"]
    assert {line.split()[0] for line in checked.stdout.splitlines()[1:7]} == {
        "object", "part", "material", "texture", "color", "scene",
    }  # fmt: skip
    packed = typed("concepts", "pack", folder)
    assert packed.exit_code == 0
    assert "takes" in packed.stderr
    assert " kB" in packed.stderr
    assert list((folder / "packed").iterdir())
    assert leftovers(tmp_path) == []


def test_brackets_in_a_path_are_printed_as_they_are(tmp_path: Path) -> None:
    root = tmp_path / "[bold]world[/]"
    for words in (("concepts", "make", "miniature", root, "--images", 64), ("concepts", "pack", root)):
        result = typed(*words)
        assert result.exit_code == 0, result.output
        assert str(root) in result.stdout


def test_a_check_lists_every_problem_with_its_file_and_line(miniature: Path) -> None:
    index = miniature / "index.csv"
    index.write_text(index.read_text().replace("\n000001.png", "\n../../x.png").replace("000003_object.png", "no.png"))
    picture = miniature / "images" / "000002.png"
    picture.write_bytes(picture.read_bytes()[:200])
    result = typed("concepts", "check", miniature)
    assert result.exit_code == 1
    assert f"{index}:3: the image's path '../../x.png' leaves the folder" in result.stdout
    assert "000002.png" in result.stdout
    assert "no.png" in result.stdout
    assert "3 problems" in result.stderr


def test_one_problem_is_one_problem(miniature: Path) -> None:
    (miniature / "images" / "000002.png").unlink()
    assert "1 problem\n" in typed("concepts", "check", miniature).stderr


def test_layers_are_listed_with_shapes_and_units() -> None:
    result = typed("layers", "prunescope:resnet8x4", "--size", 64)
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["layer", "type", "shape", "units"]
    assert next(row for row in rows if row[0] == "stage3") == ["stage3", "Sequential", "(16,", "8,", "8)", "16"]


NO_TRACE = """\
import torch
from torch import nn


class Network(nn.Module):
    def __init__(self, classes=7):
        super().__init__()
        self.weight, self.place = nn.Parameter(torch.randn(32, 3, 3, 3)), nn.Parameter(torch.zeros(3, 32, 32))
        self.block, self.fc = nn.Identity(), nn.Linear(32, classes)

    def forward(self, images):
        maps = torch.conv2d(images + self.place, self.weight, padding=1, stride=(1, 2))
        return self.fc(self.block(maps).mean((2, 3)))
"""


def test_layers_and_dissect_agree_on_the_axis_of_the_units(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(NO_TRACE)
    layers = ["layers", f"{tmp_path}/mine.py:Network", "--size", 32]
    words = ["dissect", f"{tmp_path}/mine.py:Network", "--layer", "block", "--concepts", drawn, "--device", "cpu"]
    words += ["--quantile", "0.05", "--out"]
    listed, refused = typed(*layers), typed(*words, tmp_path / "out")
    assert (listed.exit_code, refused.exit_code) == (0, 2)
    assert "block Identity (32, 32, 16) ?" in " ".join(listed.stdout.split())
    assert "give --units-axis block=1" in listed.stderr
    assert "give --units-axis block=1" in refused.stderr
    assert not (tmp_path / "out").exists()
    for axis, shape in (("1", "(32, 32, 16) 32"), ("block=-1", "(16, 32, 32) 16")):
        assert f"block Identity {shape}" in " ".join(typed(*layers, "--units-axis", axis).stdout.split())
        result = typed(*words, tmp_path / f"out{axis}", "--units-axis", axis)
        assert result.exit_code == 0, result.output
        assert f"of {shape.split()[-1]} units interpretable" in result.stdout
    settings = json.loads((tmp_path / "outblock=-1" / "block" / "summary.json").read_text())["settings"]
    assert settings["units_axis"] == {"block": -1}


def test_a_network_of_ones_own_file_is_dissected_with_its_weights(drawn: Path, tmp_path: Path) -> None:
    import torch

    (tmp_path / "mine.py").write_text(
        "import torch\n\ndef net(classes=7):\n    return torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), "
        "torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(5, classes))\n"
    )
    state = {"0.weight": torch.ones(5, 3, 3, 3), "0.bias": torch.zeros(5)}
    state |= {"3.weight": torch.zeros(7, 5), "3.bias": torch.zeros(7)}
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "weights.pth")
    words = ["dissect", f"{tmp_path}/mine.py:net", "--weights", tmp_path / "weights.pth", "--concepts", drawn]
    words += ["--layer", "0", "--layer", "3", "--out", tmp_path / "out", "--batch-size", "5", "--device", "cpu"]
    result = typed(*words, "--mean", "0,0,0", "--std", "1,1,1", "--presence", "overlap", "--quantile", "0.01")
    assert result.exit_code == 0, result.output
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == ["0", "3"]
    units = pd.read_csv(tmp_path / "out" / "0" / "units.csv")
    assert len(units) == 5
    assert units["threshold"].nunique() == 1
    assert 0 < units["threshold"][0] <= 27
    summary = json.loads((tmp_path / "out" / "0" / "summary.json").read_text())
    assert summary["settings"]["presence"] == "overlap"
    assert summary["settings"]["mean"] == [0, 0, 0]
    assert leftovers(tmp_path) == []


def test_random_weights_are_those_of_a_seed_and_layers_those_that_were_published(drawn: Path, tmp_path: Path) -> None:
    tables = []
    for place, seed in enumerate(("0", "0", "1")):
        out = tmp_path / str(place)
        result = typed("dissect", "prunescope:resnet8x4", "--concepts", drawn, "--seed", seed, "--out", out)
        assert result.exit_code == 0, result.output
        assert json.loads((out / "stage3" / "summary.json").read_text())["settings"]["seed"] == int(seed)
        tables.append(pd.read_parquet(out / "stage3" / "pairs.parquet"))
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert not tables[0].equals(tables[2])


def test_a_relative_out_is_below_the_working_folder(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = typed("dissect", "prunescope:resnet8x4", "--layer", "stage3", "--concepts", drawn, "--out", "a/b")
    assert result.exit_code == 0
    assert (tmp_path / "a" / "b" / "stage3" / "units.parquet").is_file()


@pytest.mark.parametrize("presence", ["image", "overlap"])
def test_activations_of_any_framework_are_dissected(tmp_path: Path, presence: str) -> None:
    given, out = GOLDEN / "dissection", tmp_path / "out"
    words = ["--activations", given / "activations.npz", "--concepts", given / "concepts", "--presence", presence]
    result = typed("dissect", *words, "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("activations: ")
    pairs = pd.read_parquet(out / "activations" / "pairs.parquet").set_index(["unit", "label"])
    expected = pd.read_csv(given / f"pairs_{presence}.csv").set_index(["unit", "label"])
    shared = pairs.index.intersection(expected.index)
    assert len(shared) > 100
    for column in {"truth", "activation", "intersect"} & set(expected.columns):
        assert (pairs.loc[shared, column] == expected.loc[shared, column]).all()


@pytest.mark.parametrize(
    ("table", "counts", "by_category"),
    [
        (
            "resnet152_imagenet",
            "2,048 units, 990 interpretable, 169 concepts",
            {"scene": 58, "object": 52, "texture": 41, "part": 13, "material": 3, "color": 2},
        ),
        ("alexnet_imagenet", "256 units, 69 interpretable, 40 concepts", None),
    ],
)
def test_a_published_table_is_read(tmp_path: Path, table: str, counts: str, by_category: dict[str, int] | None) -> None:
    out = tmp_path / "out"
    result = typed("import", "netdissect", GOLDEN / "tables" / f"{table}.csv", "--out", out)
    assert result.exit_code == 0
    assert result.stdout.startswith(counts)
    summary = json.loads((out / "summary.json").read_text())
    assert by_category is None or summary["by_category"] == by_category
    assert len(pd.read_parquet(out / "units.parquet")) == summary["units"]
    assert pd.read_csv(out / "units.csv")["unit"].min() == 0


def test_recipes_are_listed_and_shown() -> None:
    listed = typed("recipe", "list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == shipped_recipes()
    assert {"cifar10", "demo", "filters", "fine-tuning", "miniature", "one-shot", "paper"} < set(shipped_recipes())
    assert max(map(len, listed)) < 140
    assert all(len(line.split()) > 5 for line in listed)
    for name in shipped_recipes():
        shown = typed("recipe", "show", name)
        assert shown.exit_code == 0
        assert yaml.safe_load(shown.stdout)["name"] == name
        assert shown.stdout.rstrip() == recipe_text(name)[1].rstrip()


def test_a_shown_recipe_can_be_kept_and_run_by_its_path(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(typed("recipe", "show", "miniature").stdout)
    result = typed("study", mine, "--out", tmp_path / "out", "--dry-run", "--set", "trials=2")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 2 * (2 * (20 + 1) + 1)


def test_a_recipe_is_shown_whole_with_what_it_extends() -> None:
    shown = yaml.safe_load(typed("recipe", "show", "filters", "--resolved").stdout)
    assert (shown["network"], shown["pruning"]["scope"]) == ("prunescope:resnet8x16", "filters")
    assert shown["training"]["momentum"] == 0.9


def fields(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference and the forms a field may take to its fields."""
    if "$ref" in part:
        return fields(schema, schema["$defs"][part["$ref"].rsplit("/", 1)[1]])
    found = dict(part.get("properties", {}))
    for form in (*part.get("anyOf", []), *part.get("oneOf", [])):
        found |= fields(schema, form)
    return found


def test_the_schema_is_json_and_knows_every_field_of_the_shipped_recipes() -> None:
    schema = json.loads(typed("recipe", "schema").stdout)

    def check(content: dict[str, Any], part: dict[str, Any], at: str) -> None:
        known = fields(schema, part)
        for name, value in content.items():
            assert name in known, f"{at}.{name}"
            if isinstance(value, dict):
                check(value, known[name], f"{at}.{name}")

    assert schema["additionalProperties"] is False
    for name in shipped_recipes():
        content = yaml.safe_load(recipe_text(name)[1])
        check(content, schema, name)


def test_a_dry_run_prints_the_stages_and_writes_nothing(recipe: Path, tmp_path: Path) -> None:
    result = typed("study", recipe, "--out", tmp_path / "out", "--dry-run")
    assert result.exit_code == 0
    stages = [line.split() for line in result.stdout.splitlines()]
    assert stages == [["trial", "0", "level", f"0{level}", work] for level in (0, 1) for work in ("train", "dissect")]
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_refuses_masks_of_no_study_as_the_run_would(recipe: Path, tmp_path: Path) -> None:
    words = ["study", recipe, "--out", tmp_path / "out", "--set", "pruning.masks=branch"]
    dry, run = typed(*words, "--dry-run"), typed(*words)
    assert (dry.exit_code, dry.stdout) == (2, "")
    assert dry.stderr == run.stderr
    assert "give --branch-from STUDY" in dry.stderr


def test_a_study_is_run_shown_and_reported_anew(recipe: Path, drawn: Path, tmp_path: Path) -> None:
    out, task = tmp_path / "out", tmp_path / "task, of: mine"
    shutil.copytree(drawn / "classification", task)
    concepts = tmp_path / "concepts"
    shutil.copytree(drawn, concepts)
    words = ["study", recipe, "--out", out, "--data", task, "--concepts", concepts, "--device", "cpu"]
    words += ["--set", "pruning.fraction=0.4", "--set", "dissection.layers=[stage3]"]
    result = typed(*words)
    assert result.exit_code == 0, result.output
    page = out / "report" / "index.html"
    assert result.stdout == f"The report is {page}\n"
    lines = without_notes(result.stderr)
    assert [line.split(":")[0] for line in lines] == ["trial 0, level  0", "trial 0, level  1"]
    assert "60.0% of the weights, top-1 " in lines[1]
    kept = yaml.safe_load((out / "study.yaml").read_text())
    assert (kept["data"]["task"], kept["dissection"]["concepts"]) == (str(task), str(concepts))
    assert leftovers(tmp_path) == []

    shown = typed(*words, "--dry-run").stdout.splitlines()
    assert [line.split()[-1] for line in shown] == ["done"] * 4
    other = typed(*words, "--set", "pruning.fraction=0.3", "--dry-run")
    assert other.exit_code == 2
    assert "-  fraction: 0.4\n+  fraction: 0.3" in other.stderr

    (out / "evidence.csv").unlink()
    page.unlink()
    # A study that is not finished has a report too.
    shutil.rmtree(out / "trial-0" / "level-01")
    again = typed("report", out)
    assert again.exit_code == 0
    assert page.is_file()
    assert list(pd.read_csv(out / "evidence.csv")["level"]) == [0]


def test_several_weights_are_dissected_at_once_each_in_its_folder(drawn: Path, tmp_path: Path) -> None:
    from prunescope.networks import build_network, save_weights

    for seed in range(2):
        save_weights(build_network("prunescope:resnet8x4", classes=3, seed=seed), tmp_path / f"seed{seed}.safetensors")
    words = ["dissect", "prunescope:resnet8x4", "--layer", "stage3", "--concepts", drawn, "--memory", "0"]
    both = [word for seed in range(2) for word in ("--weights", tmp_path / f"seed{seed}.safetensors")]
    assert typed(*words, *both, "--out", tmp_path / "both").exit_code == 0
    assert typed(*words, *both[:2], "--out", tmp_path / "one").exit_code == 0
    together, alone = (pd.read_parquet(tmp_path / out / "stage3/units.parquet") for out in ("both/seed0", "one"))
    pd.testing.assert_frame_equal(together, alone)
    assert (tmp_path / "both" / "seed1" / "stage3" / "summary.json").is_file()


def test_alignment_and_precision_are_chosen_and_noted(drawn: Path, tmp_path: Path) -> None:
    words = ["dissect", "prunescope:resnet8x4", "--layer", "stage3", "--concepts", drawn, "--out", tmp_path]
    result = typed(*words, "--align", "receptive-field", "--precision", "bf16")
    assert result.exit_code == 0, result.output
    settings = json.loads((tmp_path / "stage3" / "summary.json").read_text())["settings"]
    assert (settings["align"], settings["precision"]) == ("receptive-field", "bf16")
    assert settings["stride"] == ["8", "8"]


def test_torchrun_shares_the_images_and_writes_what_one_process_writes(drawn: Path, tmp_path: Path) -> None:
    words = [
        "-m",
        "prunescope",
        "dissect",
        "prunescope:resnet8x4",
        "--layer",
        "stage3",
        "--concepts",
        str(drawn),
    ]
    words += ["--device", "cpu", "--batch-size", "1", "--out"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for start, out in (([sys.executable], "one"), (torchrun, "two")):
        done = subprocess.run(
            [*start, *words, str(tmp_path / out)], env=PLAIN, capture_output=True, text=True, check=True
        )
        assert done.stdout.count("units interpretable") == 1
    one, two = (pd.read_parquet(tmp_path / out / "stage3" / "pairs.parquet") for out in ("one", "two"))
    pd.testing.assert_frame_equal(one, two)
