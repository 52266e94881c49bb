"""A fingerprint says what files hold and not where they are; hashes that are kept are never wrong."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import prunescope.fingerprints as module
import prunescope.hashes as hashes_module
from prunescope.errors import InputError
from prunescope.fingerprints import (
    Difference,
    Fingerprint,
    Watch,
    difference,
    read_fingerprints,
    take_fingerprint,
    write_fingerprints,
)
from prunescope.hashes import Hashes, digest_file
from prunescope.listings import list_files, walk_files

Taken = tuple[Fingerprint, Watch]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/deep/3.png"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    return tmp_path / "data"


def taken(folder: Path, hashes: Hashes | None = None, **options: bool) -> Taken:
    return take_fingerprint(walk_files(folder), hashes or Hashes(), **options)


def rewrite(path: Path, text: str, times: os.stat_result | None = None) -> None:
    """Write other content of the same size, with the times that the file had."""
    times = times or path.stat()
    assert len(text) == times.st_size
    path.write_text(text)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_moved_or_copied_folder_has_the_same_fingerprint(folder: Path, tmp_path: Path) -> None:
    before, _ = taken(folder)
    assert before.names == ["a/1.png", "a/2.png", "b/1.png", "b/deep/3.png"]
    copied = shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    moved = folder.rename(tmp_path / "moved")
    for other in (copied, moved):
        after, _ = taken(other)
        assert difference(before, after) is None
        assert after.content == before.content


def test_what_changed_was_added_or_removed_is_named(folder: Path) -> None:
    before, _ = taken(folder)
    rewrite(folder / "a" / "2.png", "CONTENT of a/2.png")
    after, _ = taken(folder)
    assert difference(before, after) == Difference(["a/2.png"], [], [])
    (folder / "b" / "1.png").unlink()
    (folder / "c.png").write_text("more")
    after, _ = taken(folder)
    assert difference(before, after) == Difference(["a/2.png"], ["c.png"], ["b/1.png"])
    assert after.content != before.content
    assert str(difference(before, after)) == (
        "1 file changed (a/2.png); 1 file added (c.png); 1 file removed (b/1.png)"
    )


def test_files_that_are_exchanged_are_noticed(folder: Path) -> None:
    before, _ = taken(folder)
    (folder / "a" / "1.png").rename(folder / "x")
    (folder / "a" / "2.png").rename(folder / "a" / "1.png")
    (folder / "x").rename(folder / "a" / "2.png")
    assert difference(before, taken(folder)[0]) == Difference(["a/1.png", "a/2.png"], [], [])


def test_of_many_files_a_sample_is_hashed_and_every_size_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HASHED", 20)
    monkeypatch.setattr(module, "sample", lambda count, size=5: np.arange(0, count, count // size))
    for i in range(40):
        (tmp_path / f"{i:02d}").write_text("x")
    before, _ = taken(tmp_path, all_content=False)
    assert (before.digests != b"").sum() == 5
    assert (taken(tmp_path)[0].digests != b"").all()
    (tmp_path / "01").write_text("longer")
    (tmp_path / "08").write_text("y")
    assert difference(before, taken(tmp_path, all_content=False)[0]) == Difference(["01", "08"], [], [])


def test_the_sample_of_a_large_file_is_of_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes_module, "_LARGE", 1 << 20)
    file, size = tmp_path / "large", 3 << 20
    content = bytearray(np.random.default_rng(0).bytes(size))
    file.write_bytes(content)
    before = digest_file(str(file), size)
    for place in (0, size // 2, size - 1):
        content[place] ^= 1
        file.write_bytes(content)
        assert digest_file(str(file), size) != before
        content[place] ^= 1


def test_kept_hashes_are_used_while_a_file_is_as_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes_module, "_SETTLED", -1 << 62)
    cache = tmp_path / "cache"
    hashes = Hashes(cache)
    before, _ = taken(folder, hashes)
    hashes.save()
    read: list[str] = []

    def reading(path: str, size: int) -> str:
        read.append(Path(path).relative_to(folder).as_posix())
        return digest_file(path, size)

    def again() -> Fingerprint:
        read.clear()
        return take_fingerprint(walk_files(folder), Hashes(cache), digest=reading)[0]

    assert difference(before, again()) is None
    assert read == []
    # Size and time of the content can be kept while the content changes, the time of the entry and the inode cannot.
    rewrite(folder / "a" / "1.png", "CONTENT of a/1.png")
    beside = tmp_path / "beside"
    times = (folder / "b" / "1.png").stat()
    beside.write_text("CONTENT of b/1.png")
    beside.replace(folder / "b" / "1.png")
    rewrite(folder / "b" / "1.png", "CONTENT of b/1.png", times)
    assert difference(before, again()) == Difference(["a/1.png", "b/1.png"], [], [])
    assert sorted(read) == ["a/1.png", "b/1.png"]


def test_hashes_of_files_that_were_just_written_are_not_kept(folder: Path, tmp_path: Path) -> None:
    hashes = Hashes(tmp_path / "cache")
    listing = walk_files(folder)
    take_fingerprint(listing, hashes)
    assert not any(hashes.find(state) for state in listing.states.tolist())


def test_hashes_of_files_with_times_in_whole_seconds_are_not_kept(tmp_path: Path) -> None:
    hashes = Hashes(tmp_path / "cache")
    for modified, changed, kept in ((1_000_000_000, 2_000_000_001, False), (5, 7_000_000_000, False), (5, 7, True)):
        state = (10, modified, changed, 1)
        hashes.add(state, b"0" * 32)
        hashes.save()
        assert bool(Hashes(tmp_path / "cache").find(state)) is kept


@pytest.mark.parametrize("damage", ["cut off", "a bit", "empty", "another file", "a folder"])
def test_a_damaged_cache_counts_as_absent_and_is_written_anew(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(hashes_module, "_SETTLED", -1 << 62)
    cache = tmp_path / "cache"
    hashes = Hashes(cache)
    before, _ = taken(folder, hashes)
    hashes.save()
    content = bytearray(cache.read_bytes())
    assert len(content) == 32 + 4 * 64
    if damage == "a folder":
        cache.unlink()
        cache.mkdir()
    else:
        content[-1] ^= 1
        cut = {"cut off": content[:100], "a bit": content, "empty": b"", "another file": b"%PDF" * 40}
        cache.write_bytes(cut[damage])
    hashes = Hashes(cache)
    listing = walk_files(folder)
    assert not any(hashes.find(state) for state in listing.states.tolist())
    assert difference(before, take_fingerprint(listing, hashes)[0]) is None
    hashes.save()
    assert cache.is_dir() or Hashes(cache).find(listing.states[0].tolist())


def test_a_watch_reads_only_what_was_touched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes_module, "_SETTLED", -1 << 62)
    read: list[str] = []

    def reading(path: str, size: int) -> str:
        read.append(path)
        return digest_file(path, size)

    _, watch = take_fingerprint(walk_files(folder), Hashes(), digest=reading)
    read.clear()
    os.utime(folder / "a" / "1.png")
    assert watch.difference() is None
    assert watch.difference() is None
    assert read == [str(folder / "a" / "1.png")]
    rewrite(folder / "a" / "2.png", "CONTENT of a/2.png")
    (folder / "b" / "1.png").unlink()
    assert watch.difference() == Difference(["a/2.png"], [], ["b/1.png"])


def test_a_watch_reads_files_again_that_were_just_written(folder: Path) -> None:
    read: list[str] = []

    def reading(path: str, size: int) -> str:
        read.append(path)
        return digest_file(path, size)

    listing = walk_files(folder)
    _, watch = take_fingerprint(listing, Hashes(), digest=reading)
    read.clear()
    assert watch.difference() is None
    assert read == listing.paths


def test_fingerprints_are_stored_and_read_as_they_are(folder: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(b"n\xe4me.png")
    (folder / odd).write_text("latin")
    first, _ = taken(folder)
    second, _ = take_fingerprint(list_files([("net.py", str(folder / "a" / "1.png"))]), Hashes())
    path = tmp_path / "fingerprints.parquet"
    write_fingerprints(path, {"task": first, "network": second})
    found = read_fingerprints(path)
    assert list(found) == ["task", "network"]
    for before, after in ((first, found["task"]), (second, found["network"])):
        assert difference(before, after) is None
        assert before.content == after.content
    assert read_fingerprints(tmp_path / "nothing") == {}
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"fingerprints\.parquet: cannot be read .* or remove it"):
        read_fingerprints(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "a" / "1.png").chmod(0)
    with pytest.raises(InputError, match=r"a/1\.png: cannot be read"):
        taken(folder)


def test_links_are_followed_and_those_to_nothing_left_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(folder)
    (folder / "gone.png").symlink_to(tmp_path / "nowhere")
    (folder / "z.png").symlink_to(folder / "a" / "1.png")
    seen: list[tuple[int, int]] = []
    listing = walk_files(tmp_path, ["linked"], lambda name: name.endswith("g"), lambda *done: seen.append(done))
    assert listing.names == [f"linked/{name}" for name in ("z.png", "a/1.png", "a/2.png", "b/1.png", "b/deep/3.png")]
    assert seen[-1] == (4, 4)
