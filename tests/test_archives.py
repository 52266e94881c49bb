"""Extracting an archive never writes outside the target folder, whatever the archive contains."""

from __future__ import annotations

import contextlib
import gzip
import io
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunescope.archives import damage, unpack
from prunescope.errors import InputError
from prunescope.files import replacing


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
    with pytest.raises(InputError, match=r"x\.zip: the entry .* nothing was extracted"):
        unpack(archive, tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    archive = write_zip(tmp_path / "x.zip", {"link": b"/etc"}, kind)
    with pytest.raises(InputError, match="is a link or a device"):
        unpack(archive, tmp_path / "folder")


@pytest.mark.parametrize("names", [["a", "a/"], ["a", "a/b"], ["a", "a/b/c"], ["a/b", "a"]])
def test_names_that_collide_are_refused(tmp_path: Path, names: list[str]) -> None:
    archive = write_zip(tmp_path / "x.zip", dict.fromkeys(names, b""))
    with pytest.raises(InputError, match="do not trust this archive"):
        unpack(archive, tmp_path / "folder")


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a", "one")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a", "two")
    with pytest.raises(InputError, match="two entries have the name"):
        unpack(tmp_path / "x.zip", tmp_path / "folder")


def test_a_damaged_entry_is_found(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "x.zip", {"a.txt": b"content of the file"})
    archive.write_bytes(archive.read_bytes().replace(b"content of", b"c0ntent of"))
    with pytest.raises(InputError, match=r"is damaged or not an archive .*CRC"):
        unpack(archive, tmp_path / "folder")


def test_a_file_that_is_not_an_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_text("<html>please log in</html>")
    with pytest.raises(InputError, match=r"x\.zip: is damaged or not an archive"):
        unpack(tmp_path / "x.zip", tmp_path / "folder")


def test_extracted_files_have_no_special_rights(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "x.zip", {"run": b"#!"}, stat.S_IFREG | stat.S_ISUID | 0o111)
    unpack(archive, tmp_path / "folder")
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
            unpack(archive, folder)
        everything = [path for path in Path(outside).rglob("*") if path.is_file()]
        assert all(path == archive or path.is_relative_to(folder) for path in everything)


def write_tar(path: Path, *entries: tuple[str, bytes, Mapping[str, object]]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content, fields in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            for field, value in fields.items():
                setattr(entry, field, value)
            archive.addfile(entry, io.BytesIO(content))
    return path


def test_a_tar_archive_is_extracted_without_rights_and_owners(tmp_path: Path) -> None:
    folder = {"type": tarfile.DIRTYPE}
    archive = write_tar(tmp_path / "x.tar.gz", ("a/b", b"", folder), ("a/b/run", b"#!", {"mode": 0o7777, "uid": 4000}))
    steps: list[tuple[int, int]] = []
    unpack(archive, tmp_path / "folder", lambda *step: steps.append(step))
    run = tmp_path / "folder" / "a" / "b" / "run"
    assert run.read_bytes() == b"#!"
    assert stat.S_IMODE(run.stat().st_mode) & 0o7111 == 0
    assert steps == [(2, 2)]


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("../out.txt", {}, "leads out of the folder"),
        ("/tmp/out.txt", {}, "has an absolute path"),
        ("a\\b", {}, "has an invalid name"),
        ("link", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "is a link or a device"),
        ("link", {"type": tarfile.LNKTYPE, "linkname": "good.txt"}, "is a link or a device"),
        ("pipe", {"type": tarfile.FIFOTYPE}, "is a link or a device"),
        ("device", {"type": tarfile.CHRTYPE}, "is a link or a device"),
    ],
)
def test_a_tar_archive_with_a_trick_is_refused_before_anything_is_written(
    tmp_path: Path, name: str, fields: Mapping[str, object], reason: str
) -> None:
    archive = write_tar(tmp_path / "x.tar.gz", ("good.txt", b"good", {}), (name, b"", fields))
    with pytest.raises(InputError, match=rf"x\.tar\.gz: the entry .* {reason}.*nothing was extracted"):
        unpack(archive, tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar.gz"]
    assert damage(archive) is None


def test_a_tar_entry_of_negative_size_is_refused(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("endless")
    entry.size = -512
    archive = tmp_path / "x.tar.gz"
    archive.write_bytes(gzip.compress(entry.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))
    with pytest.raises(InputError, match=r"'endless' has a negative size"):
        unpack(archive, tmp_path / "folder")


@pytest.mark.parametrize("limits", [{"most_bytes": 7}, {"most_entries": 1}])
@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_an_archive_beyond_the_limits_is_refused_before_anything_is_written(
    tmp_path: Path, suffix: str, limits: dict[str, int]
) -> None:
    path = tmp_path / f"x.{suffix}"
    if suffix == "zip":
        write_zip(path, {"a": b"four", "b": b"four"})
    else:
        write_tar(path, ("a", b"four", {}), ("b", b"four", {}))
    with pytest.raises(InputError, match=r"contains more than .* which is the limit; nothing was extracted"):
        unpack(path, tmp_path / "folder", **limits)
    assert not (tmp_path / "folder").exists()
    unpack(path, tmp_path / "folder", most_bytes=8, most_entries=2)


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_a_cut_archive_is_damaged(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    content = bytes(range(256)) * 100
    if suffix == "zip":
        write_zip(path, {"a": content})
    else:
        write_tar(path, ("a", content, {}))
    assert damage(path) is None
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert damage(path)
    with pytest.raises(InputError, match="is damaged or not an archive"):
        unpack(path, tmp_path / "folder")


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
@settings(max_examples=100, deadline=None)
@given(at=st.integers(0, 10_000), value=st.integers(0, 255), cut=st.booleans())
def test_a_changed_byte_is_an_input_error_at_worst(suffix: str, at: int, value: int, cut: bool) -> None:
    with tempfile.TemporaryDirectory() as outside:
        path = Path(outside, f"x.{suffix}")
        if suffix == "zip":
            write_zip(path, {"a/größe": b"content", "b": b"more"})
        else:
            write_tar(path, ("a/größe", b"content", {}), ("b", b"more", {"pax_headers": {"mtime": "1.5"}}))
        content = bytearray(path.read_bytes())
        at %= len(content)
        content[at] = value
        path.write_bytes(content[: at + 1] if cut else content)
        damage(path)
        with contextlib.suppress(InputError):
            unpack(path, Path(outside, "folder"))
