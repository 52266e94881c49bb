"""Floors and kappa are what their definitions say, and every unit's fate is the first that applies."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunescope.evidence import consistency, fates
from prunescope.evidence.agreement import agreement, shares

units = st.lists(st.tuples(st.integers(-1, 2), st.integers(-1, 2)), min_size=1, max_size=5)


def mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


@given(units)
def test_floors_are_the_means_over_all_renumberings(pairs: list[tuple[int, int]]) -> None:
    before, after = (np.array([column]) for column in zip(*pairs, strict=True))
    found = agreement(before, after, 3)
    kept, agree, met = [], [], []
    for order in permutations(range(len(pairs))):
        moved = after[:, order]
        kept.append(float(shares(before, moved)[0][0]))
        both = (before != -1) & (moved != -1)
        met.append(int(both.sum()))
        agree.append(int((both & (before == moved)).sum()))
    if (before != -1).any():
        assert found.still_interpretable_floor[0] == pytest.approx(mean(kept))
    if sum(met):
        assert found.same_concept_floor[0] == pytest.approx(sum(agree) / sum(met))


@given(units)
def test_kappa_is_cohens(pairs: list[tuple[int, int]]) -> None:
    both = [(a, b) for a, b in pairs if a >= 0 and b >= 0]
    before, after = (np.array([column]) for column in zip(*pairs, strict=True))
    found = agreement(before, after, 3).same_concept_kappa[0]
    if not both:
        assert np.isnan(found)
        return
    observed = mean([a == b for a, b in both])
    expected = sum(mean([a == c for a, _ in both]) * mean([b == c for _, b in both]) for c in range(3))
    assert found == pytest.approx((observed - expected) / (1 - expected) if expected < 1 else np.nan, nan_ok=True)


def table(rows: dict[int, tuple[str | None, float, str]], dead: tuple[int, ...] = ()) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "unit": list(rows),
            "label": [label for label, _, _ in rows.values()],
            "category": ["object" if label else None for label, _, _ in rows.values()],
            "iou": [iou for _, iou, _ in rows.values()],
            "dead": [unit in dead for unit in rows],
            "concept_set": [names for _, _, names in rows.values()],
        }
    )


def test_a_units_fate_is_the_first_that_applies() -> None:
    dense = dict.fromkeys(range(8), ("dog", 0.2, "1 2")) | {2: ("dog", 0.01, "1"), 4: ("dog", 0.02, "1")}
    pruned = {
        **{1: (None, 0.0, ""), 2: ("dog", 0.01, "1"), 3: ("dog", 0.05, "1"), 4: ("cat", 0.3, "2")},
        **{5: ("dog", 0.3, "3"), 6: ("cat", 0.3, "3 2"), 7: ("cat", 0.3, "3")},
    }
    found = fates(table(dense), table(pruned, dead=(1,))).set_index("unit")
    expected = ["removed", "dead", "never", "lost", "gained", "kept", "unsure", "changed"]
    assert found["fate"].tolist() == expected
    assert found["dense_label"].tolist() == ["dog"] * 8
    assert found["label"].fillna("").tolist() == ["", "", "dog", "dog", "cat", "dog", "cat", "cat"]
    without = fates(table(dense).drop(columns="concept_set"), table(pruned, dead=(1,)))
    assert without["fate"].tolist() == [*expected[:6], "changed", "changed"]


def test_kept_lost_and_changed_units_are_those_of_the_consistency() -> None:
    random = np.random.default_rng(0)
    dense, pruned = (
        table({unit: (random.choice(["a", "b"]), random.uniform(0, 0.1), "") for unit in range(60)}) for _ in range(2)
    )
    counts = fates(dense, pruned)["fate"].value_counts()
    still, same = consistency(dense, pruned)
    assert still == pytest.approx((counts["kept"] + counts["changed"]) / (60 - counts["never"] - counts["gained"]))
    assert same == pytest.approx(counts["kept"] / (counts["kept"] + counts["changed"]))
