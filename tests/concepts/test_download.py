"""Broden is downloaded from a real server, completely or not at all."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import shutil
import socket
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from prunescope.concepts import check_concepts, download_broden
from prunescope.errors import InputError
from tests.concepts.small import two_images


class Server:
    """A server on this machine; `answers` says how it answers request by request, the last one ever after."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.answers = ["whole"]
        self.requests: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = outer.answers[min(len(outer.requests), len(outer.answers) - 1)]
                outer.requests.append(self.path)
                if answer.isdigit():
                    self.send_error(int(answer))
                    return
                if answer == "redirect":
                    self.send_response(302)
                    self.send_header("Location", "/elsewhere.zip")
                    self.end_headers()
                    return
                self.send_response(200)
                if answer == "odd length":
                    self.send_header("Content-Length", "many")
                elif answer != "cut without a length":
                    self.send_header("Content-Length", str(len(outer.content)))
                self.end_headers()
                self.wfile.write(outer.content if answer == "whole" else outer.content[: len(outer.content) // 2])

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}/data/broden1_{{size}}.zip"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    packed = tmp_path / "packed" / "broden1_224"
    packed.mkdir(parents=True)
    two_images(packed)
    content = Path(shutil.make_archive(str(tmp_path / "published"), "zip", packed.parent, "broden1_224")).read_bytes()
    server = Server(content)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


def fetch(server: Server, folder: Path, retries: int = 5) -> Path:
    return download_broden(folder, 224, address=server.address, retries=retries, backoff=0.001)


def visible(folder: Path) -> list[str]:
    """List what is in a folder but for the lock."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_broden_is_downloaded_unzipped_and_recorded(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    folder = download_broden(
        tmp_path / "new" / "data", 224, address=server.address, progress=lambda *step: seen.append(step)
    )
    assert folder == tmp_path / "new" / "data" / "broden1_224"
    assert check_concepts(folder).problems == ()
    assert visible(folder.parent) == ["broden1_224", "broden1_224.zip.json"]
    assert server.requests == ["/data/broden1_224.zip"]
    assert json.loads((folder.parent / "broden1_224.zip.json").read_text()) == {
        "address": server.address.format(size=224),
        "bytes": len(server.content),
        "sha256": hashlib.sha256(server.content).hexdigest(),
    }
    assert ("downloading", len(server.content), len(server.content)) in seen
    assert [step for step, *_ in seen][-1] == "unzipping"
    assert seen[-1][1] == seen[-1][2]


def test_what_is_there_is_not_downloaded_again_and_that_is_said(server: Server, tmp_path: Path) -> None:
    folder = fetch(server, tmp_path / "data")
    seen: list[str] = []
    again = download_broden(tmp_path / "data", 224, address=server.address, progress=lambda *step: seen.append(step[0]))
    assert again == folder
    assert seen == ["already there"]
    assert len(server.requests) == 1


def test_what_is_there_is_used_where_no_lock_can_be_written(server: Server, tmp_path: Path) -> None:
    folder = fetch(server, tmp_path / "data")
    lock = next((tmp_path / "data").glob("*.lock"))
    lock.unlink()
    lock.mkdir()
    assert fetch(server, tmp_path / "data") == folder


@pytest.mark.parametrize("failure", ["500", "503", "429", "cut", "cut without a length"])
def test_a_server_that_fails_twice_is_asked_a_third_time(server: Server, tmp_path: Path, failure: str) -> None:
    server.answers = [failure, failure, "whole"]
    assert check_concepts(fetch(server, tmp_path / "data")).problems == ()
    assert len(server.requests) == 3


@pytest.mark.parametrize("failure", ["500", "cut", "cut without a length"])
def test_a_server_that_goes_on_failing_is_given_up_and_nothing_stays(
    server: Server, tmp_path: Path, failure: str
) -> None:
    server.answers = [failure]
    with pytest.raises(InputError, match=r"/data/broden1_224\.zip: could not be downloaded after 3 attempts"):
        fetch(server, tmp_path / "data", retries=2)
    assert visible(tmp_path / "data") == []


def test_an_address_that_is_not_there_is_not_asked_twice(server: Server, tmp_path: Path) -> None:
    server.answers = ["404"]
    with pytest.raises(InputError, match=r"after 1 attempt \(404.*check the address") as raised:
        fetch(server, tmp_path / "data")
    assert server.address.format(size=224) in str(raised.value)
    assert len(server.requests) == 1
    assert visible(tmp_path / "data") == []


def test_a_redirect_is_followed(server: Server, tmp_path: Path) -> None:
    server.answers = ["redirect", "whole"]
    fetch(server, tmp_path / "data")
    assert server.requests == ["/data/broden1_224.zip", "/elsewhere.zip"]


def test_a_refused_connection_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(
        InputError, match=rf"http://127\.0\.0\.1:{port}/x\.zip: could not be downloaded after 2 attempts"
    ):
        download_broden(tmp_path, 224, address=f"http://127.0.0.1:{port}/x.zip", retries=1, backoff=0.001)


@pytest.mark.parametrize("address", ["broden.zip", "file:///broden.zip", "http://", "http://[", "ftp://a/b.zip"])
def test_an_address_that_is_not_one_is_refused_without_retries(tmp_path: Path, address: str) -> None:
    with pytest.raises(InputError, match=r": could not be downloaded after 1 attempt .*check the address"):
        download_broden(tmp_path / "data", 224, address=address, backoff=1000)
    assert visible(tmp_path / "data") == []


def test_a_length_that_is_not_a_number_is_no_traceback(server: Server, tmp_path: Path) -> None:
    server.answers = ["odd length"]
    with pytest.raises(InputError, match=r"could not be downloaded after 1 attempt .*'many'"):
        fetch(server, tmp_path / "data")


def test_a_cut_download_is_repeated_although_its_checksum_is_not_the_recorded_one(
    server: Server, tmp_path: Path
) -> None:
    shutil.rmtree(fetch(server, tmp_path / "data"))
    server.answers = ["whole", "cut without a length", "whole"]
    assert check_concepts(fetch(server, tmp_path / "data")).problems == ()
    assert len(server.requests) == 3


@pytest.mark.parametrize("size", [0, 225, 448, -224])
def test_other_sizes_are_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(InputError, match="published for 224, 227, 384 only"):
        download_broden(tmp_path, size)
    assert visible(tmp_path) == []


def test_another_archive_than_the_recorded_one_is_refused(server: Server, tmp_path: Path) -> None:
    folder = fetch(server, tmp_path / "data")
    shutil.rmtree(folder)
    buffer = io.BytesIO(server.content)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("broden1_224/more.txt", "more")
    server.content = buffer.getvalue()
    with pytest.raises(InputError, match=r"its SHA-256 is \w{64}, but broden1_224\.zip\.json records \w{64}"):
        fetch(server, tmp_path / "data")
    assert visible(tmp_path / "data") == ["broden1_224.zip.json"]


def corrupted(content: bytes) -> bytes:
    """Change a byte in the middle of the largest file; the directory at the end stays, so that it looks like a zip."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.compress_size)
    at = largest.header_offset + 30 + len(largest.filename) + largest.compress_size // 2
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


def test_a_corrupt_first_download_is_not_what_later_ones_are_held_against(server: Server, tmp_path: Path) -> None:
    sound, server.content = server.content, corrupted(server.content)
    with pytest.raises(InputError, match=r"after 2 attempts \(the file is not a complete archive"):
        fetch(server, tmp_path / "data", retries=1)
    assert visible(tmp_path / "data") == []
    server.content = sound
    assert check_concepts(fetch(server, tmp_path / "data")).problems == ()
    record = json.loads((tmp_path / "data" / "broden1_224.zip.json").read_text())
    assert record["sha256"] == hashlib.sha256(sound).hexdigest()


def test_a_corrupt_archive_put_there_is_not_recorded(server: Server, tmp_path: Path) -> None:
    archive = tmp_path / "data" / "broden1_224.zip"
    archive.parent.mkdir()
    archive.write_bytes(corrupted(server.content))
    with pytest.raises(InputError, match=r"is damaged or incomplete .*; remove it and download it again from http"):
        fetch(server, archive.parent)
    assert visible(archive.parent) == ["broden1_224.zip"]
    archive.write_bytes(server.content)
    assert check_concepts(fetch(server, archive.parent)).problems == ()


def test_an_archive_put_there_is_used_if_it_is_the_recorded_one(server: Server, tmp_path: Path) -> None:
    shutil.rmtree(fetch(server, tmp_path / "data"))
    (tmp_path / "data" / "broden1_224.zip").write_bytes(server.content)
    assert check_concepts(fetch(server, tmp_path / "data")).problems == ()
    assert len(server.requests) == 1
    shutil.rmtree(tmp_path / "data" / "broden1_224")
    (tmp_path / "data" / "broden1_224.zip").write_bytes(server.content[:-1])
    with pytest.raises(InputError, match="is damaged or incomplete"):
        fetch(server, tmp_path / "data")


@pytest.mark.parametrize("content", ["", "[]", "{}", "not json"])
def test_a_record_without_a_checksum_is_named(server: Server, tmp_path: Path, content: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "broden1_224.zip.json").write_text(content)
    with pytest.raises(InputError, match=r"broden1_224\.zip\.json: .*; remove it, and it is recorded again"):
        fetch(server, tmp_path / "data")


def test_a_folder_of_that_name_with_something_else_in_it_is_left_alone(server: Server, tmp_path: Path) -> None:
    (tmp_path / "broden1_224").mkdir()
    (tmp_path / "broden1_224" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"does not contain index\.csv; move it away"):
        fetch(server, tmp_path)
    assert (tmp_path / "broden1_224" / "mine.txt").read_text() == "mine"
    assert server.requests == []


def test_a_file_instead_of_a_folder_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; give a folder"):
        fetch(server, tmp_path / "file")


def test_an_archive_of_something_else_is_refused(server: Server, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("other/index.csv", "image")
    server.content = buffer.getvalue()
    with pytest.raises(InputError, match=r"does not contain broden1_224/index\.csv"):
        fetch(server, tmp_path / "data")
    # The wrong archive must not become the one that later archives are compared with.
    assert visible(tmp_path / "data") == ["broden1_224.zip"]


def test_an_interrupted_unzip_leaves_nothing_that_looks_finished_and_goes_on_without_a_download(
    server: Server, tmp_path: Path
) -> None:
    def interrupt(step: str, done: int, total: int) -> None:
        if step == "unzipping" and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download_broden(tmp_path / "data", 224, address=server.address, progress=interrupt)
    assert visible(tmp_path / "data") == ["broden1_224.zip"]
    (tmp_path / "data" / ".broden1_224.part" / "rest").mkdir(parents=True)  # what a killed process would leave
    assert check_concepts(fetch(server, tmp_path / "data")).problems == ()
    assert len(server.requests) == 1
    assert visible(tmp_path / "data") == ["broden1_224", "broden1_224.zip.json"]


def test_an_interrupted_download_leaves_nothing(server: Server, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download_broden(tmp_path / "data", 224, address=server.address, progress=interrupt)
    assert visible(tmp_path / "data") == []


def test_without_space_for_the_download_the_error_says_so_and_nothing_stays(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    # A device cannot be filled in a test; the last step of writing a file stands in for it.
    monkeypatch.setattr("prunescope.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left") as raised:
        fetch(server, tmp_path / "data")
    assert raised.value.errno == errno.ENOSPC
    assert len(server.requests) == 1
    assert visible(tmp_path / "data") == []


def test_an_archive_larger_than_the_device_is_not_begun(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(OSError, match="No space left"):
        fetch(server, tmp_path / "data")
    assert visible(tmp_path / "data") == ["broden1_224.zip"]
