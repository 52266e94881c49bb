"""Fingerprints of sets of files, by which a study detects that its data have changed.

A fingerprint depends on the names and contents of the files, but not on the folder that contains them.
"""

from __future__ import annotations

import hashlib
import os
import time
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prunescope.errors import InputError
from prunescope.files import replacing
from prunescope.progress import Progress, silent

HASHED = 10_000
"""The largest number of images of which all are hashed."""
SAMPLED = 1_000
"""The number of images that are hashed if there are more than `HASHED`, and of the blocks of a file above 1 GiB."""
_LARGE, _BLOCK = 1 << 30, 1 << 16
# Threads help, because reading small files from a network file system consists mostly of waiting.
_THREADS, _CHUNK = 8, 32
# On the file systems with the coarsest time stamps, two writes within this time (in ns) can leave the same time stamp.
_SETTLED = 2_000_000_000
_SECOND = 1_000_000_000

Digest = Callable[[str, int], str]
"""A function from a file's path and size (in bytes) to a digest of its content."""


class Listing(NamedTuple):
    """A list of files and the state in which they were found.

    Attributes
    ----------
    names
        The name of each file within the set: its path relative to the set's folder, with `/` as separator.
    paths
        The path of each file.
    states : int64 array [files, 4]
        The size in bytes, the times of the last change of the content (mtime) and of the metadata (ctime) in
        nanoseconds, and the inode number of each file.
    """

    names: list[str]
    paths: list[str]
    states: np.ndarray


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """The names, sizes and digests of a set of files.

    Attributes
    ----------
    names
        The names of the files, as in `Listing`. Bytes that are not UTF-8 are written as escapes.
    sizes : int64 array [files]
        The sizes in bytes.
    digests : S32 array [files]
        The digest of each file, which `digest_file` or another `Digest` computes: 32 hexadecimal digits. It is empty
        if the content was not read.
    """

    names: list[str]
    sizes: np.ndarray
    digests: np.ndarray

    @property
    def content(self) -> str:
        """A hash of the whole fingerprint: 32 hexadecimal digits."""
        digest = hashlib.sha256("\0".join(self.names).encode())
        digest.update(self.sizes.astype("<i8").tobytes())
        digest.update(self.digests.astype("S32").tobytes())
        return digest.hexdigest()[:32]


class Difference(NamedTuple):
    """The names of the files in which two fingerprints differ."""

    changed: list[str]
    added: list[str]
    removed: list[str]

    def __str__(self) -> str:
        """Return the number of changed, added and removed files, with the first few names of each."""
        kinds = zip(self._fields, self, strict=True)
        return "; ".join(f"{_counted(names)} {kind} ({_first(names)})" for kind, names in kinds if names)


def difference(before: Fingerprint, after: Fingerprint) -> Difference | None:
    """Return the files in which two fingerprints differ, or None if they agree.

    If only one of the fingerprints contains a file's digest, only the file's name and size are compared.
    """
    if before.names == after.names:
        unlike = _unlike(before, slice(None), after, slice(None))
        found = Difference([after.names[i] for i in np.flatnonzero(unlike)], [], [])
    else:
        places = {name: i for i, name in enumerate(before.names)}
        both = [(places[name], i) for i, name in enumerate(after.names) if name in places]
        ours = [i for _, i in both]
        unlike = _unlike(before, [i for i, _ in both], after, ours)
        there = set(after.names)
        found = Difference(
            [after.names[ours[i]] for i in np.flatnonzero(unlike)],
            [name for name in after.names if name not in places],
            [name for name in before.names if name not in there],
        )
    return found if any(found) else None


def list_files(files: Iterable[tuple[str, str]]) -> Listing:
    """Return the listing of the given files, each a pair of name and path. Missing files are left out."""
    names, paths, states = [], [], array("q")
    for name, path in files:
        if state := state_of(path):
            names.append(name)
            paths.append(path)
            states.extend(state)
    return Listing(names, paths, _as_table(states))


def walk_files(
    root: str | Path, folders: Sequence[str] = ("",), wanted: Callable[[str], bool] = bool, progress: Progress = silent
) -> Listing:
    """List the files of some folders and of all their subfolders, in one pass.

    Parameters
    ----------
    root
        The folder of the set. The names of the files are relative to it.
    folders
        The folders to list, relative to `root`. Missing folders are left out.
    wanted
        A function that returns whether a file belongs to the set, given the file's path relative to `root`.
    progress
        Called with the number of folders listed and the number of folders found so far.
    """
    names, paths, states = [], [], array("q")
    left, done = [*reversed(folders)], 0
    while left:
        folder = left.pop()
        within = []
        try:
            with os.scandir(os.path.join(root, folder)) as found:  # noqa: PTH118 - creating Path objects is too slow
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            entries = []
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            try:
                if entry.is_dir():
                    within.append(name)
                elif wanted(name):
                    states.extend(_state(entry.stat()))
                    names.append(name)
                    paths.append(entry.path)
            except OSError:  # The entry is a broken link, or the file has just been removed.
                continue
        left += reversed(within)
        done += 1
        progress(done, done + len(left))
    return Listing(names, paths, _as_table(states))


def state_of(path: str) -> tuple[int, int, int, int] | None:
    """Return a file's size, mtime, ctime and inode number as in `Listing`, or None if its state cannot be read."""
    try:
        # Creating a Path takes longer than os.stat itself, and there can be hundreds of thousands of files.
        return _state(os.stat(path))  # noqa: PTH116
    except OSError:
        return None


def digest_file(path: str, size: int) -> str:
    """Return the first 32 hexadecimal digits of the SHA-256 of a file's size and content.

    Of a file above 1 GiB, only the beginning, the end and 1,000 blocks of 64 KiB are read.
    """
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        if size <= _LARGE:
            while block := file.read(1 << 20):
                digest.update(block)
        else:
            blocks = size // _BLOCK
            for place in (0, *_sample(blocks), blocks):
                file.seek(place * _BLOCK)
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()[:32]


class Hashes:
    """A cache of file hashes, so that unchanged files need not be read again.

    A hash is looked up by the file's size, mtime, ctime and inode number, whatever the file's path. The system sets the
    ctime itself, so that the content cannot change while all of these stay the same. Hashes are not stored for files
    that had just been written, and for files with time stamps in whole seconds, as some file systems have for all
    files, because a further change might not show in their time stamps.

    Parameters
    ----------
    path
        The file that stores the cache. It may be missing, and a damaged one is ignored. If None, nothing is stored.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[bytes, bytes] = {}
        self._used: dict[bytes, bytes] = {}
        try:
            content = path.read_bytes() if path is not None else b""
        except OSError:
            content = b""
        check, rows = content[:32], content[32:]
        if hashlib.sha256(rows).digest() == check:
            records = np.frombuffer(rows, _RECORD)
            self._known = dict(zip(map(bytes, records["state"]), map(bytes, records["digest"]), strict=True))

    def find(self, state: Sequence[int]) -> bytes:
        """Return the hash of the file in this state, or an empty value if it is not known."""
        key = np.array(state, "<i8").tobytes()
        if found := self._known.get(key, b""):
            self._used[key] = found
        return found

    def add(self, state: Sequence[int], digest: bytes) -> None:
        """Store the hash of the file in this state, unless one of its time stamps is in whole seconds."""
        _size, modified, changed, _inode = state
        if changed % _SECOND and modified % _SECOND:
            self._used[np.array(state, "<i8").tobytes()] = digest

    def save(self) -> None:
        """Write the hashes that were found or added to the file. If that fails, they are computed again next time."""
        if self._path is None or self._used == self._known:
            return
        rows = b"".join(key + digest for key, digest in self._used.items())
        try:
            with replacing(self._path) as beside:
                beside.write_bytes(hashlib.sha256(rows).digest() + rows)
        except OSError:
            return


_RECORD = np.dtype([("state", "V32"), ("digest", "V32")])


class Watch:
    """Detects files that have changed since their fingerprint was taken, without reading the unchanged ones.

    Parameters
    ----------
    listing
        The files, in the states in which they were hashed.
    digests
        The digest of each file.
    digest
        The function that computed the digests.
    """

    def __init__(self, listing: Listing, digests: Sequence[bytes], digest: Digest) -> None:
        self._listing, self._digests, self._digest = listing, digests, digest

    def difference(self) -> Difference | None:
        """Return the files that have changed or are missing, or None if there are none.

        A file with new time stamps but the same content does not count as changed.
        """
        found = Difference([], [], [])
        names, paths, states = self._listing
        for i, path in enumerate(paths):
            state = state_of(path)
            if state is None:
                found.removed.append(names[i])
            elif state != tuple(states[i].tolist()):
                began = time.time_ns()
                try:
                    same = self._digest(path, state[0]).encode() == self._digests[i]
                except OSError:
                    same = False
                if same:
                    states[i] = state if _is_settled(state, began) else _UNKNOWN
                else:
                    found.changed.append(names[i])
        return found if any(found) else None


_UNKNOWN = (-1, -1, -1, -1)


def take_fingerprint(
    listing: Listing,
    hashes: Hashes,
    *,
    all_content: bool = True,
    digest: Digest = digest_file,
    progress: Progress = silent,
) -> tuple[Fingerprint, Watch]:
    """Compute the fingerprint of a set of files. Only files that are not in the cache of hashes are read.

    Parameters
    ----------
    listing
        The files.
    hashes
        The cache of hashes. Newly computed hashes are added to it.
    all_content
        Whether to hash all files. If False, all files are hashed if there are at most 10,000, and a random sample of
        1,000 files otherwise.
    digest
        The function that computes the hash of a file.
    progress
        Called with the number of files hashed and the number of files to hash.

    Returns
    -------
    Fingerprint
        The fingerprint of all files.
    Watch
        An object that detects later changes of the hashed files, or of a sample of 10,000 if there are more.

    Raises
    ------
    InputError
        If a file cannot be read.
    """
    count = len(listing.names)
    chosen = np.arange(count) if all_content or count <= HASHED else _sample(count)
    digests = np.zeros(count, "S32")
    states = listing.states.copy()
    unknown = []
    for i in chosen.tolist():
        if known := hashes.find(states[i].tolist()):
            digests[i] = known
        else:
            unknown.append(i)

    def read(places: Sequence[int]) -> list[tuple[int, bytes]]:
        # The time is taken before the file is read, so that a change during the reading is detected.
        return [(time.time_ns(), digest(listing.paths[i], int(states[i, 0])).encode()) for i in places]

    chunks = [unknown[first : first + _CHUNK] for first in range(0, len(unknown), _CHUNK)]
    done = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for places, made in zip(chunks, pool.map(read, chunks), strict=True):
                for i, (began, digests[i]) in zip(places, made, strict=True):
                    state = tuple(states[i].tolist())
                    if state == state_of(listing.paths[i]) and _is_settled(state, began):
                        hashes.add(state, digests[i])
                    else:
                        states[i] = _UNKNOWN
                done += len(places)
                progress(done, len(unknown))
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error
    watched = chosen if len(chosen) <= HASHED else chosen[_sample(len(chosen), HASHED)]
    of_them = Listing([listing.names[i] for i in watched], [listing.paths[i] for i in watched], states[watched])
    watch = Watch(of_them, digests[watched].tolist(), digest)
    return Fingerprint([_shown(name) for name in listing.names], listing.states[:, 0].copy(), digests), watch


def write_fingerprints(path: Path, parts: Mapping[str, Fingerprint]) -> None:
    """Write the fingerprints of several sets of files as one Parquet table.

    The table has the columns `part` (the name of the set), `file`, `size` and `digest`.
    """
    import pandas as pd

    rows = [
        pd.DataFrame(
            {
                "part": part,
                "file": fingerprint.names,
                "size": fingerprint.sizes,
                "digest": np.char.decode(fingerprint.digests, "ascii").tolist(),
            }
        )
        for part, fingerprint in parts.items()
    ]
    table = pd.concat(rows, ignore_index=True)
    with replacing(path) as beside:
        table.astype({"part": "category"}).to_parquet(beside, index=False)


def read_fingerprints(path: Path) -> dict[str, Fingerprint]:
    """Read the fingerprints that `write_fingerprints` wrote. The result is empty if there is no such file.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    import pandas as pd

    if not path.exists():
        return {}
    try:
        table = pd.read_parquet(path)
        return {
            str(part): Fingerprint(
                rows["file"].tolist(), rows["size"].to_numpy(np.int64), np.array(rows["digest"].tolist(), "S32")
            )
            for part, rows in table.groupby("part", sort=False, observed=True)
        }
    # For a damaged file, pyarrow raises errors of many types.
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read ({error}); it contains the fingerprints of the study's data. Restore it "
            "from a backup, or remove it to accept the data as they are now"
        ) from error


def _shown(name: str) -> str:
    """Return a name with the bytes that are not UTF-8 replaced by escapes."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _state(status: os.stat_result) -> tuple[int, int, int, int]:
    # Some file systems have inode numbers of more than 63 bits, which do not fit into int64.
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & (1 << 63) - 1


def _as_table(states: array[int]) -> np.ndarray:
    return np.array(states, np.int64).reshape(-1, 4)


def _is_settled(state: Sequence[int], began: int) -> bool:
    """Return whether a change of the file after `began` (nanoseconds since 1970) would change its time stamps."""
    return began - max(state[1], state[2]) > _SETTLED


def _sample(count: int, size: int = SAMPLED) -> np.ndarray:
    """Return at most `size` random indices below `count` in ascending order, always the same for the same count."""
    return np.sort(np.random.default_rng(0).choice(count, min(size, count), replace=False))


def _unlike(before: Fingerprint, there: slice | list[int], after: Fingerprint, here: slice | list[int]) -> np.ndarray:
    old, new = before.digests[there], after.digests[here]
    other = (old != new) & (old != b"") & (new != b"")
    unlike: np.ndarray = (before.sizes[there] != after.sizes[here]) | other
    return unlike


def _counted(names: Sequence[str]) -> str:
    return f"{len(names):,} file{'' if len(names) == 1 else 's'}"


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
