"""The verdict finds out what is true of simulated studies, and says what it cannot decide."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from prunescope import InputError
from prunescope.evidence import Replicates, verdict


def flat(level: int) -> float:
    return 0.0 * level


def study(change: Callable[[int], float], *, trials: int = 3, levels: int = 10, noise: float = 1.0) -> pd.DataFrame:
    """A study whose dense networks have about 46 interpretable units, and accuracy that falls after level 8."""
    random = np.random.default_rng(0)
    rows = []
    for trial in range(trials):
        dense = 46 + 6 * random.standard_normal()
        for level in range(levels + 1):
            rows.append(
                {
                    "trial": trial,
                    "level": level,
                    "layer": "stage3",
                    "weights_remaining": 0.8**level,
                    "accuracy": (0.9 if level <= 8 else 0.8) + 0.001 * random.standard_normal(),
                    "interpretable": round(dense + change(level) + noise * random.standard_normal()),
                    "concepts": 20 + trial,
                }
            )
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("change", "hypothesis"),
    [
        (flat, "A"),
        (lambda level: 12 * (level > 0), "B"),
        (lambda level: -12 * (level > 0), "C"),
        (lambda level: 12 * (level > 0) if level < 5 else -12, "mixed"),
        # What happens where accuracy has fallen does not count.
        (lambda level: 0 if level <= 8 else -40, "A"),
    ],
)
def test_a_clear_curve_has_the_hypothesis_that_is_true_of_it(change: Callable[[int], float], hypothesis: str) -> None:
    assert verdict(study(change)).hypothesis == hypothesis


def test_little_evidence_is_not_taken_for_no_effect() -> None:
    found = verdict(study(flat, noise=12.0))
    assert found.hypothesis == "undecided"
    row = found.hypotheses.iloc[0]
    assert row["low"] < 0 < row["high"]
    assert row["trials_needed"] > 3
    assert f"about {row['trials_needed']} trials" in found.text or "more than 100 trials" in found.text
    assert "Three trials cannot tell" in found.text


def test_more_trials_decide_what_few_cannot() -> None:
    assert verdict(study(flat, noise=4.0)).hypothesis == "undecided"
    assert verdict(study(flat, noise=2.0, trials=12)).hypothesis == "A"


def test_the_break_is_the_last_level_before_something_changes() -> None:
    found = verdict(study(lambda level: 0 if level <= 4 else -20, noise=0.5))
    breaks = found.breaks.set_index("quantity")
    assert breaks.loc["interpretable", "weights_remaining"] == pytest.approx(0.8**4)
    assert breaks.loc["interpretable", "next"] == "fewer"
    assert breaks.loc["accuracy", "weights_remaining"] == pytest.approx(0.8**8)
    assert breaks.loc["interpretable", "ratio"] == pytest.approx(0.8**-4)
    assert breaks.loc["concepts", "weights_remaining"] == pytest.approx(0.8**10)
    assert breaks.loc["concepts", "next"] == ""


def test_levels_whose_accuracy_is_uncertain_do_not_tip_the_answer() -> None:
    curves = study(lambda level: 12 * (level > 0) if level < 5 else -12, noise=0.3)
    wavering = curves["level"].between(5, 8)
    curves.loc[wavering, "accuracy"] -= [0.015 * (trial == 0) for trial in curves.loc[wavering, "trial"]]
    found = verdict(curves)
    assert found.hypothesis == "undecided"
    assert found.hypotheses["undecided_by"].iloc[0] == "accuracy"
    assert "would change with the levels at which it is undecided whether accuracy holds" in found.text


def test_one_trial_is_judged_by_resampled_images_and_speaks_of_itself_alone() -> None:
    curves = study(lambda level: -15 * (level > 0), trials=1)
    random = np.random.default_rng(1)
    tables = {
        name: curves[name].to_numpy()[:, None] + deviation * random.standard_normal((11, 500))
        for name, deviation in (("interpretable", 1.0), ("concepts", 0.1), ("accuracy", 0.001))
    }
    accuracy = tables.pop("accuracy")
    found = verdict(curves, replicates=Replicates({"stage3": tables}, accuracy))
    assert found.hypothesis == "C"
    assert "this initialisation alone" in found.text
    with pytest.raises(InputError, match=r"there is one trial.*Give replicates.*11 levels"):
        verdict(curves)
    with pytest.raises(InputError, match=r"replicates: no values of accuracy"):
        verdict(curves, replicates=Replicates({"stage3": tables}))
    short = {name: values[:5] for name, values in tables.items()}
    with pytest.raises(InputError, match=r"have the shape \[5, 500\]; expected \[levels, resamples\] with 11 levels"):
        verdict(curves, replicates=Replicates({"stage3": short}, accuracy))


def test_without_accuracy_all_levels_count() -> None:
    found = verdict(study(lambda level: 0 if level <= 8 else -40).drop(columns="accuracy"))
    assert found.hypotheses["levels"].tolist() == [10, 10]
    assert found.text.startswith("Accuracy is not known, so all 10 pruned levels are compared")
    assert set(found.levels["quantity"]) == {"interpretable", "concepts"}


def test_removed_filters_make_shares_of_the_remaining_units() -> None:
    curves = study(flat, noise=0.1).assign(units=lambda table: 64 - 4 * table["level"])
    curves["interpretable"] = (0.75 * curves["units"]).astype(int)
    found = verdict(curves)
    assert found.hypothesis == "A"
    assert found.hypotheses["dense"].iloc[0] == pytest.approx(0.75)
    assert "shares of the remaining units" in found.text


def test_every_layer_is_judged_and_the_last_one_is_told() -> None:
    same, falling = study(flat), study(lambda level: -12 * (level > 0)).assign(layer="stage4")
    found = verdict(pd.concat([same, falling]))
    table = found.hypotheses.set_index(["layer", "quantity"])["hypothesis"]
    assert table["stage3", "interpretable"] == "A"
    assert table["stage4", "interpretable"] == found.hypothesis == "C"
    assert "layer stage4" in found.text
    assert "layer stage3" not in found.text


def test_no_interpretable_unit_anywhere_is_said() -> None:
    found = verdict(study(flat).assign(interpretable=0))
    assert found.hypothesis == "undecided"
    assert "There are no interpretable units in layer stage3 at any level" in found.text


def test_counts_that_never_vary_are_decided_without_a_warning() -> None:
    curves = study(flat).assign(interpretable=lambda table: 40 - 10 * (table["level"] > 0))
    found = verdict(curves)
    assert found.hypothesis == "C"
    assert verdict(curves.assign(interpretable=40)).hypothesis == "A"


def test_levels_that_are_not_finished_are_left_out_and_named() -> None:
    curves = study(flat)
    found = verdict(curves[~((curves["trial"] == 2) & (curves["level"] > 3))])
    assert found.levels["level"].max() == 3
    assert "Levels 4, 5, 6, 7, 8, 9 and 10 are left out" in found.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="concepts"), "no column concepts; expected the columns of evidence.csv"),
        (lambda table: table[table["level"] == 0], "only level 0 is there for all of 3 trials"),
        (lambda table: table[table["level"] > 0], "no trial has level 0"),
        (lambda table: table[:0], "the table has no rows"),
        (lambda table: pd.concat([table, table]), "two rows of trial 0, level 0, layer stage3"),
        (lambda table: table.assign(interpretable=np.nan), "interpretable is nan in trial 0, level 0, layer stage3"),
        (lambda table: table.assign(accuracy=90.0), "accuracy is 90.0 in trial 0.*expected a share"),
        (lambda table: table.assign(interpretable="many"), "interpretable has values that are not numbers"),
        (
            lambda table: table.assign(accuracy=table["accuracy"].where(table["level"] < 2)),
            "accuracy is missing in trial 0, level 2, layer stage3, but not everywhere",
        ),
    ],
)
def test_curves_that_cannot_be_compared_are_refused(
    change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    with pytest.raises(InputError, match=f"curves: .*{message}"):
        verdict(change(study(flat)))


@pytest.mark.parametrize("name", ["margin", "accuracy_margin", "alpha"])
def test_margins_outside_of_their_range_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}=1.5: expected a number above 0"):
        verdict(study(flat), **{name: 1.5})
