"""`prunescope show` prints what a directory holds: a study, a series or a dissection."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

import prunescope
from prunescope import terminal
from prunescope.evidence import write_evidence
from tests.cli.commands import typed
from tests.evidence.counted_study import dissection, random_tally, write_counted


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_a_study_is_shown_with_its_numbers_verdict_and_claims(tmp_path: Path) -> None:
    root = write_counted(tmp_path / "study", trials=2, levels=3)
    before = sorted(tmp_path.rglob("*"))
    result = typed("show", root)
    assert result.exit_code == 0, result.output
    assert sorted(tmp_path.rglob("*")) == before
    found = prunescope.show(root)
    assert found.verdict is not None
    assert f"Verdict: {found.verdict.hypothesis}. Accuracy" in result.stdout
    assert result.stdout.startswith("study: a study with 2 trials; in parentheses: 95 % t intervals over the trials")
    (of_level_3,) = [line for line in lines(result.stdout) if line[:2] == ["3", "12.5"]]
    assert f"{found.summary['interpretable'].iloc[3]:.1f}".removesuffix(".0") in of_level_3
    assert result.stdout.count("undecided") + result.stdout.count("holds") + result.stdout.count("does not") >= 8


def test_a_terminal_of_80_columns_breaks_no_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_counted(tmp_path / "study", trials=2, levels=1, units=130, layers=("late", "stage3.0.conv2"))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setattr(terminal.out, "width", 80)
    shown = typed("show", root).stdout
    tables = shown[: shown.index("units: the interpretable ones")]
    assert max(map(len, tables.splitlines()[1:])) <= 80
    assert tables.count("level  weights %") == 2
    assert all(number in tables for number in ("layer stage3.0.conv2", "top-1 %", "units", "concepts", "still %"))
    for opened in re.findall(r"\(\S*", tables[tables.index("\n") :]):
        assert re.fullmatch(r"\(-?[\d.]+–[\d.]+\)", opened), opened


def test_stored_evidence_is_shown_only_as_long_as_it_is_right(tmp_path: Path) -> None:
    root = write_counted(tmp_path / "study", levels=3)
    write_evidence(root)
    stored = prunescope.show(root)
    pd.testing.assert_frame_equal(stored.summary, prunescope.show(root).summary)
    for path in root.glob("trial-*/*/dissection/*/tally.safetensors"):
        path.unlink()
    pd.testing.assert_frame_equal(prunescope.show(root).summary, stored.summary)
    shutil.rmtree(root / "trial-0/level-03")
    assert prunescope.show(root).summary["level"].tolist() == [0, 1, 2]
    assert prunescope.show(root).verdict is None


@pytest.mark.parametrize("name", ["evidence.csv", "replicates.safetensors", "fates.parquet", "verdict.json"])
def test_evidence_that_is_damaged_is_computed_again(tmp_path: Path, name: str) -> None:
    root = write_counted(tmp_path / "study", levels=3)
    text = write_evidence(root).verdict
    (root / name).write_bytes(b"{}")
    found = prunescope.show(root).verdict
    assert found is not None
    assert text is not None
    assert found.text == text.text


def test_a_dissection_is_shown_layer_by_layer(tmp_path: Path) -> None:
    for layer in ("early", "late"):
        dissection(random_tally([1], 12, 8), layer, {"images": 40}).save(tmp_path / "out")
    result = typed("show", tmp_path / "out")
    assert result.exit_code == 0, result.output
    table = lines(result.stdout)
    assert table[0] == ["early", "late"]
    assert table[1] == ["units", "12", "12"]
    assert table[2][0] == "interpretable"
    assert "to" in table[2]
    assert typed("show", tmp_path / "out" / "late").exit_code == 0


def test_an_imported_table_has_no_intervals_and_it_says_so(tmp_path: Path) -> None:
    folder = dissection(random_tally([1], 12, 8), "late", {}).save(tmp_path / "out")
    prunescope.import_netdissect(folder / "netdissect.csv", out=tmp_path / "imported")
    result = typed("show", tmp_path / "imported")
    assert result.exit_code == 0, result.output
    assert "Intervals over images are left out: " in result.stderr


def test_a_directory_without_results_is_one_clear_error(tmp_path: Path) -> None:
    result = typed("show", tmp_path)
    assert result.exit_code == 2
    assert "contains no study and no dissection; give the --out directory" in result.stderr
    write_counted(tmp_path / "one")
    assert "it contains the studies one; give one of their folders" in typed("show", tmp_path).stderr
