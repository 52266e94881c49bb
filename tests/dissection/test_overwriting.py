"""A dissection with other settings is not overwritten without a word, and random weights are told."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import prunescope
from tests.cli.commands import GOLDEN, refused, typed

CONCEPTS = GOLDEN / "dissection" / "concepts"
NETWORK = "prunescope:resnet8x4"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def activations(file: Path, seed: int = 0) -> Path:
    np.savez(file, features=np.random.default_rng(seed).normal(size=(48, 3, 4, 4)).astype(np.float32))
    return file


def dissecting(out: Path) -> list[str | Path]:
    """Return the command that dissects a layer of the network."""
    words = ["dissect", NETWORK, "--layer", "stage1", "--concepts", CONCEPTS, "--chance", "0", "--device", "cpu"]
    return [*words, "--out", out]


def test_the_same_command_writes_again_and_another_one_is_refused_with_the_difference(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["dissect", "--activations", activations(tmp_path / "a.npz"), "--concepts", CONCEPTS, "--out", out]
    for _ in range(2):
        assert typed(*words).exit_code == 0
    before = contents(out)
    said = refused(*words, "--quantile", "0.01", "--presence", "overlap")
    assert f"{out / 'activations'} contains a dissection with other settings; nothing was changed" in said
    assert "  quantile: 0.005 there, 0.01 now" in said
    assert '  presence: "image" there, "overlap" now' in said
    assert "Give another --out (directory), or remove this one" in said
    others = ["dissect", "--activations", activations(tmp_path / "b.npz", 1), "--concepts", CONCEPTS, "--out", out]
    assert "a.npz" in refused(*others)
    assert contents(out) == before
    shutil.rmtree(out)
    assert typed(*words, "--quantile", "0.01").exit_code == 0


def test_a_network_is_refused_before_it_is_dissected(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = dissecting(out)
    first = typed(*words)
    assert first.exit_code == 0
    note = "note: the network has random weights of seed 0: no weights were given, and its name loads none."
    assert note in first.stderr
    summary = json.loads((out / "stage1" / "summary.json").read_text())
    assert summary["settings"]["weights"] == "random weights of seed 0"
    before = contents(out)
    assert "  seed: 0 there, 1 now" in refused(*words, "--seed", "1")
    assert "  mean: [" in refused(*words, "--mean", "0.5,0.5,0.5")
    # One of several layers is there.
    assert "  iou: 0.05 there, 0.04 now" in refused(*words, "--layer", "stage2", "--iou", "0.04")
    assert contents(out) == before
    assert typed(*words).exit_code == 0
    assert contents(out) == before


def test_a_dissection_that_does_not_state_where_its_mean_comes_from_is_the_same_dissection(tmp_path: Path) -> None:
    """Older versions did not store `preprocessing`; the numbers decide, not their origin."""
    out = tmp_path / "out"
    words = dissecting(out)
    assert typed(*words).exit_code == 0
    path = out / "stage1" / "summary.json"
    before = contents(out)
    summary = json.loads(path.read_text())
    assert summary["settings"].pop("preprocessing").startswith("the default, mean and standard deviation of ImageNet")
    path.write_text(json.dumps(summary))
    assert typed(*words).exit_code == 0
    assert contents(out) == before
    given = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
    assert typed(*words, *given).exit_code == 0
    assert json.loads(path.read_text())["settings"]["preprocessing"] == "given"
    assert "  mean: [0.485, 0.456, 0.406] there, [0.5" in refused(*words, "--mean", "0.5,0.5,0.5")


def test_each_of_several_weights_files_is_looked_for(tmp_path: Path) -> None:
    from prunescope.networks.weights import save_weights

    for seed, name in enumerate(("one", "two")):
        save_weights(prunescope.build_network(NETWORK, seed=seed), tmp_path / f"{name}.safetensors")
    files = [word for name in ("one", "two") for word in ("--weights", tmp_path / f"{name}.safetensors")]
    words = [*dissecting(tmp_path / "out"), *files]
    done = typed(*words)
    assert done.exit_code == 0
    assert "random weights" not in done.stderr
    shutil.rmtree(tmp_path / "out" / "one")
    before = contents(tmp_path / "out")
    assert "out/two/stage1 contains a dissection" in refused(*words, "--iou", "0.04")
    assert contents(tmp_path / "out") == before


def test_tables_of_two_networks_are_not_mixed(tmp_path: Path) -> None:
    one, other = (GOLDEN / "tables" / f"{name}.csv" for name in ("alexnet_imagenet", "resnet152_imagenet"))
    assert typed("import", "netdissect", one, "--out", tmp_path / "out").exit_code == 0
    before = contents(tmp_path / "out")
    assert "resnet152_imagenet.csv" in refused("import", "netdissect", other, "--out", tmp_path / "out")
    assert contents(tmp_path / "out") == before
    assert typed("import", "netdissect", one, "--out", tmp_path / "out").exit_code == 0
    table = tmp_path / "netdissect.csv"
    shutil.copy(one, table)
    assert "would be overwritten" in refused("import", "netdissect", table, "--out", tmp_path)
    assert table.read_bytes() == one.read_bytes()


def test_saving_from_python_is_held_to_the_same_and_can_replace(tmp_path: Path) -> None:
    model = prunescope.build_network(NETWORK, seed=0)
    with pytest.warns(UserWarning, match="random weights of seed 0"):
        found = prunescope.dissect(model, layers=["stage1", "stage2"], concepts=CONCEPTS)
    found.save(tmp_path)
    found.save(tmp_path)
    other = prunescope.Dissection(
        {name: part.__class__(**vars(part) | {"summary": part.summary | {"settings": {"iou": 0.04}}})
         for name, part in found.items()}
    )  # fmt: skip
    (tmp_path / "stage1" / "summary.json").unlink()
    before = contents(tmp_path)
    with pytest.raises(
        prunescope.InputError, match=re.escape(f"{tmp_path / 'stage2'} contains a dissection with other")
    ):
        other.save(tmp_path)
    assert contents(tmp_path) == before
    other.save(tmp_path, replace=True)
    assert json.loads((tmp_path / "stage2" / "summary.json").read_text())["settings"] == {"iou": 0.04}
    (tmp_path / "stage1" / "summary.json").write_text("{")
    with pytest.raises(prunescope.InputError, match=r"summary\.json: cannot be read as JSON"):
        found.save(tmp_path)


def test_weights_that_somebody_set_are_not_called_random(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("import torch\ndef net():\n    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))\n")
    trained = prunescope.build_network(NETWORK, seed=0)
    with torch.no_grad():
        next(trained.parameters()).mul_(1.5)
    loaded = prunescope.build_network(NETWORK, seed=0)
    loaded.load_state_dict(trained.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model, layer in ((trained, "stage1"), (loaded, "stage1"), (prunescope.build_network(f"{own}:net"), "0")):
            found = prunescope.dissect(model, layers=[layer], concepts=CONCEPTS)
            assert "weights" not in found[layer].summary["settings"]
