"""A full or read-only disk ends a command with one clear message; nothing is half-written."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.commands import COMMAND, PLAIN, without_notes


def in_its_own_mounts(script: str, *words: object) -> subprocess.CompletedProcess[str]:
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh", *map(str, words)]
    return subprocess.run(command, env=PLAIN, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where this machine lets nobody mount a small disk."""
    try:
        tried = in_its_own_mounts('mount -t tmpfs -o size=1m tmpfs "$1"', tmp_path_factory.mktemp("disk"))
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if tried.returncode:
        pytest.skip(f"no disk can be mounted: {tried.stderr}")


def on_a_disk(options: str, folder: Path, *words: object) -> tuple[int, str, list[str]]:
    """Type a command with a small disk mounted at `folder`; return exit code, what it said and what it left there."""
    script = """
        folder=$1 options=$2; shift 2
        mount -t tmpfs -o "$options" tmpfs "$folder" || exit 99
        "$@" > /dev/null; code=$?
        (cd "$folder" && find . -mindepth 1) | sed "s/^/left: /"
        exit $code"""
    found = in_its_own_mounts(script, folder, options, *COMMAND, *words)
    left = [line.removeprefix("left: ./") for line in found.stdout.splitlines()]
    return found.returncode, found.stderr, left


def commands(recipe: Path, drawn: Path, folder: Path) -> dict[str, tuple[object, ...]]:
    network = ("prunescope:resnet8x4", "--layer", "stage3", "--concepts", drawn)
    return {
        "miniature": ("concepts", "make", "miniature", folder / "out", "--images", "64"),
        "dissect": ("dissect", *network, "--out", folder / "out"),
        "study": ("study", recipe, "--device", "cpu", "--out", folder / "out"),
    }


@pytest.mark.usefixtures("disks")
@pytest.mark.parametrize(("command", "size"), [("miniature", "100k"), ("dissect", "24k"), ("study", "40k")])
def test_no_space_left_is_said_in_one_message(
    recipe: Path, drawn: Path, tmp_path: Path, command: str, size: str
) -> None:
    code, said, left = on_a_disk(f"size={size}", tmp_path, *commands(recipe, drawn, tmp_path)[command])
    assert code == 2, said
    lines = [line for line in without_notes(said) if not line.startswith("trial ")]
    assert len(lines) == 1, said
    assert lines[0].startswith("error: ")
    assert "no space left on the device" in lines[0]
    assert "Free some space" in lines[0]
    assert [path for path in left if "part" in path or "/." in path or path.startswith(".")] == []
    # What says that a whole is complete is not there.
    assert [path for path in left if path.endswith(("summary.json", "measured.json", "miniature.json"))] == []


@pytest.mark.usefixtures("disks")
@pytest.mark.parametrize("command", ["miniature", "dissect", "study"])
def test_a_disk_that_cannot_be_written_is_said_before_any_work(
    recipe: Path, drawn: Path, tmp_path: Path, command: str
) -> None:
    code, said, left = on_a_disk("ro", tmp_path, *commands(recipe, drawn, tmp_path)[command])
    assert code == 2, said
    assert said == f"error: {tmp_path}/out: {tmp_path} is not writable; give a folder that you can write to\n"
    assert left == []
