"""Fingerprints of sets of files, by which a study detects that its data have changed.

A fingerprint depends on the names and contents of the files, but not on the folder that contains them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prunescope.errors import InputError
from prunescope.files import replacing
from prunescope.hashes import Digest, Hashes, digest_file, is_settled, sample
from prunescope.listings import Listing, state_of
from prunescope.progress import Progress, silent
from prunescope.reading import read_parquet

HASHED = 10_000
"""The largest number of images of which all are hashed."""
# Threads help, because reading small files from a network file system consists mostly of waiting.
_THREADS, _CHUNK = 8, 32


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
        indices = {name: i for i, name in enumerate(before.names)}
        both = [(indices[name], i) for i, name in enumerate(after.names) if name in indices]
        ours = [i for _, i in both]
        unlike = _unlike(before, [i for i, _ in both], after, ours)
        there = set(after.names)
        found = Difference(
            [after.names[ours[i]] for i in np.flatnonzero(unlike)],
            [name for name in after.names if name not in indices],
            [name for name in before.names if name not in there],
        )
    return found if any(found) else None


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
                    states[i] = state if is_settled(state, began) else _UNKNOWN
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
    chosen = np.arange(count) if all_content or count <= HASHED else sample(count)
    digests = np.zeros(count, "S32")
    states = listing.states.copy()
    unknown = []
    for i in chosen.tolist():
        if known := hashes.find(states[i].tolist()):
            digests[i] = known
        else:
            unknown.append(i)

    def read(indices: Sequence[int]) -> list[tuple[int, bytes]]:
        # The time is taken before the file is read, so that a change during the reading is detected.
        return [(time.time_ns(), digest(listing.paths[i], int(states[i, 0])).encode()) for i in indices]

    chunks = [unknown[first : first + _CHUNK] for first in range(0, len(unknown), _CHUNK)]
    done = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for indices, made in zip(chunks, pool.map(read, chunks), strict=True):
                for i, (began, digests[i]) in zip(indices, made, strict=True):
                    state = tuple(states[i].tolist())
                    if state == state_of(listing.paths[i]) and is_settled(state, began):
                        hashes.add(state, digests[i])
                    else:
                        states[i] = _UNKNOWN
                done += len(indices)
                progress(done, len(unknown))
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error
    watched = chosen if len(chosen) <= HASHED else chosen[sample(len(chosen), HASHED)]
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
    advice = (
        "it contains the fingerprints of the study's data. Restore it from a backup, or remove it to accept the data "
        "as they are now"
    )
    if not path.exists():
        return {}
    table = read_parquet(path, advice)
    try:
        for column in ("file", "digest"):
            if not all(isinstance(cell, str) for cell in table[column]):
                raise TypeError(f"{column} contains values that are not text")
        return {
            str(part): Fingerprint(
                rows["file"].tolist(), rows["size"].to_numpy(np.int64), np.array(rows["digest"].tolist(), "S32")
            )
            for part, rows in table.groupby("part", sort=False, observed=True)
        }
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {advice}") from error


def _shown(name: str) -> str:
    """Return a name with the bytes that are not UTF-8 replaced by escapes."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _unlike(before: Fingerprint, there: slice | list[int], after: Fingerprint, here: slice | list[int]) -> np.ndarray:
    old, new = before.digests[there], after.digests[here]
    other = (old != new) & (old != b"") & (new != b"")
    unlike: np.ndarray = (before.sizes[there] != after.sizes[here]) | other
    return unlike


def _counted(names: Sequence[str]) -> str:
    return f"{len(names):,} file{'' if len(names) == 1 else 's'}"


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
