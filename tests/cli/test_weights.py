"""Pruned checkpoints of other tools are given on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from prunescope.networks import build_network, save_weights
from tests.cli.commands import refused, typed

NETWORK = "prunescope:resnet8x4"


@pytest.fixture
def models(tmp_path: Path) -> list[nn.Module]:
    """Two pruned networks; their weights, masks and effective weights are written to files."""
    made = [build_network(NETWORK, classes=3, seed=seed) for seed in range(2)]
    for place, model in enumerate(made):
        dense = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        torch.save({"state_dict": {}, "runs": {"best": dense}}, tmp_path / f"dense{place}.pth")
        weights = [(module, "weight") for module in model.modules() if isinstance(module, nn.Conv2d)]
        prune.global_unstructured(weights, prune.L1Unstructured, amount=0.9)
        state = model.state_dict()
        torch.save({name: state[name] for name in state if name.endswith("_mask")}, tmp_path / f"masks{place}.pth")
        for module, name in weights:
            prune.remove(module, name)
        save_weights(model, tmp_path / f"plain{place}.safetensors")
    return made


@pytest.mark.usefixtures("models")
def test_keys_and_masks_give_the_dissection_of_the_pruned_network(drawn: Path, tmp_path: Path) -> None:
    words = ["dissect", NETWORK, "--layer", "stage3", "--concepts", drawn]
    parts: list[object] = ["--weights-key", "runs.best"]
    plain: list[object] = ["--weights", tmp_path / "plain1.safetensors"]
    for place in range(2):
        parts += ["--weights", tmp_path / f"dense{place}.pth", "--masks", tmp_path / f"masks{place}.pth"]
    for options, out in ((parts, "parts"), (plain, "plain")):
        result = typed(*words, *options, "--out", tmp_path / out)
        assert result.exit_code == 0, result.output
    one, other = tmp_path / "parts" / "dense1" / "stage3", tmp_path / "plain" / "stage3"
    pd.testing.assert_frame_equal(*(pd.read_parquet(folder / "units.parquet") for folder in (one, other)))
    settings = json.loads((one / "summary.json").read_text())["settings"]
    assert settings["weights_key"] == "runs.best"
    assert settings["masks"] == [str(tmp_path / f"masks{place}.pth") for place in range(2)]
    without = [*words, *parts[:4], "--out", tmp_path / "parts" / "dense0"]
    assert "masks: [" in refused(*without)


@pytest.mark.usefixtures("models")
def test_layers_are_listed_of_a_checkpoint_with_a_key_and_masks(tmp_path: Path) -> None:
    words = ["layers", NETWORK, "--size", 32, "--weights", tmp_path / "dense0.pth"]
    result = typed(*words, "--weights-key", "runs.best", "--masks", tmp_path / "masks0.pth")
    assert result.exit_code == 0, result.output
    assert "stage3" in result.stdout
    assert "contains no weights under the key 'best'" in refused(*words, "--weights-key", "best")


@pytest.mark.usefixtures("models")
def test_each_file_of_weights_needs_its_own_masks(drawn: Path, tmp_path: Path) -> None:
    words = ["dissect", NETWORK, "--layer", "stage3", "--concepts", drawn, "--out", tmp_path / "out"]
    masks = ["--masks", tmp_path / "masks0.pth"]
    weights = [word for place in range(2) for word in ("--weights", tmp_path / f"plain{place}.safetensors")]
    assert "--masks is given for 1 and --weights for 2 files" in refused(*words, *weights, *masks)
    assert "--masks is given for 1 and --weights for 0 files" in refused(*words, *masks)
    assert "belong to a file of weights" in refused(*words, "--weights-key", "ema")
    assert not (tmp_path / "out").exists()
