"""Fingerprints of sets of files: what the files hold, whatever folder they are in."""

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
"""Up to so many images are hashed, all of them."""
SAMPLED = 1_000
"""Of more images, so many are hashed; of files above 1 GiB, so many blocks."""
_LARGE, _BLOCK = 1 << 30, 1 << 16
# Reading small files from a network file system is mostly waiting.
_THREADS, _CHUNK = 8, 32
# Within this time a file may be written again without a change of its time stamps, on the coarsest file systems.
_SETTLED = 2_000_000_000
_SECOND = 1_000_000_000

Digest = Callable[[str, int], str]
"""Maps a file's path and size to what identifies its content."""


class Listing(NamedTuple):
    """Some files and the state they are in.

    Attributes
    ----------
    names
        What each file is called within the set: its path below the set's folder, with `/`.
    paths
        Where each file is.
    states : int64 array [files, 4]
        Size in bytes, time of change of the content and of the file's entry (in nanoseconds), and inode.
    """

    names: list[str]
    paths: list[str]
    states: np.ndarray


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What a set of files holds.

    Attributes
    ----------
    names
        As in `Listing`; what is not UTF-8 is written with escapes.
    sizes : int64 array [files]
        In bytes.
    digests : S32 array [files]
        The first 32 hexadecimal digits of the content's SHA-256; empty where the content was not read.
    """

    names: list[str]
    sizes: np.ndarray
    digests: np.ndarray

    @property
    def content(self) -> str:
        """All of it in 32 hexadecimal digits."""
        digest = hashlib.sha256("\0".join(self.names).encode())
        digest.update(self.sizes.astype("<i8").tobytes())
        digest.update(self.digests.astype("S32").tobytes())
        return digest.hexdigest()[:32]


class Difference(NamedTuple):
    """The files in which two fingerprints differ, by name."""

    changed: list[str]
    added: list[str]
    removed: list[str]

    def __str__(self) -> str:
        """Name the first few of each kind."""
        kinds = zip(self._fields, self, strict=True)
        return "; ".join(f"{_counted(names)} {kind} ({_first(names)})" for kind, names in kinds if names)


def difference(before: Fingerprint, after: Fingerprint) -> Difference | None:
    """Compare two fingerprints; None if they are of the same content.

    Where only one of them has read a file's content, the file's name and size are compared.
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
    """Ask for the state of files that are known by name and path; those that are not there are left out."""
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
    """List the files in folders and in all folders within them, in one pass.

    Parameters
    ----------
    root
        Names begin below it.
    folders
        Of `root`; those that are not there are left out.
    wanted
        Says of a file's name, with the folders before it, whether the file belongs to the set.
    progress
        Called with the number of folders that are listed, and of those known so far.
    """
    names, paths, states = [], [], array("q")
    left, done = [*reversed(folders)], 0
    while left:
        folder = left.pop()
        within = []
        try:
            with os.scandir(os.path.join(root, folder)) as found:  # noqa: PTH118 - a Path a file takes too long
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
            except OSError:  # A link to nothing, or a file that has just been removed.
                continue
        left += reversed(within)
        done += 1
        progress(done, done + len(left))
    return Listing(names, paths, _as_table(states))


def state_of(path: str) -> tuple[int, int, int, int] | None:
    """Return a file's size, its two times of change and its inode; None if there is no such file."""
    try:
        # Not a Path: making one takes longer than asking for the file's state, and there are hundreds of thousands.
        return _state(os.stat(path))  # noqa: PTH116
    except OSError:
        return None


def digest_file(path: str, size: int) -> str:
    """Hash a file: all of it up to 1 GiB; of a larger one its beginning, its end and 1,000 blocks between them."""
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
    """The hashes of files as they were found earlier, so that files that did not change are not read again.

    A hash is found again by the file's inode, size and times of change, whatever its path: time stamps are given by
    the system and cannot be kept while the content changes. Hashes of files that had been written just before, and of
    files whose times are whole seconds (on some file systems they all are), are not kept.

    Parameters
    ----------
    path
        A file that need not be there. One that is damaged counts as absent; None keeps nothing.
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
        """Return the hash of a file in this state; empty if it is not known."""
        key = np.array(state, "<i8").tobytes()
        if found := self._known.get(key, b""):
            self._used[key] = found
        return found

    def add(self, state: Sequence[int], digest: bytes) -> None:
        """Keep the hash of a file that is in this state, unless its times are whole seconds."""
        _size, modified, changed, _inode = state
        if changed % _SECOND and modified % _SECOND:
            self._used[np.array(state, "<i8").tobytes()] = digest

    def save(self) -> None:
        """Write down the hashes that were found or added; where that is not possible they are made anew next time."""
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
    """Notices that files change after their fingerprint was taken, without reading those that did not.

    Parameters
    ----------
    listing
        The files, in the states in which they were hashed.
    digests
        Of each file.
    digest
        What made them.
    """

    def __init__(self, listing: Listing, digests: Sequence[bytes], digest: Digest) -> None:
        self._listing, self._digests, self._digest = listing, digests, digest

    def difference(self) -> Difference | None:
        """Compare the files as they are now; one that was touched but holds the same is not different."""
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
    """Take the fingerprint of files, reading those whose hash is not known yet.

    Parameters
    ----------
    listing
        The files.
    hashes
        What is known of them; what is found is added.
    all_content
        Hash all files. If false, all of 10,000, and a sample of 1,000 of more.
    digest
        Makes a hash.
    progress
        Called with the number of files that are hashed and of those to hash.

    Returns
    -------
    Fingerprint, Watch
        The watch is of at most 10,000 of the files that were hashed.

    Raises
    ------
    InputError
        A file cannot be read.
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
        # The time comes first: a change while the file is read has to show.
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
    """Write the fingerprints of several sets of files as one table, which holds the names of the files."""
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
    """Read what `write_fingerprints` wrote; nothing if there is no such file.

    Raises
    ------
    InputError
        The file is damaged.
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
    # What pyarrow raises for a damaged file is of many types.
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read ({error}); it holds the fingerprints of the study's data. Put it back from a "
            "copy, or remove it: then the data are taken as they are now"
        ) from error


def _shown(name: str) -> str:
    """Write a name that is not UTF-8 with escapes."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _state(status: os.stat_result) -> tuple[int, int, int, int]:
    # Some file systems number their files with more than 63 bits.
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & (1 << 63) - 1


def _as_table(states: array[int]) -> np.ndarray:
    return np.array(states, np.int64).reshape(-1, 4)


def _is_settled(state: Sequence[int], began: int) -> bool:
    """Say whether a change of the file after `began`, in nanoseconds since 1970, would show in its times."""
    return began - max(state[1], state[2]) > _SETTLED


def _sample(count: int, size: int = SAMPLED) -> np.ndarray:
    """Choose places at random, the same ones for the same count."""
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
