"""Beside the levels of a trial, a study dissects its untrained network and, if asked to, a dense one trained again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import prunescope
from prunescope.errors import InputError
from prunescope.networks import load_weights
from prunescope.store import read_recipe
from prunescope.store.layout import StudyDirectory
from prunescope.study import Event, run_study
from prunescope.study.series import run_series
from tests.cli.commands import refused, typed
from tests.contents import contents

SMALL = ["trials=1", "pruning.levels=0", "dissection.layers=[stage3]", "dissection.chance=0", "retrained=true"]
ROTATED = "dissection.basis=['rotate:1']"
EACH_STEP = "training.checkpoint_every=1it"


@pytest.fixture(scope="module")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyDirectory:
    out = tmp_path_factory.mktemp("references") / "out"
    run_study(read_recipe(recipe, [*SMALL, ROTATED, EACH_STEP]), out)
    return StudyDirectory(out)


def units(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "stage3" / "units.parquet")


def test_the_untrained_network_is_dissected_with_statistics_of_its_own(recipe: Path, finished: StudyDirectory) -> None:
    found = units(finished.reference_dissection(0, "untrained"))
    network = prunescope.build_network("prunescope:resnet8x4", classes=16, seed=5)
    load_weights(network, finished.initial(0))
    concepts = str(read_recipe(recipe).dissection.concepts)
    as_it_is = prunescope.dissect(network, layers=["stage3"], concepts=concepts, chance=0, device="cpu").units
    # Without estimated statistics, the maps have another scale.
    assert len(found) == len(as_it_is)
    assert not found["dead"].any()
    assert not np.allclose(found["threshold"], as_it_is["threshold"], rtol=0.05)
    row = prunescope.curves(finished.root).iloc[0]
    assert row["untrained_interpretable"] == (found["iou"] > 0.05).sum()


def test_the_dense_network_is_trained_again_from_the_rewinding_point_in_another_order(finished: StudyDirectory) -> None:
    folder = finished.reference(0, "retrained")
    again, dense = load_file(folder / "weights.safetensors"), load_file(finished.weights(0, 0))
    start = load_file(finished.rewind(0))
    name = "stem.0.weight"
    assert all((again[name] != other[name]).any() for other in (dense, start))
    assert pd.read_csv(folder / "training.csv")["step"].tolist() == [6]
    assert not finished.reference_checkpoints(0).exists()
    row = prunescope.curves(finished.root).iloc[0]
    assert 0 <= row["retrained_still_interpretable"] <= 1


def test_a_study_killed_while_it_trains_again_goes_on_to_the_same_bytes(
    recipe: Path, finished: StudyDirectory, tmp_path: Path
) -> None:
    def stop(event: Event) -> None:
        if event.work == "retrain" and event.fraction > 0.4:
            raise KeyboardInterrupt

    read = read_recipe(recipe, [*SMALL, ROTATED, EACH_STEP])
    with pytest.raises(KeyboardInterrupt):
        run_study(read, tmp_path / "out", report=stop)
    directory = StudyDirectory(tmp_path / "out")
    assert list(directory.reference_checkpoints(0).iterdir())
    steps = []
    run_study(read, directory.root, report=lambda event: steps.append((event.work, event.level)))
    assert {work for work, _ in steps} == {"data", "retrain"}
    assert contents(directory.reference(0, "retrained")) == contents(finished.reference(0, "retrained"))


def test_a_finished_study_can_be_given_a_reference_later(
    recipe: Path, finished: StudyDirectory, tmp_path: Path
) -> None:
    without = read_recipe(recipe, [*SMALL, ROTATED, "retrained=false"])
    run_study(without, tmp_path / "out")
    directory = StudyDirectory(tmp_path / "out")
    before = contents(directory.level(0, 0))
    assert not directory.reference(0, "retrained").exists()
    run_study(read_recipe(recipe, [*SMALL, ROTATED]), directory.root)
    assert contents(directory.level(0, 0)) == before
    assert contents(directory.reference(0, "retrained")) == contents(finished.reference(0, "retrained"))
    assert "retrained: true" in directory.recipe.read_text()


def test_given_weights_cannot_be_trained_again(recipe: Path, finished: StudyDirectory) -> None:
    given = f"start={{weights: {finished.weights(0, 0)}}}"
    with pytest.raises(InputError, match=r"retrained is True.*no training to repeat"):
        read_recipe(recipe, [*SMALL, given])


def test_a_series_has_an_untrained_network_if_asked_to_also_later(
    recipe: Path, finished: StudyDirectory, tmp_path: Path
) -> None:
    def dissected(**options: bool) -> pd.Series[Any]:
        series = prunescope.Series(
            "prunescope:resnet8x4", [finished.weights(0, 0)], tmp_path / "out", layers=["stage3"], classes=16,
            concepts=read_recipe(recipe).dissection.concepts, dissection={"chance": 0}, device="cpu", **options,
        )  # fmt: skip
        run_series(series.recipe, series.out)
        return series.evidence().iloc[0]

    assert "untrained_concepts" not in dissected()
    row = dissected(untrained=True)
    found = units(StudyDirectory(tmp_path / "out").reference_dissection(0, "untrained"))
    assert row["untrained_interpretable"] == (found["iou"] > 0.05).sum()
    with pytest.raises(InputError, match="random weights of a network that is given as a module are unknown"):
        prunescope.Series(torch.nn.Conv2d(3, 4, 3), [], tmp_path, concepts="c", layers=[""], untrained=True)


def test_the_command_dissects_the_untrained_network_beside_the_trained(
    recipe: Path, finished: StudyDirectory, tmp_path: Path
) -> None:
    concepts = str(read_recipe(recipe).dissection.concepts)
    given = ("dissect", "prunescope:resnet8x4", "--weights", finished.weights(0, 0), "--classes", "16", "--seed", "3")
    options = ("--concepts", concepts, "--chance", "0", "--untrained", "--device", "cpu", "--out", tmp_path / "out")
    for _ in range(2):  # the same dissection may be made again
        assert typed(*given, *options).exit_code == 0
    found = prunescope.load(tmp_path / "out" / "untrained")["stage3"]
    assert found.summary["settings"]["weights"] == "random weights of seed 3"
    assert not found.units["dead"].any()
    copy = tmp_path / "untrained.safetensors"
    copy.write_bytes(finished.weights(0, 0).read_bytes())
    said = refused("dissect", "prunescope:resnet8x4", "--weights", copy, *options)
    assert "would be in the same folder" in said


def test_the_evidence_compares_the_concepts_in_another_basis_with_those_of_the_units(finished: StudyDirectory) -> None:
    folder = finished.dissection(0, 0)
    counts = [
        found.loc[found["iou"] > 0.05, "label"].nunique()
        for found in (units(folder / "basis" / "rotate-1"), units(folder))
    ]
    assert prunescope.curves(finished.root).loc[0, "basis_rotate-1"] == counts[0] / counts[1]


def test_a_basis_that_fits_no_level_is_refused_before_the_study(recipe: Path, tmp_path: Path) -> None:
    save_file({"a": torch.ones(2, 3)}, tmp_path / "own.safetensors")
    given = [*SMALL, f"dissection.basis=['{tmp_path / 'own.safetensors'}']"]
    with pytest.raises(InputError, match=r"expected real numbers \[directions, 16\]"):
        run_study(read_recipe(recipe, given), tmp_path / "out")
    assert not (tmp_path / "out" / "study.yaml").exists()
    with pytest.raises(InputError, match="removes units"):
        read_recipe(recipe, [*given, "pruning.scope=filters"])
    with pytest.raises(InputError, match=r"dissection\.basis.*expected rotate:SEED"):
        read_recipe(recipe, ["dissection.basis=[turn]"])
