"""The paper's claims are compared with studies of which they are true, false or not known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from prunescope import InputError
from prunescope.evidence import claims


def papers_study(trials: int = 4, fall: float = 0.0) -> pd.DataFrame:
    """A study of which all claims are true; with a fall, units are lost at once and none is still interpretable."""
    rows = []
    for trial in range(trials):
        wobble = 0.001 * (trial - 1.5)
        for level in range(14):
            late = max(0, level - 8)
            units = round(200 * (1 - 0.2 * late / 2 - fall * (level > 0))) + trial
            objects, others = round(40 * 0.55**late), round(30 * 0.85**late)
            rows.append(
                {"trial": trial, "level": level, "layer": "layer4", "weights_remaining": 0.8**level, "object": objects,
                 "accuracy": 0.7 - 0.009 * late + wobble * (level > 0), "interpretable": max(units, 0), "part": others,
                 "concepts": objects + others, "still_interpretable": 0.8 - fall + wobble, "same_concept": 0.7 + wobble}
            )  # fmt: skip
    return pd.DataFrame(rows)


def test_claims_hold_for_a_study_like_the_papers() -> None:
    table = claims(papers_study())
    assert len(table) == 8
    answers = table.set_index("claim")["answer"]
    assert answers.drop("accuracy is a point lower at 10 %").eq("holds").all(), table.to_string()
    assert table["value"].between(table["low"], table["high"]).all()
    assert table.loc[6, "value"] == pytest.approx(0.8)


def test_claims_that_are_false_do_not_hold() -> None:
    answers = claims(papers_study(fall=0.5)).set_index("claim")["answer"]
    assert answers["interpretable units hold down to 16.8 %"] == "does not"
    assert answers["units still interpretable at 11 %"] == "does not"
    assert answers["detected concepts hold down to 16.8 %"] == "holds"


def test_one_trial_or_levels_that_were_not_reached_leave_claims_undecided() -> None:
    assert claims(papers_study(trials=1))["answer"].eq("undecided").all()
    table = claims(papers_study()[lambda rows: rows["level"] < 5])
    assert table["answer"].eq("undecided").all()
    assert np.isnan(table["value"].to_numpy(float)).all()


def test_columns_that_are_missing_leave_their_claims_undecided() -> None:
    table = claims(papers_study().drop(columns=["accuracy", "object", "still_interpretable", "same_concept"]))
    assert table["answer"].tolist() == [*["undecided"] * 2, *["holds"] * 2, *["undecided"] * 4]


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="no layer 'layer5'; the nearest are: layer4"):
        claims(papers_study(), layer="layer5")
