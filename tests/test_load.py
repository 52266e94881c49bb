"""What was saved is opened again as it was, and files that contradict each other are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

import prunescope
from prunescope import Dissection, InputError, LayerDissection, load
from prunescope.dissection.scores import PairCounts
from tests.cli.commands import GOLDEN
from tests.evidence.fake_study import write_study
from tests.study.small import write_recipe

CONCEPTS = GOLDEN / "dissection" / "concepts"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 labelled images of 32 pixels."""
    return prunescope.make_miniature(tmp_path_factory.mktemp("drawn") / "miniature", 64, seed=2, size=32)


def assert_equal(found: LayerDissection, expected: LayerDissection) -> None:
    assert found.layer == expected.layer
    pd.testing.assert_frame_equal(found.units, expected.units)
    pd.testing.assert_frame_equal(found.pairs, expected.pairs)
    assert found.summary == expected.summary
    assert (found.tally is None) == (expected.tally is None)
    if expected.tally is not None:
        assert found.tally is not None
        assert found.tally.keys() == expected.tally.keys()
        for name, counts in expected.tally.items():
            assert found.tally[name].dtype == counts.dtype
            np.testing.assert_array_equal(found.tally[name], counts)
    assert (found.examples is None) == (expected.examples is None)
    if expected.examples is not None:
        for name, values in vars(expected.examples).items():
            np.testing.assert_array_equal(getattr(found.examples, name), values)


def dissected(seed: int = 0, **options: Any) -> LayerDissection:
    """Random maps of six units, of which one is dead."""
    maps = np.random.default_rng(seed).normal(size=(48, 6, 5, 4)).astype(np.float32)
    maps[:, 4] = 0
    return prunescope.dissect_activations(maps, concepts=CONCEPTS, **{"quantile": 0.05} | options)


def contents(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


@pytest.mark.filterwarnings("ignore:the network has random weights")
def test_a_dissection_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    model = prunescope.build_network("prunescope:resnet8x4", seed=0)
    found = prunescope.dissect(model, layers=["stage3", "stage1"], concepts=CONCEPTS, device="cpu")
    found.save(tmp_path)
    before = contents(tmp_path)
    loaded = load(tmp_path)
    assert isinstance(loaded, Dissection)
    assert list(loaded) == ["stage1", "stage3"]
    for layer, expected in found.items():
        assert_equal(loaded[layer], expected)
    one = load(tmp_path / "stage3")
    assert isinstance(one, LayerDissection)
    assert_equal(one, found["stage3"])
    assert contents(tmp_path) == before


def precision_of(counts: PairCounts) -> np.ndarray:
    return counts.intersect / np.maximum(counts.activation, 1)


@pytest.mark.parametrize(
    "found",
    [
        dissected(),
        dissected(presence="overlap"),
        dissected(score=precision_of, iou=0.4),
        dissected().numbered(np.array([9, 4, 7, 1, 12, 30])),
        prunescope.dissect_activations(np.zeros((48, 2, 3, 3), np.float32), concepts=CONCEPTS),
    ],
    ids=["plain", "overlap", "score", "numbered", "dead"],
)
def test_every_kind_of_dissection_is_loaded_as_it_was_saved(found: LayerDissection, tmp_path: Path) -> None:
    loaded = load(found.save(tmp_path))
    assert isinstance(loaded, LayerDissection)
    assert_equal(loaded, found)


@pytest.mark.filterwarnings("ignore:.*used as they are")
@pytest.mark.parametrize("name", ["alexnet_imagenet", "resnet152_imagenet"])
def test_an_imported_table_is_loaded_as_it_was_imported(name: str, tmp_path: Path) -> None:
    found = prunescope.import_netdissect(GOLDEN / "tables" / f"{name}.csv", out=tmp_path)
    loaded = load(tmp_path)
    assert isinstance(loaded, LayerDissection)
    assert_equal(loaded, found)
    table = pd.read_parquet(tmp_path / "pairs.parquet")
    table.loc[3, "label"] = "another"
    table.to_parquet(tmp_path / "pairs.parquet", index=False)
    with pytest.raises(InputError, match=r"pairs\.parquet: gives .*-label 'another' for unit"):
        load(tmp_path)


def test_a_dissection_without_counts_and_examples_is_loaded(tmp_path: Path) -> None:
    folder = dissected().save(tmp_path)
    for name in ("tally", "examples"):
        (folder / f"{name}.safetensors").unlink()
    loaded = load(tmp_path)
    assert isinstance(loaded, Dissection)
    assert loaded["activations"].tally is None
    assert loaded["activations"].examples is None


def test_a_study_and_a_dissection_inside_it_are_loaded_without_writing(drawn: Path, tmp_path: Path) -> None:
    short = ["trials=1", "pruning.levels=1", "training.length=1ep", "training.schedule=[]", "pruning.rewind_to=1it"]
    recipe = write_recipe(tmp_path / "small.yaml", str(drawn / "classification"), str(drawn))
    prunescope.Study(recipe, tmp_path / "demo", changes=[*short, "dissection.layers=[stage3]"], device="cpu").run()
    before = contents(tmp_path / "demo")
    study = load(tmp_path / "demo")
    assert isinstance(study, prunescope.Study)
    pd.testing.assert_frame_equal(study.evidence(), prunescope.curves(tmp_path / "demo"))
    level = load(tmp_path / "demo" / "trial-0" / "level-01" / "dissection")
    assert isinstance(level, Dissection)
    (layer,) = level
    pd.testing.assert_frame_equal(study.units(0, 1), level[layer].units)
    assert all(stage.done for stage in study.stages())
    assert contents(tmp_path / "demo") == before


def test_a_sweep_is_loaded_as_a_series(drawn: Path, tmp_path: Path) -> None:
    sweep = prunescope.sweep(
        "prunescope:resnet8x4", concepts=drawn, out=tmp_path / "sweep", remaining=[1, 0.5], layers=["stage3"],
        device="cpu",
    )  # fmt: skip
    with pytest.warns(UserWarning, match="random weights"):
        evidence = sweep.run()
    before = contents(tmp_path / "sweep")
    series = load(tmp_path / "sweep")
    assert isinstance(series, prunescope.Series)
    pd.testing.assert_frame_equal(series.evidence(), evidence)
    pd.testing.assert_frame_equal(series.units(0, 1), sweep.units(0, 1))
    assert series.recipe == sweep.recipe
    assert contents(tmp_path / "sweep") == before


@pytest.mark.parametrize("name", ["study", "series"])
def test_a_damaged_description_of_a_study_is_named(name: str, tmp_path: Path) -> None:
    root = write_study(tmp_path / name)
    (root / "study.yaml").write_text("trials: [")
    with pytest.raises(InputError, match=r"study\.yaml"):
        load(root)


def test_directories_without_results_are_refused_with_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent: there is no such directory; give the directory"):
        load(tmp_path / "absent")
    with pytest.raises(InputError, match=r"contains no finished dissection .* and no study or series"):
        load(tmp_path)
    for name in ("dense", "pruned"):
        dissected().save(tmp_path / name)
    with pytest.raises(InputError, match=r"several results, in the folders dense, pruned; give one of them"):
        load(tmp_path)


def changed_table(column: str, value: Any, row: int = 0) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        table = pd.read_parquet(path)
        table.loc[row, column] = value
        table.to_parquet(path, index=False)

    return change


def changed_arrays(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        arrays = load_file(path)
        save_file(arrays | {name: change(arrays[name])}, path)

    return write


def changed_summary(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def add(array: np.ndarray) -> np.ndarray:
    return array + np.array(1, array.dtype)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("units.parquet", lambda path: path.write_bytes(b"PAR1"), "cannot be read as parquet"),
        ("units.parquet", lambda path: path.unlink(), r"cannot be read as parquet \(No such file"),
        ("units.parquet", changed_table("iou", 0.9), "in row 0 iou is"),
        ("pairs.parquet", lambda path: path.unlink(), r"cannot be read as parquet \(No such file"),
        ("pairs.parquet", changed_table("unit", 77), "in row 0 unit is .*77"),
        ("pairs.parquet", changed_table("intersect", 0), "in row 0 intersect is"),
        ("pairs.parquet", changed_table("truth", 10**9), "in row 0 iou is .*, expected intersect / "),
        ("pairs.parquet", changed_table("category", "nowhere"), "in row 0 category is 'nowhere'"),
        ("tally.safetensors", lambda path: path.write_bytes(b"{}"), "cannot be read as safetensors"),
        ("tally.safetensors", changed_arrays("area", lambda a: a[1:]), r"area is int64 \[5\], expected"),
        ("tally.safetensors", changed_arrays("truth", add), "truth is not the sum of block_truth"),
        ("tally.safetensors", changed_arrays("intersect", add), "has .* pairs of unit and concept, but"),
        ("tally.safetensors", changed_arrays("block_intersect", add), "intersect is not the sum"),
        ("tally.safetensors", changed_arrays("units", add), "its rows are not the units"),
        ("tally.safetensors", changed_arrays("numbers", lambda a: a.astype(float)), "numbers is float64"),
        ("tally.safetensors", changed_arrays("block_activation", np.negative), "block_activation contains -"),
        ("examples.safetensors", lambda path: path.write_bytes(b""), "cannot be read as safetensors"),
        ("examples.safetensors", changed_arrays("images", lambda a: a + 1000), "names image 10"),
        ("summary.json", lambda path: path.write_text("{"), "cannot be read as JSON"),
        ("summary.json", lambda path: path.write_text("[" * 10**5), "cannot be read as JSON"),
        ("summary.json", lambda path: path.write_text("[]"), "expected a JSON object, found list"),
        ("summary.json", changed_summary(units=7), "units is 7, but units.parquet in the same folder gives 6"),
        ("summary.json", changed_summary(settings={"layer": "other"}), "layer is 'other', but the folder is called"),
        (
            "summary.json",
            changed_summary(settings={"layer": "../up"}),
            "layer is .*, which cannot be the name of a layer",
        ),
        ("summary.json", changed_summary(settings={"iou": "0.05"}), "iou is '0.05', expected a bound"),
        ("summary.json", changed_summary(by_category=3), "by_category is 3, expected a number for each category"),
        ("summary.json", changed_summary(settings=None), "settings is None"),
        ("summary.json", lambda path: path.write_text("{}"), "there is no field units, interpretable"),
    ],
)
def test_files_that_are_damaged_or_contradict_each_other_are_named(
    file: str, change: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    folder = dissected().save(tmp_path)
    load(tmp_path)
    change(folder / file)
    with pytest.raises(InputError, match=rf"{file}: {said}"):
        load(tmp_path)


def test_a_unit_that_the_pairs_give_another_concept_is_named(tmp_path: Path) -> None:
    folder = dissected().save(tmp_path)
    (folder / "tally.safetensors").unlink()
    table = pd.read_parquet(folder / "pairs.parquet")
    best = table[table["unit"] == 2].sort_values("iou").index[-1]
    table.drop(index=best).to_parquet(folder / "pairs.parquet", index=False)
    with pytest.raises(InputError, match=r"pairs\.parquet: gives .* for unit 2, but units\.parquet .* states"):
        load(tmp_path)
