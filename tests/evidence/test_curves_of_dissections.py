"""Dissections of one's own give the same table as a study of the same networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import prunescope
from prunescope import Dissection, InputError, LayerDissection, curves
from prunescope.report import draw_figures
from tests.cli.commands import GOLDEN

CONCEPTS = GOLDEN / "dissection" / "concepts"


def dissected(seed: int, units: int = 12, **options: Any) -> LayerDissection:
    maps = np.random.default_rng(seed).normal(size=(48, units, 3, 3)).astype(np.float32)
    return prunescope.dissect_activations(maps, concepts=CONCEPTS, **{"quantile": 0.2, "iou": 0.02} | options)


@pytest.mark.filterwarnings("ignore:the network")
def test_the_table_is_that_of_a_series_of_the_same_networks(tmp_path: Path) -> None:
    concepts = prunescope.make_miniature(tmp_path / "drawn", 64, seed=2, size=32)
    sweep = prunescope.sweep(
        "prunescope:resnet8x4", concepts=concepts, out=tmp_path / "out", remaining=[1, 0.5, 0.1],
        layers=["stage3", "stage1"], device="cpu", dissection={"iou": 0.02},
    )  # fmt: skip
    evidence = sweep.run()
    found = [prunescope.load(tmp_path / f"out/trial-0/level-{level:02d}/dissection") for level in range(3)]
    ordered = [Dissection({name: one[name] for name in ("stage3", "stage1")}) for one in found]  # type: ignore[index]
    remaining = evidence["weights_remaining"].unique().tolist()
    pd.testing.assert_frame_equal(curves(ordered, weights_remaining=remaining), evidence)
    one_layer = curves([one["stage1"] for one in ordered], weights_remaining=remaining)
    expected = evidence[evidence["layer"] == "stage1"].reset_index(drop=True)
    pd.testing.assert_frame_equal(one_layer, expected)


def test_the_table_can_be_drawn_and_judged(tmp_path: Path) -> None:
    found = [dissected(seed) for seed in range(3)]
    table = curves(found, weights_remaining=[1, 0.5, 0.25], accuracy=[0.9, 0.8, 0.7])
    assert table["accuracy"].tolist() == [0.9, 0.8, 0.7]
    assert table["interpretable"].tolist() == [one.summary["interpretable"] for one in found]
    assert table["still_interpretable"][0] == 1
    assert (tmp_path / "figure1-accuracy.svg") in draw_figures(table, tmp_path, ("svg",))


def test_units_are_compared_only_where_it_is_known_which_correspond() -> None:
    dense, fewer = dissected(0), dissected(1, units=8)
    table = curves([dense, fewer], weights_remaining=[1, 0.5])
    assert np.isnan(table["still_interpretable"][1])
    assert not np.isnan(table["matched_by_concept"][1])
    numbered = fewer.numbered(np.array([0, 1, 2, 3, 4, 5, 6, 9]))
    again = curves([dense, numbered], weights_remaining=[1, 0.5])
    assert again["still_interpretable"][1] == prunescope.consistency(dense, numbered, iou=0.02)[0]
    assert table["units"].tolist() == again["units"].tolist() == [12, 8]


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ([], {"weights_remaining": []}, "no dissections are given"),
        (dissected(0), {"weights_remaining": [1]}, "one dissection is given, expected a list of them"),
        ([dissected(0)], {}, "give weights_remaining, one fraction for each of the 1 dissections"),
        ([dissected(0)], {"weights_remaining": [1, 0.5]}, "weights_remaining has 2 elements for 1 dissections"),
        ([dissected(0)], {"weights_remaining": [0]}, "weights_remaining contains 0, expected fractions above 0"),
        ([dissected(0)], {"weights_remaining": [20]}, "weights_remaining contains 20, expected fractions"),
        ([dissected(0)], {"weights_remaining": [1], "accuracy": ["0.9"]}, "accuracy contains '0.9', expected"),
        (
            [dissected(0), dissected(1, quantile=0.1)],
            {"weights_remaining": [1, 1]},
            "quantile is 0.1, and that of diss",
        ),
        ([dissected(0).units], {"weights_remaining": [1]}, "dissection 0 is a DataFrame, expected a Dissection"),
        (
            [dissected(0), replace(dissected(1), layer="other")],
            {"weights_remaining": [1, 1]},
            "dissection 1 has the layers other, and dissection 0 activations",
        ),
        ("out/study", {"weights_remaining": [1]}, "are read from the files of the study in out/study; leave them out"),
    ],
)
def test_dissections_that_do_not_make_a_table_are_refused(given: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        curves(given, **options)
