"""Ctrl-C ends a command at once; nothing is half-written, and the same command goes on from there."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cli.commands import interrupted, leftovers, typed, without_notes
from tests.concepts.small import two_images

SLOW_NETWORK = """
import pathlib, time, torch

class Slow(torch.nn.Conv2d):
    def forward(self, images):
        pathlib.Path(__file__).with_name("begun").touch()
        time.sleep(0.3)
        return super().forward(images)

def net():
    return torch.nn.Sequential(Slow(3, 4, 3))
"""

SAID = "interrupted; no incomplete files are left. To continue, run the same command again"


def test_a_study_goes_on_where_it_was_interrupted(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["study", recipe, "--out", out, "--device", "cpu"]
    # Workers that decode images get the Ctrl-C too, and must not speak up.
    words += ["--set", "data.in_memory=false", "--set", "data.workers=1", "--set", "dissection.layers=[stage3]"]
    first = out / "trial-0" / "level-00" / "measured.json"
    said = without_notes(interrupted(words, first.is_file))
    assert said[-1] == SAID
    assert [line for line in said[:-1] if not line.startswith("trial 0, level  0")] == []
    assert leftovers(tmp_path) == []
    assert not (out / "report").exists()
    written = {path: path.stat().st_mtime_ns for path in first.parent.iterdir() if path.is_file()}
    again = typed(*words)
    assert again.exit_code == 0, again.output
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert (out / "trial-0" / "level-01" / "measured.json").is_file()
    assert (out / "report" / "index.html").is_file()
    assert leftovers(tmp_path) == []


def test_an_interrupted_dissection_leaves_nothing(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_NETWORK)
    out = tmp_path / "out"
    words = [
        "dissect",
        f"{tmp_path}/slow.py:net",
        "--layer",
        "0",
        "--concepts",
        drawn,
        "--batch-size",
        20,
        "--out",
        out,
    ]
    assert interrupted(words, (tmp_path / "begun").is_file) == SAID + "\n"
    assert not out.exists()
    again = typed(*words)
    assert again.exit_code == 0, again.output
    assert (out / "0" / "summary.json").is_file()
    assert leftovers(tmp_path) == []


def test_an_interrupted_drawing_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "miniature"
    words = ["concepts", "make", "miniature", folder, "--images", 20000]
    said = interrupted(words, lambda: any(tmp_path.glob(".miniature*.part/images/0*")))
    assert said == SAID + "\n"
    assert list(tmp_path.iterdir()) == []


class Held:
    """A server that sends half of a file, and the other half when it is let go."""

    def __init__(self, content: bytes) -> None:
        self.content, self.half_sent, self.go = content, threading.Event(), threading.Event()


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Held, str]]:
    root = two_images(tmp_path / "source" / "broden1_224")
    with zipfile.ZipFile(tmp_path / "source.zip", "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root.parent))
    state = Held((tmp_path / "source.zip").read_bytes())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            half = len(state.content) // 2
            self.send_response(200)
            self.send_header("Content-Length", str(len(state.content)))
            self.end_headers()
            self.wfile.write(state.content[:half])
            state.half_sent.set()
            if state.go.wait(60):
                self.wfile.write(state.content[half:])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield state, f"http://127.0.0.1:{server.server_address[1]}/broden1_{{size}}.zip"
    state.go.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_interrupted_download_leaves_nothing(tmp_path: Path, held: tuple[Held, str]) -> None:
    server, address = held
    out = tmp_path / "data"
    words = ["concepts", "download", "broden", "--out", out, "--address", address]
    assert interrupted(words, server.half_sent.is_set) == SAID + "\n"
    assert [path.name for path in out.iterdir() if path.suffix != ".lock"] == []
    server.go.set()
    again = typed(*words)
    assert again.exit_code == 0, again.output
    assert (out / "broden1_224" / "index.csv").is_file()
    assert leftovers(tmp_path) == []
    assert "already" in typed(*words).stdout
