"""Series of checkpoints and sweeps: a study's results without training."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import prunescope
from prunescope.concepts import sample_concepts
from prunescope.dissection import Budget
from prunescope.errors import InputError
from prunescope.networks import build_network
from prunescope.pruning import prune_filters, shrink, unit_numbers
from prunescope.store.stored import open_study
from prunescope.study.reporting import Event
from prunescope.study.series import run_series
from tests.report.page_data import decoded, read_data

NETWORK, CLASSES = "prunescope:resnet8x4", 16
LAYERS = ["stage3", "stage1"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A dense checkpoint and three pruned from it, as torch.save writes them."""
    folder = tmp_path_factory.mktemp("checkpoints")
    network, mask, found = build_network(NETWORK, classes=CLASSES, seed=0), None, {}
    for name in ("dense", "half", "quarter", "eighth"):
        if name != "dense":
            mask = prunescope.prune(network, mask, fraction=0.5)
            mask.apply(network)
        found[name] = folder / f"{name}.pt"
        torch.save(network.state_dict(), found[name])
    return found


@pytest.fixture(scope="module")
def data(recipe: Path) -> Path:
    return recipe.parent / "concepts"


def series(files: dict[str, Path], names: str, out: Path, concepts: Path, **options: object) -> prunescope.Series:
    options = {"layers": LAYERS, "classes": CLASSES, "device": "cpu"} | options
    return prunescope.Series(NETWORK, [files[name] for name in names.split()], out, concepts=concepts, **options)  # type: ignore[arg-type]


def test_each_checkpoint_is_a_level_with_what_its_own_dissection_finds(
    files: dict[str, Path], tmp_path: Path, data: Path
) -> None:
    run = series(files, "dense half quarter", tmp_path / "out", data)
    evidence = run.run()
    assert evidence["weights_remaining"].unique().tolist() == [1.0, 0.5, 0.25]
    assert evidence["accuracy"].isna().all()
    for level, name in enumerate(("dense", "half", "quarter")):
        network = build_network(NETWORK, classes=CLASSES, weights=files[name])
        alone = prunescope.dissect(network, layers=LAYERS, concepts=data, device="cpu")
        for layer in LAYERS:
            pd.testing.assert_frame_equal(run.units(0, level, layer), alone[layer].units)
    figures = {path.name for path in (tmp_path / "out" / "figures").glob("*.svg")}
    assert "figure1-accuracy.svg" not in figures
    assert "figure4-consistency-stage3.svg" in figures
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "Series of checkpoints" in page


def test_only_checkpoints_that_were_added_are_run(files: dict[str, Path], tmp_path: Path, data: Path) -> None:
    out, levels = tmp_path / "out", []

    def report(event: Event) -> None:
        if event.summaries:
            levels.append(event.level)

    series(files, "dense half", out, data).run(report)
    first = (out / "trial-0" / "level-00" / "measured.json").stat().st_mtime_ns
    series(files, "dense half quarter eighth", out, data).run(report)
    assert levels == [0, 1, 2, 3]
    assert (out / "trial-0" / "level-00" / "measured.json").stat().st_mtime_ns == first
    whole = series(files, "dense half quarter eighth", tmp_path / "whole", data).run()
    pd.testing.assert_frame_equal(prunescope.curves(out), whole)


def test_checkpoints_that_do_not_fit_into_memory_together_take_several_passes(
    files: dict[str, Path], tmp_path: Path, data: Path
) -> None:
    together = series(files, "dense half quarter", tmp_path / "one", data).run()
    little = Budget(memory=2000, disk=10**9)
    alone = series(files, "dense half quarter", tmp_path / "three", data, budget=little).run()
    pd.testing.assert_frame_equal(together, alone)


def test_accuracy_is_measured_on_validation_images_alone(files: dict[str, Path], tmp_path: Path, data: Path) -> None:
    shutil.copytree(data / "classification" / "val", tmp_path / "images" / "val")
    events: list[Event] = []
    run = series(files, "dense half", tmp_path / "out", data, data=tmp_path / "images", layers=["stage3"])
    found = run.run(events.append)
    assert (events[-1].doing, events[-1].fraction) == ("resampling images", 1.0)
    assert found["accuracy"].between(0, 1).all()
    tables = [open_study(tmp_path / "out").predictions(0, level) for level in (0, 1)]
    assert [(table["class"] == table["predicted"]).mean() for table in tables] == found["accuracy"].tolist()
    assert (tmp_path / "out" / "figures" / "figure1-accuracy.svg").is_file()


def test_a_file_describes_several_trials_with_networks_of_their_own(
    files: dict[str, Path], tmp_path: Path, data: Path
) -> None:
    wide = tmp_path / "wide.pt"
    torch.save(build_network("prunescope:resnet8x6", classes=CLASSES, seed=1).state_dict(), wide)
    (tmp_path / "series.yaml").write_text(f"""\
name: two trials
network: {NETWORK}
classes: {CLASSES}
trials:
  - [{files["dense"]}, {{weights: {files["half"]}, remaining: 0.45}}]
  - [{{weights: {wide}, network: "prunescope:resnet8x6"}}]
dissection: {{layers: [stage3], concepts: {data}}}
""")
    found = prunescope.Series.read(tmp_path / "series.yaml", tmp_path / "out", device="cpu").run()
    assert found["trial"].tolist() == [0, 0, 1]
    assert found["weights_remaining"].tolist() == [1.0, 0.45, 1.0]
    assert found["units"].tolist() == [16, 16, 24]


def test_checkpoints_are_placed_on_an_axis_of_their_own(files: dict[str, Path], tmp_path: Path, data: Path) -> None:
    found = series(
        files, "dense half quarter", tmp_path / "bits", data, layers=["stage3"], at=[32, 8, 4], axis="Bits per weight"
    ).run()
    assert found["at"].tolist() == [32, 8, 4]
    content = read_data(tmp_path / "bits", "study")
    assert content["axis"] == "Bits per weight"
    assert decoded(content["curves"])["at"] == [32, 8, 4]
    labelled = series(
        files, "dense half", tmp_path / "labels", data, layers=["stage3"], at=["float", "int8"], axis="Type"
    ).run()
    assert labelled[["at", "at_label"]].to_numpy().tolist() == [[0.0, "float"], [1.0, "int8"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": "dense quarter"}, "has other weights now than when it was dissected"),
        ({"names": "half dense"}, "trial 0, level 0 .*has other weights now"),
        ({"dissection": {"quantile": 0.01}}, "contains another series"),
        ({"layers": ["stage3"]}, "contains another series"),
        ({"at": [1, 2], "axis": "Bits"}, "contains another series"),
    ],
)
def test_a_directory_keeps_its_series(
    files: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    data: Path,
    change: dict[str, object],
    message: str,
) -> None:
    out = tmp_path_factory.getbasetemp() / "kept-series"
    if not out.exists():
        series(files, "dense half", out, data).run()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    names = str(change.pop("names", "dense half"))
    with pytest.raises(InputError, match=message):
        series(files, names, out, data, **change).run()
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"at": [1]}, "at has 1 positions for 2 checkpoints"),
        ({"at": [1, 2]}, "expected a name for the axis"),
        ({"axis": "Bits"}, "expected `at` for every checkpoint"),
        ({"classes": 0}, "classes is 0"),
        ({"dissection": {"quantile": 2}}, "dissection.quantile is 2"),
        ({"nonsense": 1}, "nonsense is no"),
        ({"layers": ["stage9"]}, "stage9"),
        ({"classes": 5}, "trial 0, level 0 .*dense.pt.*fc.weight: the network has .5, 16., the file .16, 16."),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    files: dict[str, Path], tmp_path: Path, data: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=f"(?s){message}"):
        series(files, "dense half", tmp_path / "out", data, **arguments).run()
    assert not (tmp_path / "out" / "trial-0").exists()


@pytest.mark.parametrize("field", ["key", "masks"])
def test_what_belongs_to_a_file_of_weights_is_refused_without_one(tmp_path: Path, data: Path, field: str) -> None:
    network = build_network(NETWORK, classes=CLASSES, seed=0)
    with pytest.raises(InputError, match=f"`{field}` belongs to a file of weights; give `weights` too"):
        prunescope.Series(
            network, [network, {"model": network, field: "x"}], tmp_path, concepts=data, layers=["stage3"]
        )


def test_a_directory_of_other_files_is_left_alone(files: dict[str, Path], tmp_path: Path, data: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and does not contain a series"):
        series(files, "dense half", tmp_path / "out", data).run()


def calibrated(network: nn.Module, images: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Compute each normalisation layer's mean and variance of its input when it normalises by the batch itself."""
    found = {}

    def note(name: str) -> object:
        def hook(_module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
            values = inputs[0].double().transpose(0, 1).flatten(1)
            found[name] = (values.mean(1), values.var(1))

        return hook

    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
            module.register_forward_pre_hook(note(name))  # type: ignore[arg-type]
    with torch.no_grad():
        network(images)
    return found


def test_a_sweep_prunes_one_network_and_estimates_its_statistics_again(
    files: dict[str, Path], tmp_path: Path, data: Path
) -> None:
    run = prunescope.sweep(
        NETWORK, weights=files["dense"], classes=CLASSES, remaining=[1, 0.5, 0.1], layers=["stage3"], concepts=data,
        out=tmp_path / "out", device="cpu",
    )  # fmt: skip
    found = run.run()
    assert found["weights_remaining"].tolist() == pytest.approx([1, 0.5, 0.1], abs=1e-3)
    network = build_network(NETWORK, classes=CLASSES, weights=files["dense"]).eval()
    prunescope.prune(network, remaining=0.1).apply(network)
    concepts = prunescope.open_concepts(data)
    pixels = torch.stack([torch.from_numpy(concepts.image(i).copy()) for i in range(len(concepts))])
    mean, std = (torch.tensor(color).view(1, 3, 1, 1) for color in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    statistics = calibrated(network, (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std)
    for name, module in network.named_modules():
        if name in statistics:
            module.running_mean.copy_(statistics[name][0])  # type: ignore[operator, union-attr]
            module.running_var.copy_(statistics[name][1])  # type: ignore[operator, union-attr]
    expected = prunescope.dissect(network, layers=["stage3"], concepts=data, device="cpu")["stage3"].units
    units = run.units(0, 2)
    pd.testing.assert_frame_equal(units, expected, check_exact=False, rtol=1e-4)


def test_a_network_with_random_weights_is_the_same_one_at_all_levels_and_when_it_is_built_again(
    tmp_path: Path, data: Path
) -> None:
    levels = []
    for remaining in ([1, 1], [1, 1, 1]):
        run = prunescope.sweep(
            NETWORK, remaining=remaining, seed=4, layers=["stage3"], concepts=data, out=tmp_path / "out",
            device="cpu", dissection={"chance": 0, "images": 8},
        )  # fmt: skip
        run_series(run.recipe, run.out)
        levels += [run.units(0, level) for level in range(len(remaining))]
    network = build_network(NETWORK, seed=4)
    sample = sample_concepts(data, 8, seed=4)
    levels.append(
        prunescope.dissect(network, layers=["stage3"], concepts=sample, device="cpu", chance=0)["stage3"].units
    )
    for level in levels[1:]:
        pd.testing.assert_frame_equal(level, levels[0])


def test_a_network_in_memory_is_swept_and_stays_as_it_was(tmp_path: Path, data: Path) -> None:
    network = build_network(NETWORK, classes=CLASSES, seed=3).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    run = prunescope.sweep(
        network, remaining=[1, 0.5], scope="filters", layers=["stage3"], concepts=data, out=tmp_path / "out"
    )
    found = run.run()
    assert found["units"].iloc[1] < 16
    assert set(run.units(0, 1)["unit"]) <= set(range(16))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_network_in_memory_gets_the_weights_under_a_key_and_their_masks(
    files: dict[str, Path], tmp_path: Path, data: Path
) -> None:
    dense, half = (torch.load(files[name]) for name in ("dense", "half"))
    torch.save({"ema": dense, "model": half}, tmp_path / "both.pt")
    masks = prunescope.prune(build_network(NETWORK, classes=CLASSES, weights=files["dense"]), remaining=0.5)
    masks.save(tmp_path / "masks.safetensors")
    given = {"weights": tmp_path / "both.pt", "key": "ema"}
    run = prunescope.Series(
        build_network(NETWORK, classes=CLASSES, seed=7),
        [given, given | {"masks": tmp_path / "masks.safetensors"}],
        tmp_path / "out", concepts=data, layers=["stage3"], device="cpu",
    )  # fmt: skip
    assert run.run()["weights_remaining"].tolist() == [1.0, masks.weights_remaining]
    network = build_network(NETWORK, classes=CLASSES, weights=files["dense"])
    expected = prunescope.dissect(network, layers=["stage3"], concepts=data, device="cpu")["stage3"].units
    pd.testing.assert_frame_equal(run.units(0, 0), expected)
    with pytest.raises(InputError, match="does not dissect layer 'stage2'"):
        run.units(0, 0, "stage2")
    with pytest.raises(InputError, match="trial 0, level 5 is not dissected yet"):
        run.units(0, 5)


def test_without_recalibration_only_the_weights_differ(files: dict[str, Path], tmp_path: Path, data: Path) -> None:
    run = prunescope.sweep(
        NETWORK, weights=files["dense"], classes=CLASSES, remaining=[1, 0.5], layers=["stage3"], concepts=data,
        out=tmp_path / "out", recalibrate=False, device="cpu",
    )  # fmt: skip
    run.run()
    network = build_network(NETWORK, classes=CLASSES, weights=files["half"])
    expected = prunescope.dissect(network, layers=["stage3"], concepts=data, device="cpu")["stage3"].units
    pd.testing.assert_frame_equal(run.units(0, 1), expected)


def test_units_of_a_smaller_network_are_compared_by_concept_by_match_or_by_given_numbers(
    files: dict[str, Path], tmp_path: Path, data: Path
) -> None:
    dense = build_network(NETWORK, classes=CLASSES, weights=files["dense"])
    small = build_network(NETWORK, classes=CLASSES, weights=files["dense"])
    filters = prune_filters(small, remaining=0.5, image_size=32)
    shrink(small, filters, 32)
    numbers = unit_numbers(dense, small, filters, ["stage3"], 32)["stage3"]
    assert len(numbers) < 16
    notes: list[str] = []

    def report(event: Event) -> None:
        notes.extend(filter(None, [event.note]))

    def run(out: str, second: nn.Module, units: Path | None = None, **options: object) -> pd.DataFrame:
        options = {"layers": ["stage3"], "device": "cpu"} | options
        checkpoint = second if units is None else {"model": second, "units": units}
        return prunescope.Series(dense, [dense, checkpoint], tmp_path / out, concepts=data, **options).run(report)  # type: ignore[arg-type]

    unknown = run("unknown", small)
    assert unknown.loc[1, ["still_interpretable", "same_concept"]].isna().all()
    assert unknown.loc[1, "concepts_still_detected"] >= 0
    assert any("it is unknown which units correspond" in note for note in notes)
    matched = run("matched", small, match=True)
    table = pd.read_parquet(
        tmp_path / "matched" / "trial-0" / "level-01" / "dissection" / "stage3" / "matching.parquet"
    )
    assert len(table) == len(numbers)
    assert table["matched_unit"].is_unique
    assert matched.loc[1, "still_interpretable"] >= 0
    np.save(tmp_path / "numbers.npy", numbers)
    given = run("given", small, units=tmp_path / "numbers.npy")
    alone = [prunescope.dissect(model, layers=["stage3"], concepts=data, device="cpu") for model in (dense, small)]
    expected = prunescope.consistency(alone[0], alone[1], units=numbers)
    np.testing.assert_array_equal(given.loc[1, ["still_interpretable", "same_concept"]].astype(float), expected)
    numbers[:2] = -1  # no unit of the dense network corresponds to these
    np.save(tmp_path / "partial.npy", numbers)
    partial = run("partial", small, units=tmp_path / "partial.npy")
    expected = prunescope.consistency(alone[0], alone[1], units=numbers)
    np.testing.assert_array_equal(partial.loc[1, ["still_interpretable", "same_concept"]].astype(float), expected)


def test_a_sample_of_the_images_is_dissected_and_the_page_says_so(
    files: dict[str, Path], tmp_path: Path, data: Path
) -> None:
    run = series(files, "dense", tmp_path / "out", data, layers=["stage3"], dissection={"images": 20})
    run.run()
    network = build_network(NETWORK, classes=CLASSES, weights=files["dense"])
    part = sample_concepts(data, 20)
    expected = prunescope.dissect(network, layers=["stage3"], concepts=part, device="cpu")["stage3"].units
    pd.testing.assert_frame_equal(run.units(0, 0), expected)
    facts = dict(read_data(tmp_path / "out", "study")["facts"])
    assert facts["Images"] == "a sample of 20 of 64 labelled images"


def test_each_checkpoint_is_given_images_as_its_network_was_trained(tmp_path: Path, data: Path) -> None:
    means = [(0.5, 0.5, 0.5), (0.1, 0.2, 0.3), None]
    networks = [build_network(NETWORK, classes=CLASSES, seed=seed) for seed in range(3)]
    for network, mean in zip(networks, means, strict=True):
        if mean is not None:
            network.pretrained_cfg = {"mean": mean, "std": (0.5, 0.5, 0.5), "architecture": "own"}

    def run(count: int) -> prunescope.Series:
        found = prunescope.Series(
            networks[0], networks[:count], tmp_path / "out", concepts=data, layers=["stage3"], device="cpu", match=True
        )
        found.run()
        return found

    run(2)
    found = run(3)  # The first checkpoint is finished already, and the last one is still given images as that one is.
    for level, mean in enumerate(means):
        alone = prunescope.dissect(
            networks[level], layers=["stage3"], concepts=data, mean=mean or means[0], std=[0.5] * 3, device="cpu"
        )["stage3"].units
        units = found.units(0, level).sort_values("threshold", ignore_index=True)
        expected = alone.sort_values("threshold", ignore_index=True)
        pd.testing.assert_frame_equal(units.drop(columns="unit"), expected.drop(columns="unit"))
    matching = prunescope.UnitMatching.read(tmp_path / "out/trial-0/level-01/dissection/stage3")
    expected_matching = prunescope.match_units(*networks[:2], layers=["stage3"], concepts=data, device="cpu")["stage3"]
    assert matching.units.tolist() == expected_matching.units.tolist()


@pytest.mark.parametrize("remaining", [[1, 0], [1.5], [float("nan")], ["0.5"], "1,0.5"])
def test_shares_of_a_sweep_that_are_none_are_refused(remaining: Any, tmp_path: Path, data: Path) -> None:
    with pytest.raises(InputError, match=r"^remaining( has|:) "):
        prunescope.sweep(NETWORK, remaining=remaining, layers=["stage3"], concepts=data, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_network_that_cannot_be_dissected_leaves_the_directory_to_others(tmp_path: Path, data: Path) -> None:
    class TwoInputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Conv2d(3, 4, 3)

        def forward(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
            return self.a(images + others)

    given: dict[str, Any] = {"remaining": [1], "concepts": data, "out": tmp_path / "out", "device": "cpu"}
    with pytest.raises(InputError, match=r"self\.network"):
        prunescope.sweep(TwoInputs(), layers=["a"], **given).run()
    assert not (tmp_path / "out" / "study.yaml").exists()
    other = prunescope.sweep(NETWORK, layers=["stage3"], **given)
    run_series(other.recipe, other.out)
    assert len(other.units(0, 0)) == 16
