# ruff: noqa: F811 - a fixture has the name of the parameter
"""What processes that were killed have left behind is removed by the next run, and by nobody else's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prunescope.errors import InputError
from prunescope.files import part_path, write_text
from prunescope.miniature import make_miniature
from prunescope.store import read_recipe
from prunescope.study import run_study
from tests.study.conftest import recipe  # noqa: F401 - a fixture


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_parts_of_processes_that_have_ended_are_removed_when_the_file_is_written_again(tmp_path: Path) -> None:
    own = part_path(tmp_path / "figure.png").name
    ended = own.replace(str(os.getpid()), str(ended_process()))
    older = f".figure.{ended_process()}.part.png"
    running, elsewhere = own.replace(str(os.getpid()), "1"), ".figure.00000000-99999999.part.png"
    other, folder = ended.replace("figure", "figure2"), ended.replace(".png", "")
    for name in (ended, older, running, elsewhere, other):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / folder).mkdir()
    write_text(tmp_path / "figure.png", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["figure.png", running, elsewhere, other, folder])
    assert part_path(tmp_path / "figure").name == own.removesuffix(".png")
    assert not (tmp_path / folder).exists()


def test_a_killed_drawing_leaves_no_workers_and_no_files_after_the_next_run(tmp_path: Path) -> None:
    script = f"from prunescope import make_miniature; make_miniature({str(tmp_path / 'm')!r}, 10**5, seed=1, workers=2)"
    drawing = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    try:
        until = time.monotonic() + 60
        while not any(tmp_path.glob(".m.*.part/images/*")):
            assert time.monotonic() < until
            time.sleep(0.01)
        drawing.kill()
        drawing.wait()
        # The workers are the rest of its process group.
        while running_in(drawing.pid):
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        if running_in(drawing.pid):
            os.killpg(drawing.pid, signal.SIGKILL)
    make_miniature(tmp_path / "m", 2, seed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def running_in(group: int) -> list[str]:
    """List the processes of a group that have not ended; those that nobody has waited for yet have ended."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _parent, of = status.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of) == group and state != "Z":
            found.append(status.parent.name)
    return found


@pytest.mark.parametrize("command", ["draw", "study"])
def test_a_folder_of_ones_own_needs_no_parent_that_can_be_written_to(
    recipe: Path, tmp_path: Path, command: str
) -> None:
    folder = tmp_path / "parent" / "mine"
    folder.mkdir(parents=True)
    if os.geteuid() == 0:
        if subprocess.run(["chattr", "+i", folder.parent], check=False, capture_output=True).returncode:
            pytest.skip("this file system cannot protect a folder from its owner")
    else:
        folder.parent.chmod(0o555)
    try:
        if command == "draw":
            make_miniature(folder, 2, seed=1)
        else:
            run_study(read_recipe(recipe, ["trials=1", "pruning.levels=0", "dissection.layers=[stage3]"]), folder)
    finally:
        subprocess.run(["chattr", "-i", folder.parent], check=False, capture_output=True)
        folder.parent.chmod(0o755)
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("empty", [False, True])
def test_a_folder_may_have_the_longest_name_that_the_file_system_allows(tmp_path: Path, empty: bool) -> None:
    folder = tmp_path / ("m" * 250)
    if empty:
        folder.mkdir()
        (folder / ".miniature.99999999.part").mkdir()
    make_miniature(folder, 2, seed=1)
    assert sorted(path.name for path in folder.iterdir())[-3:] == ["index.csv", "label.csv", "miniature.json"]
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_refused_study_leaves_no_folder_and_no_lock(recipe: Path, tmp_path: Path) -> None:
    given = read_recipe(recipe, ["data.task=/nowhere"])
    with pytest.raises(InputError, match="/nowhere"):
        run_study(given, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(InputError, match="exists but is not a study"):
        run_study(read_recipe(recipe), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
