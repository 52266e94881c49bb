"""Lists of files with the states in which they were found."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prunescope.progress import Progress, silent


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


def _state(status: os.stat_result) -> tuple[int, int, int, int]:
    # Some file systems have inode numbers of more than 63 bits, which do not fit into int64.
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & (1 << 63) - 1


def _as_table(states: array[int]) -> np.ndarray:
    return np.array(states, np.int64).reshape(-1, 4)
