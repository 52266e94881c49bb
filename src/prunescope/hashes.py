"""Hashes of the contents of files, and a cache of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from prunescope.files import read_file, replacing

SAMPLED = 1_000
"""The number of images that are hashed if there are more than `HASHED`, and of the blocks of a file above 1 GiB."""
_LARGE, _BLOCK = 1 << 30, 1 << 16
# On the file systems with the coarsest time stamps, two writes within this time (in ns) can leave the same time stamp.
_SETTLED = 2_000_000_000
_SECOND = 1_000_000_000

Digest = Callable[[str, int], str]
"""A function from a file's path and size (in bytes) to a digest of its content."""


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
            for index in (0, *sample(blocks), blocks):
                file.seek(index * _BLOCK)
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
            content = read_file(path) if path is not None else b""
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


def is_settled(state: Sequence[int], began: int) -> bool:
    """Return whether a change of the file after `began` (nanoseconds since 1970) would change its time stamps."""
    return began - max(state[1], state[2]) > _SETTLED


def sample(count: int, size: int = SAMPLED) -> np.ndarray:
    """Return at most `size` random indices below `count` in ascending order, always the same for the same count."""
    return np.sort(np.random.default_rng(0).choice(count, min(size, count), replace=False))
