"""Fetching Broden from a real server, and unzipping what nobody vouches for."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import shutil
import socket
import stat
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunescope.concepts import check_concepts, download_broden
from prunescope.concepts.archive import unzip
from prunescope.errors import InputError
from prunescope.files import replacing
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
                if answer != "cut without a length":
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
    with pytest.raises(InputError, match=r"/data/broden1_224\.zip: could not be downloaded, tried 3 times"):
        fetch(server, tmp_path / "data", retries=2)
    assert visible(tmp_path / "data") == []


def test_an_address_that_is_not_there_is_not_asked_twice(server: Server, tmp_path: Path) -> None:
    server.answers = ["404"]
    with pytest.raises(InputError, match=r"tried 1 times \(404.*check the address") as raised:
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
    with pytest.raises(InputError, match=rf"http://127\.0\.0\.1:{port}/x\.zip: could not be downloaded, tried 2 times"):
        download_broden(tmp_path, 224, address=f"http://127.0.0.1:{port}/x.zip", retries=1, backoff=0.001)


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
    with pytest.raises(InputError, match=r"tried 2 times \(what came is not a whole zip archive"):
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
    with pytest.raises(InputError, match=r"not a whole zip archive .*; remove it and download it again"):
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
    with pytest.raises(InputError, match="SHA-256"):
        fetch(server, tmp_path / "data")


@pytest.mark.parametrize("content", ["", "[]", "{}", "not json"])
def test_a_record_without_a_checksum_is_named(server: Server, tmp_path: Path, content: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "broden1_224.zip.json").write_text(content)
    with pytest.raises(InputError, match=r"broden1_224\.zip\.json: holds no checksum; remove it"):
        fetch(server, tmp_path / "data")


def test_a_folder_of_that_name_with_something_else_in_it_is_left_alone(server: Server, tmp_path: Path) -> None:
    (tmp_path / "broden1_224").mkdir()
    (tmp_path / "broden1_224" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"has no index\.csv; move it away"):
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
    with pytest.raises(InputError, match=r"no broden1_224/index\.csv in it"):
        fetch(server, tmp_path / "data")
    assert "broden1_224" not in visible(tmp_path / "data")


def test_an_interrupted_unzip_leaves_nothing_that_looks_finished_and_goes_on_without_a_download(
    server: Server, tmp_path: Path
) -> None:
    def interrupt(step: str, done: int, total: int) -> None:
        if step == "unzipping" and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download_broden(tmp_path / "data", 224, address=server.address, progress=interrupt)
    assert visible(tmp_path / "data") == ["broden1_224.zip", "broden1_224.zip.json"]
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
    assert visible(tmp_path / "data") == ["broden1_224.zip", "broden1_224.zip.json"]


def write_zip(path: Path, entries: Mapping[str, bytes], kind: int = stat.S_IFREG) -> Path:
    """Write an archive with names as they are given, tricks and all."""
    with replacing(path) as beside, zipfile.ZipFile(beside, "w") as archive:
        for name, content in entries.items():
            entry = zipfile.ZipInfo("x")
            entry.filename = entry.orig_filename = name
            entry.external_attr = (kind | 0o644) << 16
            archive.writestr(entry, content)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "../out.txt",
        "a/../../out.txt",
        "/tmp/out.txt",
        "C:/out.txt",
        "..\\out.txt",
        "a\\b",
        "a\x00/../x",
        "a\n",
        ".",
        "..",
        "/",
    ],
)
def test_an_entry_with_a_trick_in_its_name_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    archive = write_zip(tmp_path / "x.zip", {"good.txt": b"good", name: b"bad"})
    with pytest.raises(InputError, match=r"x\.zip: the entry .* nothing was unzipped"):
        unzip(archive, tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    archive = write_zip(tmp_path / "x.zip", {"link": b"/etc"}, kind)
    with pytest.raises(InputError, match="is a link or a device"):
        unzip(archive, tmp_path / "folder")


@pytest.mark.parametrize("names", [["a", "a/"], ["a", "a/b"], ["a", "a/b/c"], ["a/b", "a"]])
def test_names_that_collide_are_refused(tmp_path: Path, names: list[str]) -> None:
    archive = write_zip(tmp_path / "x.zip", dict.fromkeys(names, b""))
    with pytest.raises(InputError, match="do not trust this archive"):
        unzip(archive, tmp_path / "folder")


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a", "one")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a", "two")
    with pytest.raises(InputError, match="two entries have the name"):
        unzip(tmp_path / "x.zip", tmp_path / "folder")


def test_a_damaged_entry_is_found(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "x.zip", {"a.txt": b"content of the file"})
    archive.write_bytes(archive.read_bytes().replace(b"content of", b"c0ntent of"))
    with pytest.raises(InputError, match=r"not a whole zip archive .*CRC"):
        unzip(archive, tmp_path / "folder")


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_text("<html>please log in</html>")
    with pytest.raises(InputError, match=r"x\.zip: not a whole zip archive"):
        unzip(tmp_path / "x.zip", tmp_path / "folder")


def test_unzipped_files_have_no_special_rights(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "x.zip", {"run": b"#!"}, stat.S_IFREG | stat.S_ISUID | 0o111)
    unzip(archive, tmp_path / "folder")
    assert stat.S_IMODE((tmp_path / "folder" / "run").stat().st_mode) & 0o7111 == 0


NAMES = st.lists(
    st.text(st.sampled_from(list("./\\:ab\x00")), min_size=1, max_size=9), min_size=1, max_size=4, unique=True
)


@settings(max_examples=200, deadline=None)
@given(names=NAMES)
def test_whatever_the_names_nothing_is_written_outside(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as outside:
        archive = write_zip(Path(outside, "in", "x.zip"), dict.fromkeys(names, b"content"))
        folder = Path(outside, "in", "deep", "folder")
        with contextlib.suppress(InputError):
            unzip(archive, folder)
        everything = [path for path in Path(outside).rglob("*") if path.is_file()]
        assert all(path == archive or path.is_relative_to(folder) for path in everything)
