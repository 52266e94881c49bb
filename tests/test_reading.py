"""Whatever a file contains in place of what is expected, one error names it; pipes and devices are not waited for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from prunescope.dissection.examples import EXAMPLES, read_examples
from prunescope.dissection.layer_files import read_summary, read_units, refuse_other
from prunescope.errors import InputError
from prunescope.fingerprints import read_fingerprints
from prunescope.hashes import Hashes
from prunescope.reading import read_arrays, read_json, read_parquet
from prunescope.store.measured import read_measured
from prunescope.store.reading import read_recipe
from prunescope.user_code import import_function

READERS: dict[str, Callable[[Path], object]] = {
    "JSON": lambda path: read_json(path, "do this"),
    "parquet": lambda path: read_parquet(path, "do this"),
    "safetensors": lambda path: read_arrays(path, "do this"),
    "measured": lambda path: read_measured(path, 0, 0),
    "fingerprints": read_fingerprints,
    "recipe": read_recipe,
    "python": lambda path: import_function(path, "net"),
    "summary": lambda path: read_summary(path.parent, ""),
    "units": lambda path: read_units(path.parent, ""),
}
NAMES = {"recipe": "given.yaml", "python": "given.py", "summary": "summary.json", "units": "units.parquet"}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "rubbish", "nested"])
def test_what_cannot_be_read_is_named(tmp_path: Path, reader: str, kind: str) -> None:
    path = tmp_path / NAMES.get(reader, "given")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"\xff\0\x01" * 1000 if kind == "rubbish" else b"[" * 100_000)
    with pytest.raises(InputError) as caught:
        READERS[reader](path)
    assert str(path) in str(caught.value)


def test_a_cache_of_hashes_that_is_a_pipe_is_ignored(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cache")
    assert Hashes(tmp_path / "cache").find((1, 2, 3, 4)) == b""


@pytest.mark.parametrize("content", ["null", "[1]", "5", "{}", '{"settings": null}', '{"settings": [1]}'])
def test_a_summary_without_settings_is_named_before_it_would_be_overwritten(tmp_path: Path, content: str) -> None:
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(InputError, match=r"summary\.json.*give another --out"):
        refuse_other(tmp_path, "", {"quantile": 0.005})


@pytest.mark.parametrize(
    "change",
    [
        {"images": np.array(1)},
        {"images": np.full((2, EXAMPLES), np.nan)},
        {"units": np.array(1)},
        {"peaks": np.zeros(1, np.float32)},
        {"peaks": np.zeros((2, EXAMPLES), np.int64)},
        {"maps": np.zeros((2, EXAMPLES, 0, 3), np.float32)},
        {"images": None},
    ],
)
def test_examples_of_other_shapes_or_types_are_named(tmp_path: Path, change: dict[str, Any]) -> None:
    arrays: dict[str, Any] = {
        "images": np.zeros((2, EXAMPLES), np.int64),
        "peaks": np.zeros((2, EXAMPLES), np.float32),
        "maps": np.zeros((2, EXAMPLES, 3, 3), np.float32),
        "units": np.arange(2),
    }
    path = tmp_path / "examples.safetensors"
    save_file(arrays, path)
    assert read_examples(path, np.arange(2), 1) is not None
    save_file({name: array for name, array in (arrays | change).items() if array is not None}, path)
    with pytest.raises(InputError, match=r"examples\.safetensors"):
        read_examples(path, np.arange(2), 1)


def test_arrays_of_a_type_that_numpy_lacks_are_named(tmp_path: Path) -> None:
    save_tensors({"images": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / "examples.safetensors")
    with pytest.raises(InputError, match=r"examples\.safetensors: cannot be read as safetensors"):
        read_examples(tmp_path / "examples.safetensors", np.arange(2), 1)


@pytest.mark.parametrize(
    "change", [{"file": None}, {"file": 1.5}, {"digest": b"\xff"}, {"digest": "\xff"}, {"size": "x"}]
)
def test_a_damaged_record_of_fingerprints_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "fingerprints.parquet"
    pd.DataFrame({"part": "data", "file": ["a"], "size": [1], "digest": "0" * 32}).assign(**change).to_parquet(path)
    with pytest.raises(InputError, match=r"fingerprints\.parquet: cannot be read"):
        read_fingerprints(path)


def test_a_count_beyond_every_number_is_named(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    path.write_text(json.dumps({"weights_remaining": 1.0, "parameters": 9**400}))
    with pytest.raises(InputError, match=r"measured\.json: parameters.*less than"):
        read_measured(path, 0, 0)
