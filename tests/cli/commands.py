"""Ways to type a command."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from typer.testing import CliRunner, Result

from prunescope.cli import app

GOLDEN = Path(__file__).parents[1] / "golden"
COMMAND = (sys.executable, "-m", "prunescope")
PLAIN = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "80", "NO_COLOR": "1"}


def typed(*words: object) -> Result:
    """Type a command, in this process."""
    return CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"}).invoke(app, [str(word) for word in words])


def refused(*words: object) -> str:
    """Type a command that must end with one message and exit code 2; return the message."""
    result = typed(*words)
    assert result.exit_code == 2, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    _, *messages = re.split(r"^(?=error: \S)", result.stderr, flags=re.MULTILINE)
    assert len(messages) == 1, result.stderr
    return messages[0]


def process(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Type a command, in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, words)], cwd=cwd, env=PLAIN, capture_output=True, text=True, timeout=120, check=False
    )


def interrupted(words: Sequence[object], when: Callable[[], bool]) -> str:
    """Type a command and press Ctrl-C once `when` holds; it must end with exit code 130. Return what it said."""
    running = subprocess.Popen(
        [*COMMAND, *map(str, words)],
        env=PLAIN,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Ctrl-C reaches a terminal's whole process group, the workers too.
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 60
        while not when():
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < until
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGINT)
        said = running.communicate(timeout=30)[1]
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
    assert running.returncode == 130, said
    assert "Traceback" not in said
    return said


def without_notes(said: str) -> list[str]:
    """Split what a command said into lines and leave out notes, which tell of no failure."""
    return [line for line in said.splitlines() if not line.startswith("note: ")]


def leftovers(folder: Path) -> list[str]:
    """List what should not be there after a command ended: parts of files, hidden files and folders."""
    return [
        str(path)
        for path in folder.rglob("*")
        if ".part" in path.name or (path.name.startswith(".") and not path.name.endswith(".lock"))
    ]
