"""Commands that are killed at random moments end, when they are run again, as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

from tests.kills import trials


def test_ten_killed_commands_end_as_if_nothing_had_happened(tmp_path: Path) -> None:
    assert trials(10, 7, tmp_path, ["dissect", "pack", "make", "import"]) == []
