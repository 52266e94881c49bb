"""Packing a data set: the same images and labels, faster, and never those of another state."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from safetensors.numpy import load_file

from prunescope.concepts import ConceptData, check_concepts, open_concepts, pack_concepts, packed_size, permute_labels
from prunescope.errors import InputError
from tests.concepts.small import Item, change, save_layer, two_images, write_concepts
from tests.concepts.test_broden import data_sets

GOLDEN = Path(__file__).parents[1] / "golden" / "dissection" / "concepts"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return two_images(tmp_path / "data")


def assert_same(found: ConceptData, expected: ConceptData) -> None:
    for i in range(len(expected)):
        np.testing.assert_array_equal(found.image(i), expected.image(i), strict=True)
        ours, theirs = found.image_labels(i), expected.image_labels(i)
        np.testing.assert_array_equal(ours.codes, theirs.codes, strict=True)
        np.testing.assert_array_equal(ours.starts, theirs.starts, strict=True)
        np.testing.assert_array_equal(ours.numbers, theirs.numbers, strict=True)


def packed(root: Path) -> ConceptData:
    """Pack, and open what was packed."""
    pack_concepts(root, workers=1)
    data = open_concepts(root)
    assert data.packed is not None
    return data


def left_in(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "packed").iterdir() if path.name != ".lock")


def test_the_golden_data_set_is_the_same_when_packed(tmp_path: Path) -> None:
    root = shutil.copytree(GOLDEN, tmp_path / "data")
    source = open_concepts(root)
    told = packed_size(root)
    seen: list[tuple[int, int]] = []
    path = pack_concepts(root, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert path.stat().st_size == told
    assert seen == [(48, 48)]
    assert open_concepts(root).packed is not None
    assert_same(open_concepts(root), source)
    assert_same(permute_labels(open_concepts(root), 3), permute_labels(source, 3))


@settings(max_examples=40, deadline=None)
@given(data_sets())
def test_any_data_set_is_the_same_when_packed(
    content: tuple[list[dict[str, list[Item]]], dict[int, str], tuple[int, int]],
) -> None:
    images, labels, size = content
    with tempfile.TemporaryDirectory() as name:
        root = write_concepts(Path(name), images, labels, image_size=(size[1], 3), label_size=size)
        source = open_concepts(root)
        told = packed_size(root)
        assert_same(packed(root), source)
        assert pack_concepts(root).stat().st_size == told


@pytest.mark.parametrize("rows", [256, 257, 65537])
def test_palettes_of_any_size_are_the_same_when_packed(tmp_path: Path, rows: int) -> None:
    place = np.arange(260 * 260).reshape(260, 260) % rows
    labels = dict.fromkeys(range(1, 261), "part")
    layers = [place % 260 + 1, place // 260 + 1]
    root = write_concepts(tmp_path, [{"part": layers}, {}], labels, label_size=(260, 260))
    source = open_concepts(root)
    assert len(source.image_labels(0).starts) == rows + 1
    assert_same(packed(root), source)


def test_once_opened_a_packed_copy_needs_no_other_file(folder: Path) -> None:
    data = packed(folder)
    expected = [read(data, i) for i in range(2)]
    shutil.rmtree(folder / "images")
    assert [read(data, i) for i in range(2)] == expected


def test_a_packed_copy_is_a_safetensors_file(folder: Path) -> None:
    source = open_concepts(folder)
    arrays = load_file(pack_concepts(folder))
    np.testing.assert_array_equal(arrays["images"], np.stack([source.image(0), source.image(1)]))


def edit_layer(root: Path) -> None:
    save_layer(root / "images" / "made" / "0_object0.png", np.ones((3, 4), dtype=int))


def edit_in_place(root: Path) -> None:
    path = root / "images" / "made" / "0.png"
    path.write_bytes(path.read_bytes())


def add_a_row(root: Path) -> None:
    with (root / "index.csv").open("a") as file:
        file.write("made/copy.png,val,6,8,3,4,1,7,\n")
    shutil.copy(root / "images" / "made" / "0.png", root / "images" / "made" / "copy.png")


def remove_a_row(root: Path) -> None:
    lines = (root / "index.csv").read_text().splitlines()
    (root / "index.csv").write_text("\n".join(lines[:-1]))


def exchange_rows(root: Path) -> None:
    header, *lines = (root / "index.csv").read_text().splitlines()
    (root / "index.csv").write_text("\n".join([header, *lines[::-1]]))


def relabel(root: Path) -> None:
    change(root / "index.csv", ",7,", ",1,")


CHANGES = [edit_layer, edit_in_place, add_a_row, remove_a_row, exchange_rows, relabel]


@pytest.mark.parametrize("edit", CHANGES)
def test_a_changed_source_is_noticed_and_read_itself_until_it_is_packed_again(
    folder: Path, edit: Callable[[Path], None]
) -> None:
    before = pack_concepts(folder)
    edit(folder)
    with pytest.warns(UserWarning, match=f"prunescope concepts pack {folder}`; until then the files themselves"):
        data = open_concepts(folder)
    assert data.packed is None
    assert pack_concepts(folder) == before
    assert_same(packed(folder), data)


def test_a_missing_image_is_noticed(folder: Path) -> None:
    pack_concepts(folder)
    (folder / "images" / "made" / "1.png").unlink()
    with pytest.warns(UserWarning, match="pack it again"):
        data = open_concepts(folder)
    with pytest.raises(InputError, match="no such file"):
        data.image(1)


def test_a_new_name_for_a_concept_needs_no_new_copy(folder: Path) -> None:
    pack_concepts(folder)
    change(folder / "label.csv", "concept7", "harbour")
    data = open_concepts(folder)
    assert data.packed is not None
    assert data.labels.loc[7, "name"] == "harbour"


def test_packing_what_is_packed_does_nothing(folder: Path) -> None:
    path = pack_concepts(folder)
    before = path.stat()
    pack_concepts(folder)
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_checking_ignores_the_packed_copy(folder: Path) -> None:
    pack_concepts(folder).write_bytes(b"damaged")
    assert check_concepts(folder).problems == ()


def read(data: ConceptData, i: int) -> tuple[int, int]:
    labels = data.image_labels(i)
    return int(data.image(i).sum()), int(labels.numbers.sum() + labels.codes.sum())


def test_a_packed_copy_is_read_by_other_processes_and_pickles_small(folder: Path) -> None:
    data = packed(folder)
    assert len(pickle.dumps(data)) < 10_000
    expected = [read(data, i) for i in range(2)]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as processes:
        assert list(processes.map(read, [data, permute_labels(data, 0)], [1, 0])) == [
            expected[1],
            read(permute_labels(data, 0), 0),
        ]


def test_a_copy_that_was_replaced_meanwhile_is_not_mistaken_for_the_pickled_one(folder: Path) -> None:
    sent = pickle.dumps(packed(folder))
    edit_layer(folder)
    pack_concepts(folder)
    with pytest.raises(InputError, match="not packed from the files as they are now"):
        pickle.loads(sent)


def pack_and_read(root: Path) -> tuple[int, list[tuple[int, int]]]:
    inode = pack_concepts(root, workers=1).stat().st_ino
    data = open_concepts(root)
    assert data.packed is not None
    return inode, [read(data, i) for i in range(len(data))]


def test_processes_that_pack_and_read_at_once_share_one_copy(tmp_path: Path) -> None:
    root = shutil.copytree(GOLDEN, tmp_path / "data")
    source = open_concepts(root)
    expected = [read(source, i) for i in range(len(source))]
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as processes:
        results = list(processes.map(pack_and_read, [root] * 4))
    assert len({inode for inode, _ in results}) == 1
    assert all(found == expected for _, found in results)
    assert left_in(root) == ["concepts.safetensors"]


# A process of its own, as a command is one: killed as soon as some images are packed.
_KILLED = """
import os, signal, sys
from prunescope.concepts import pack_concepts
pack_concepts(sys.argv[1], workers=int(sys.argv[2]), progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_pack_leaves_nothing_that_looks_finished_and_the_next_one_cleans_up(
    tmp_path: Path, workers: int
) -> None:
    root = write_concepts(tmp_path, [{"object": [1]}] * 150, {1: "object"})
    command = [sys.executable, "-c", _KILLED, str(root), str(workers)]
    # Its output ends when the last of its processes does: none may stay behind.
    killed = subprocess.run(command, stdout=subprocess.PIPE, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(left_in(root)) == 1
    assert left_in(root) != ["concepts.safetensors"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_concepts(root).packed is None
    packed(root)
    assert left_in(root) == ["concepts.safetensors"]


def test_an_interrupt_leaves_nothing(folder: Path) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_concepts(folder, progress=interrupt)
    assert left_in(folder) == []


def test_a_data_set_that_changes_while_it_is_packed_is_not_packed(folder: Path) -> None:
    with pytest.raises(InputError, match="changed while they were packed"):
        pack_concepts(folder, progress=lambda *_: edit_layer(folder))
    assert left_in(folder) == []


def test_what_cannot_be_read_is_named_and_not_packed(folder: Path) -> None:
    path = folder / "images" / "made" / "1_object0.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=r"1_object0\.png: cannot be read"):
        pack_concepts(folder, workers=2)
    assert left_in(folder) == []


@pytest.mark.parametrize("kind", ["a file", "a link", "forbidden"])
def test_a_folder_that_cannot_hold_the_copy_is_named(folder: Path, tmp_path: Path, kind: str) -> None:
    if kind == "a file":
        (folder / "packed").write_text("")
    elif kind == "a link":
        (folder / "packed").symlink_to(tmp_path)
    elif os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    else:
        folder.chmod(0o500)
    with pytest.raises(InputError, match="packed: "):
        pack_concepts(folder)


def test_the_size_told_beforehand_is_hardly_more_than_the_actual_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images: list[dict[str, list[Item]]] = [
        {"part": [rng.integers(0, rng.integers(1, 60), (6, 6)) for _ in range(rng.integers(0, 4))]} for _ in range(300)
    ]
    root = write_concepts(tmp_path, images, dict.fromkeys(range(1, 60), "part"), label_size=(6, 6))
    told = packed_size(root)
    actual = pack_concepts(root).stat().st_size
    assert actual <= told < 1.15 * actual


@pytest.mark.parametrize("length", [0, 7, 4200, -1])
def test_a_truncated_copy_is_not_used(folder: Path, length: int) -> None:
    path = pack_concepts(folder)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.warns(UserWarning, match="pack it again"):
        assert open_concepts(folder).packed is None
    assert_same(packed(folder), open_concepts(folder))


@settings(max_examples=60, deadline=None)
@given(data_sets())
def test_whatever_is_damaged_labels_never_point_beyond_their_palette(
    content: tuple[list[dict[str, list[Item]]], dict[int, str], tuple[int, int]],
) -> None:
    images, labels, size = content
    rng = np.random.default_rng(size)
    with tempfile.TemporaryDirectory() as name:
        root = write_concepts(Path(name), images, labels, image_size=(1, 1), label_size=size)
        path = pack_concepts(root, workers=1)
        raw = bytearray(path.read_bytes())
        for at in rng.integers(4096, len(raw), 3):
            raw[at] = rng.integers(256)
        path.write_bytes(raw)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = open_concepts(root)
        for i in range(len(data)):
            try:
                found = data.image_labels(i)
            except InputError:
                continue
            assert found.codes.shape == size
            assert found.codes.max() < len(found.starts) - 1
            assert (np.diff(found.starts) >= 0).all()
            assert (found.starts[0], found.starts[-1]) == (0, len(found.numbers))


def outcome(root: Path, expected: ConceptData) -> str:
    """Say how a packed copy, damaged or not, is read: the same, with a warning, or refused with its name."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            assert_same(open_concepts(root), expected)
        except InputError as error:
            named = re.search(r"concepts\.safetensors: .*image \d .* is damaged .*pack it again", str(error))
            return "refused" if named else str(error)
    return "warned" if told else "same"


def test_whichever_byte_is_damaged_the_data_are_right_or_refused(folder: Path) -> None:
    source = open_concepts(folder)
    path = pack_concepts(folder, workers=1)
    raw = path.read_bytes()
    rng = np.random.default_rng(0)
    ways = []
    for at in [*range(0, 400, 9), *rng.integers(0, 4096, 20), *range(4096, len(raw), 9)]:
        damaged = bytearray(raw)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        ways.append(outcome(folder, source))
    assert "same" not in ways
    assert set(ways) == {"warned", "refused"}
    for content in (raw[:-1], raw[:-8], raw[:4500], raw + bytes(1), raw + raw[-40:], raw[:4096] + raw[4104:], b""):
        path.write_bytes(content)
        assert outcome(folder, source) == "warned"
    path.write_bytes(raw)
    assert outcome(folder, source) == "same"


def test_packing_again_mends_a_damaged_copy(folder: Path) -> None:
    source = open_concepts(folder)
    path = pack_concepts(folder)
    raw = bytearray(path.read_bytes())
    raw[4100] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match=f"{path}: image 0 .*is damaged.*`prunescope concepts pack {folder}`"):
        open_concepts(folder).image(0)
    pack_concepts(folder)
    assert outcome(folder, source) == "same"


def test_a_copy_of_an_older_version_is_not_used_and_packed_anew(folder: Path) -> None:
    source = open_concepts(folder)
    path = pack_concepts(folder)
    path.write_bytes(path.read_bytes().replace(b"prunescope concepts 2", b"prunescope concepts 1"))
    assert outcome(folder, source) == "warned"
    pack_concepts(folder)
    assert outcome(folder, source) == "same"


def test_the_header_of_another_copy_does_not_fit(folder: Path, tmp_path: Path) -> None:
    source, path = open_concepts(folder), pack_concepts(folder)
    other = pack_concepts(two_images(tmp_path / "other"))
    path.write_bytes(other.read_bytes()[:4096] + path.read_bytes()[4096:])
    assert outcome(folder, source) == "warned"


def sealed(raw: bytearray, images: int) -> bytes:
    """Give what was changed on purpose the checksums that fit."""
    head = json.loads(raw[8:4096])
    begins = {name: 4096 + entry["data_offsets"][0] for name, entry in head.items() if name != "__metadata__"}
    spans = np.frombuffer(raw, "<i8", 4 * images, begins["spans"]).reshape(images, 4)
    for i, (first, length, *_) in enumerate(spans.tolist()):
        if 0 <= first < len(raw) and 0 <= length < len(raw):
            record = raw[begins["labels"] + 4 * first :][: 4 * length]
            struct.pack_into("<I", raw, begins["checksums"] + 8 * i + 4, zlib.crc32(record))
    tail = f"{zlib.crc32(raw[begins['spans'] :]):08x}".encode()
    return bytes(raw[:4096]).replace(head["__metadata__"]["tail"].encode(), tail) + bytes(raw[4096:])


@pytest.mark.parametrize("column", range(4))
@pytest.mark.parametrize("value", [-1, 2, 2**31, 2**62])
def test_whatever_a_span_claims_nothing_beyond_the_labels_is_read(folder: Path, column: int, value: int) -> None:
    path = pack_concepts(folder)
    raw = bytearray(path.read_bytes())
    struct.pack_into("<q", raw, len(raw) - 2 * 40 + 8 * column, value)
    path.write_bytes(sealed(raw, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data = open_concepts(folder)
            labels = data.image_labels(0)
        except InputError as error:
            assert "pack it again" in str(error)  # noqa: PT017 - one of the two, by the value
        else:
            assert data.packed is None or labels.codes.max() < len(labels.starts) - 1


def test_a_number_that_label_csv_does_not_define_is_refused_even_with_its_checksum(folder: Path) -> None:
    path = pack_concepts(folder)
    raw = bytearray(path.read_bytes())
    path.write_bytes(sealed(raw.replace(struct.pack("<i", 300), struct.pack("<i", 301)), 2))
    data = open_concepts(folder)
    assert data.packed is not None
    for _ in range(2):
        with pytest.raises(InputError, match=r"the labels of image 0 .*is damaged"):
            data.image_labels(0)


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a link to nothing"])
def test_what_is_no_file_is_not_used(folder: Path, kind: str) -> None:
    source = open_concepts(folder)
    path = folder / "packed" / "concepts.safetensors"
    path.parent.mkdir()
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("nothing")
    assert outcome(folder, source) == ("same" if kind == "a link to nothing" else "warned")


# Run where mounting is allowed: pack onto a file system of so many bytes, and say how that ended and what it left.
_ON_A_SMALL_DISK = """
import subprocess, sys
from pathlib import Path
from prunescope.concepts import pack_concepts
root, size = Path(sys.argv[1]), sys.argv[2]
(root / "packed").mkdir()
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(root / "packed")], check=True)
try:
    pack_concepts(root, workers=2)
except OSError as error:
    print("errno", error.errno, sorted(path.name for path in (root / "packed").iterdir()))
else:
    print("packed")
"""


@pytest.mark.parametrize("room", ["for nothing", "for the images", "for all"])
def test_a_full_disk_is_an_error_that_leaves_nothing(tmp_path: Path, room: str) -> None:
    try:
        subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting is not permitted here")
    rng = np.random.default_rng(0)
    images: list[dict[str, list[Item]]] = [{"part": [rng.integers(0, 60, (64, 64))]} for _ in range(20)]
    root = write_concepts(tmp_path, images, dict.fromkeys(range(1, 60), "part"), (64, 64), (64, 64))
    told = packed_size(root)
    size = {"for nothing": 64 << 10, "for the images": told // 4096 * 4096 - 8192, "for all": told + 8192}[room]
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", _ON_A_SMALL_DISK, str(root), str(size)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    expected = "packed" if room == "for all" else f"errno {errno.ENOSPC} ['.lock']"
    assert done.stdout.strip() == expected
