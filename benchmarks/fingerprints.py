"""Measure the cost of taking the fingerprint of a study's data.

    python benchmarks/fingerprints.py [--images 10000] [--kilobytes 100] [--files 100000]

The benchmark writes images of random bytes and a large number of empty files, a thousand per folder. It measures the
time to list the files, to hash them for the first time, to hash them again with the cached hashes, and to check them
for changes before the results of a stage are stored. The files have just been written and are read from memory; reading
them from a disk or a network takes longer.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from prunescope.fingerprints import difference, read_fingerprints, take_fingerprint, write_fingerprints
from prunescope.hashes import Hashes
from prunescope.listings import walk_files

T = TypeVar("T")


def main() -> None:
    """Parse the options, run the measurements and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--kilobytes", type=int, default=100)
    parser.add_argument("--files", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        images, empty, cache = Path(name) / "images", Path(name) / "empty", Path(name) / "cache"
        make(images, options.images, os.urandom(options.kilobytes * 1000))
        make(empty, options.files, b"")
        # Hashes of files that were written less than two seconds ago are not cached.
        time.sleep(2.1)
        print(f"{options.images:,} images of {options.kilobytes} kB")
        listing = timed("list names and sizes", lambda: walk_files(images))
        hashes = Hashes(cache)
        seconds = time.perf_counter()
        _, watch = timed("hash all", lambda: take_fingerprint(listing, hashes))
        seconds = time.perf_counter() - seconds
        megabytes = options.images * options.kilobytes / 1000
        print(f"    {megabytes / seconds:,.0f} MB/s, {options.images / seconds:,.0f} files/s")
        hashes.save()
        timed("hash again, unchanged", lambda: take_fingerprint(walk_files(images), Hashes(cache)))
        timed("look before results are kept", watch.difference)
        print(f"{options.files:,} empty files")
        listing = timed("list names and sizes", lambda: walk_files(empty))
        fingerprint, watch = timed("hash a sample", lambda: take_fingerprint(listing, Hashes(), all_content=False))
        record = Path(name) / "fingerprints.parquet"
        timed("write the record", lambda: write_fingerprints(record, {"task data": fingerprint}))
        print(f"    {record.stat().st_size / 1e6:.2f} MB")
        timed("read and compare", lambda: difference(read_fingerprints(record)["task data"], fingerprint))
        timed("look before results are kept", watch.difference)


def make(folder: Path, count: int, content: bytes) -> None:
    """Write files with names like those of ImageNet; all contents differ unless the files are empty."""
    for i in range(count):
        if i % 1000 == 0:
            (folder / f"n{i // 1000:08d}").mkdir(parents=True)
        file = folder / f"n{i // 1000:08d}" / f"n{i // 1000:08d}_{i}.JPEG"
        file.write_bytes(content and i.to_bytes(8, "little") + content[8:])


def timed(what: str, action: Callable[[], T]) -> T:
    """Run the action, print the time that it takes and return its result."""
    began = time.perf_counter()
    result = action()
    print(f"  {what:30} {time.perf_counter() - began:8.3f} s")
    return result


if __name__ == "__main__":
    main()
