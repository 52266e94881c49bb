"""CIFAR is read from its binary version, fetched from a real server, and nothing of it is ever unpickled."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from prunescope.downloads import fetch_folder
from prunescope.errors import InputError
from prunescope.fingerprints import Difference, Fingerprint, difference, take_fingerprint
from prunescope.hashes import Hashes
from prunescope.tasks import Task, open_task
from prunescope.tasks.cifar import CIFAR10, CIFAR100, Published, open_cifar
from prunescope.tasks.contents import list_task
from prunescope.tasks.order import Plan
from prunescope.tasks.sources import Cifar

CPU = torch.device("cpu")
NAMES = {CIFAR10: ["airplane", "automobile", "bird"], CIFAR100: ["apple", "aquarium_fish", "baby", "bear"]}
both = pytest.mark.parametrize("published", [CIFAR10, CIFAR100], ids=["cifar10", "cifar100"])


def files(published: Published, images: int = 6) -> dict[str, bytes]:
    """Write some images and classes as the published files have them."""
    random = np.random.default_rng(0)
    found = {published.names: "".join(f"{name}\n" for name in [*NAMES[published], ""]).encode()}
    for file in (*published.train, *published.val):
        records = random.integers(0, 256, (images, published.labels + 3072)).astype(np.uint8)
        records[:, 0] = 19
        records[:, published.labels - 1] = np.arange(images) % len(NAMES[published])
        found[file] = records.tobytes()
    return found


def unpacked(folder: Path, published: Published, changes: Mapping[str, bytes] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (files(published) | dict(changes or {})).items():
        (folder / name).write_bytes(content)
    return folder


def opened(**fields: object) -> Task:
    return open_task(
        Cifar.model_validate(fields),
        size=32,
        augmentation="shift-flip",
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        in_memory=True,
    )


@both
@pytest.mark.parametrize("inside", [True, False])
def test_images_and_classes_are_those_of_the_files(tmp_path: Path, published: Published, inside: bool) -> None:
    unpacked(tmp_path / published.folder if inside else tmp_path, published)
    field = "cifar10" if published is CIFAR10 else "cifar100"
    task = opened(**{field: str(tmp_path)})
    assert task.classes == tuple(NAMES[published])
    assert (len(task.train), len(task.val)) == (6 * len(published.train), 6)
    content = files(published)
    images, targets = next(task.validation_batches(6, CPU))
    for place in range(6):
        record = content[published.val[0]][place * (published.labels + 3072) :]
        assert targets[place] == record[published.labels - 1]
        for channel, row, column in [(0, 0, 0), (1, 3, 30), (2, 31, 31)]:
            byte = record[published.labels + channel * 1024 + row * 32 + column]
            assert images[place, channel, row, column].item() == pytest.approx(byte / 255)
    batch = next(task.training_batches(Plan(len(task.train), 4, 0), 0, 1, CPU))
    assert batch.images.shape == (4, 3, 32, 32)


def test_a_recipe_names_one_of_the_two() -> None:
    for fields in ({}, {"cifar10": "a", "cifar100": "b"}, {"cifar10": "a", "downlaod": True}):
        with pytest.raises(ValidationError):
            Cifar.model_validate(fields)
    cifar = Cifar(cifar10="folder", download=True)
    assert Cifar.model_validate(cifar.model_dump(mode="json")) == cifar


@both
def test_pickles_are_not_read_and_what_to_fetch_is_said(tmp_path: Path, published: Published) -> None:
    folder, archive = published.pickled
    (tmp_path / "folder" / folder).mkdir(parents=True)
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / archive).write_bytes(b"")
    for place in (tmp_path / "folder", tmp_path / "archive", tmp_path / "folder" / folder):
        with pytest.raises(InputError, match=r"are pickles.*the binary version.*download: true.*binary\.tar\.gz"):
            open_cifar(place, published, 32)


def test_a_folder_without_it_is_told_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"does not contain CIFAR-10; expected the folder cifar-10-batches-bin .*download: true.*https://www\.cs",
    ):
        opened(cifar10=str(tmp_path / "nowhere"))
    unpacked(tmp_path / CIFAR10.folder, CIFAR10)
    (tmp_path / CIFAR10.folder / "data_batch_3.bin").unlink()
    with pytest.raises(InputError, match=r"does not contain CIFAR-10; expected .*data_batch_3\.bin"):
        opened(cifar10=str(tmp_path))


def test_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="32 x 32 pixels, but `size` is 224; give 32"):
        open_cifar(tmp_path, CIFAR10, 224)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test_batch.bin", b"\0" * 3072, r"test_batch\.bin: has 3072 bytes, expected a multiple of 3073, .* truncated"),
        ("data_batch_2.bin", b"", r"data_batch_2\.bin: has 0 bytes"),
        ("data_batch_1.bin", b"\0" * 3073 + b"\3" * 3073, r"data_batch_1\.bin: image 1 has class 3, expected 0 to 2"),
        ("batches.meta.txt", b"\n\n", r"batches\.meta\.txt: expected the names of the classes"),
        ("batches.meta.txt", b"cat\ncat\n", r"batches\.meta\.txt: expected the names of the classes"),
        ("batches.meta.txt", b"\xff\xfe\n", r"batches\.meta\.txt: cannot be read"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    unpacked(tmp_path, CIFAR10, {name: content})
    with pytest.raises(InputError, match=message):
        open_cifar(tmp_path, CIFAR10, 32)


class Server:
    """A server on this machine; `answers` says how it answers request by request, the last one ever after."""

    def __init__(self, content: bytes) -> None:
        self.content, self.answers, self.requests = content, ["whole"], 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = outer.answers[min(outer.requests, len(outer.answers) - 1)]
                outer.requests += 1
                if answer.isdigit():
                    self.send_error(int(answer))
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(outer.content)))
                self.end_headers()
                self.wfile.write(outer.content if answer == "whole" else outer.content[:100])

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def published(self, published: Published, md5: str | None = None) -> Published:
        address = f"http://127.0.0.1:{self.http.server_port}/{published.address.rpartition('/')[2]}"
        return published._replace(address=address, md5=md5 or hashlib.md5(self.content).hexdigest())


def archived(published: Published) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files(published).items():
            entry = tarfile.TarInfo(f"{published.folder}/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server(archived(CIFAR10))
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


def visible(folder: Path) -> list[str]:
    """List what is in a folder but for the lock."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


@both
def test_it_is_downloaded_once(server: Server, tmp_path: Path, published: Published) -> None:
    server.content = archived(published)
    steps: list[tuple[int, int]] = []
    here = server.published(published)
    for _ in range(2):
        _, val = open_cifar(tmp_path / "new", here, 32, download=True, progress=lambda *step: steps.append(step))
        assert val.classes == tuple(NAMES[published])
    assert server.requests == 1
    assert steps[-1] == (len(server.content), len(server.content))
    assert visible(tmp_path / "new") == [published.folder]
    assert visible(tmp_path / "new" / published.folder) == sorted(files(published))


def test_nothing_is_downloaded_unless_told(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="set `download: true`"):
        open_cifar(tmp_path, server.published(CIFAR10), 32)
    assert server.requests == 0


def test_many_that_want_it_at_a_time_fetch_it_once(server: Server, tmp_path: Path) -> None:
    found: list[int] = []

    def fetch() -> None:
        found.append(len(open_cifar(tmp_path, server.published(CIFAR10), 32, download=True)[0]))

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [30] * 4
    assert server.requests == 1


def fetch(here: Published, folder: Path, retries: int = 0) -> None:
    archive, target = folder / "a.tar.gz", folder / here.folder
    fetch_folder(here.address, archive, target, here.val, checksum=f"md5:{here.md5}", retries=retries, backoff=0.001)


def test_another_archive_than_the_published_one_is_refused(server: Server, tmp_path: Path) -> None:
    here = server.published(CIFAR10, md5="0" * 32)
    with pytest.raises(InputError, match=r"its MD5 is \w{32}, but the archive published at http.* has 0{32}"):
        fetch(here, tmp_path, retries=3)
    assert visible(tmp_path) == []
    assert server.requests == 1


def test_a_passing_failure_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.answers = ["cut", "whole"]
    fetch(server.published(CIFAR10), tmp_path, retries=1)
    assert visible(tmp_path) == [CIFAR10.folder]
    assert server.requests == 2


def test_an_address_that_gives_nothing_is_named_with_what_to_do(server: Server, tmp_path: Path) -> None:
    server.answers = ["404"]
    with pytest.raises(InputError, match=r"cifar-10-binary\.tar\.gz: could not be downloaded.*404.*save it as .*gz"):
        fetch(server.published(CIFAR10), tmp_path)


def test_an_archive_put_there_is_used_if_it_is_the_published_one(server: Server, tmp_path: Path) -> None:
    here, archive = server.published(CIFAR10), tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(server.content[:-1])
    with pytest.raises(InputError, match=r"but the archive published at .* has .*damaged or another one; remove it"):
        open_cifar(tmp_path, here, 32)
    archive.write_bytes(server.content)
    assert len(open_cifar(tmp_path, here, 32)[1]) == 6
    assert server.requests == 0
    assert visible(tmp_path) == [CIFAR10.folder]


def test_a_folder_with_something_else_in_it_is_left_alone(server: Server, tmp_path: Path) -> None:
    (tmp_path / CIFAR10.folder).mkdir()
    (tmp_path / CIFAR10.folder / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"exists but does not contain data_batch_1\.bin.*; move it away"):
        open_cifar(tmp_path, server.published(CIFAR10), 32, download=True)
    assert (tmp_path / CIFAR10.folder / "mine.txt").read_text() == "mine"


def test_a_file_instead_of_a_folder_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; give a folder"):
        open_cifar(tmp_path / "file", server.published(CIFAR10), 32, download=True)


@pytest.mark.parametrize("content", [b"no archive", archived(CIFAR10)[:-9000], archived(CIFAR100)])
def test_an_archive_that_is_none_or_lacks_a_file_leaves_nothing_behind(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar.gz").write_bytes(content)
    md5 = hashlib.md5(content).hexdigest()
    here = CIFAR10._replace(address="http://nowhere", md5=md5)
    with pytest.raises(
        InputError, match=r"a\.tar\.gz: (is damaged or not an archive|does not contain .*test_batch\.bin)"
    ):
        fetch(here, tmp_path)
    assert visible(tmp_path) == ["a.tar.gz"]


def test_an_interrupted_download_leaves_nothing(server: Server, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_cifar(tmp_path, server.published(CIFAR10), 32, download=True, progress=interrupt)
    assert visible(tmp_path) == []


@both
def test_it_is_known_by_what_its_files_hold_wherever_they_are(tmp_path: Path, published: Published) -> None:
    field = "cifar10" if published is CIFAR10 else "cifar100"

    def fingerprint(folder: Path) -> Fingerprint:
        return take_fingerprint(list_task(Cifar.model_validate({field: str(folder)})), Hashes())[0]

    before = fingerprint(unpacked(tmp_path / "one", published))
    assert before.names == [*published.train, *published.val, published.names]
    unpacked(tmp_path / "two" / published.folder, published)
    assert difference(before, fingerprint(tmp_path / "two")) is None
    file = published.val[0]
    content = bytearray(files(published)[file])
    content[-1] ^= 1
    unpacked(tmp_path / "three", published, {file: bytes(content)})
    assert difference(before, fingerprint(tmp_path / "three")) == Difference([file], [], [])
    with pytest.raises(InputError, match="does not contain CIFAR"):
        fingerprint(tmp_path / "nowhere")
