"""A study is of what its data, labels and network's file hold, wherever they are; a change of them is refused."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import prunescope
from prunescope.concepts import pack_concepts
from prunescope.concepts.packed_file import packed_path
from prunescope.errors import InputError
from prunescope.store import read_recipe
from prunescope.store.layout import StudyDirectory
from prunescope.study import Event, run_study
from tests.cli.commands import refused, typed

pytestmark = pytest.mark.usefixtures("at")

RECIPE = """\
name: tiny
network: net.py:plain
data: {task: task, size: 16, augmentation: flip}
training: {length: 2it, batch_size: 8, learning_rate: 0.05}
pruning: {levels: 1, fraction: 0.5, rewind_to: 1it}
dissection: {layers: ["0"], concepts: concepts, quantile: 0.05}
"""
NETWORK = """\
from torch import nn
from layers import units

def plain(classes):
    return nn.Sequential(
        nn.Conv2d(3, units(), 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(units(), classes)
    )
"""
LAYERS = """\
def units():
    return 8
"""


def write_data(root: Path) -> Path:
    """Write a task of three classes, ten labelled images and a network's file."""
    rng = np.random.default_rng(0)
    concepts = root / "concepts"
    (concepts / "images").mkdir(parents=True)
    (concepts / "category.csv").write_text("name\ncolor\n")
    (concepts / "label.csv").write_text("number,name,category\n1,red,color\n2,green,color\n3,blue,color\n")
    lines = ["image,split,ih,iw,sh,sw,color"]
    for i in range(10):
        labels = np.zeros((16, 16, 3), np.uint8)
        labels[4:12, i : i + 6, 0] = i % 3 + 1
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(concepts / "images" / f"{i}.png")
        Image.fromarray(labels).save(concepts / "images" / f"{i}_l.png")
        lines.append(f"{i}.png,train,16,16,16,16,{i}_l.png")
    (concepts / "index.csv").write_text("\n".join(lines) + "\n")
    for split, count in (("train", 6), ("val", 2)):
        for k, name in enumerate("abc"):
            (root / "task" / split / name).mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 85, (16, 16, 3))
                image[..., k] += 120
                Image.fromarray(image.astype(np.uint8)).save(root / "task" / split / name / f"{i}.png")
    (root / "net.py").write_text(NETWORK)
    (root / "layers.py").write_text(LAYERS)
    (root / "tiny.yaml").write_text(RECIPE)
    return root


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the data and the recipe, in which the test is."""
    monkeypatch.chdir(write_data(tmp_path))
    # A module of another test's folder.
    monkeypatch.delitem(__import__("sys").modules, "layers", raising=False)
    return tmp_path


def run(out: str = "out", changes: Sequence[str] = (), branch_from: Sequence[str] = ()) -> list[str]:
    """Run the study and return its notes."""
    events: list[Event] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_study(read_recipe("tiny.yaml", changes), out, branch_from=branch_from, report=events.append)
    return [event.note for event in events if event.note]


def stop_before_the_last_dissection(out: str = "out") -> None:
    shutil.rmtree(f"{out}/trial-0/level-01/dissection")


def contents(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def edit_with_same_size(path: str, before: str, after: str) -> None:
    file = Path(path)
    times = file.stat()
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file.stat().st_size == times.st_size


def negative(path: str) -> None:
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


def exchange(one: str, other: str) -> None:
    Path(one).rename("exchanged")
    Path(other).rename(one)
    Path("exchanged").rename(other)


CHANGES: dict[str, tuple[Callable[[], object], str]] = {
    "a training image": (
        lambda: negative("task/train/b/3.png"), r"task data \(task\): 1 file changed \(train/b/3\.png\)",
    ),
    "an image that is added": (
        lambda: shutil.copy("task/train/a/0.png", "task/train/a/new.png"),
        r"task data \(task\): 1 file added \(train/a/new\.png\)",
    ),
    "an image that is removed": (
        lambda: Path("task/val/c/1.png").unlink(), r"task data \(task\): 1 file removed \(val/c/1\.png\)",
    ),
    "a labelled image": (
        lambda: negative("concepts/images/4.png"), r"labelled images \(concepts\): 1 file changed \(images/4\.png\)",
    ),
    "labels that are exchanged": (
        lambda: exchange("concepts/images/0_l.png", "concepts/images/1_l.png"),
        r"labels \(concepts\): 2 files changed \(images/0_l\.png, images/1_l\.png\)",
    ),
    "the name of a concept": (
        lambda: edit_with_same_size("concepts/label.csv", "blue", "grey"),
        r"labels \(concepts\): 1 file changed \(label\.csv\)",
    ),
    "a comment in the network's file": (
        lambda: Path("net.py").write_text("# Ours.\n" + NETWORK),
        r"network file \(net\.py:plain\): 1 file changed \(net\.py\)",
    ),
    "a module that the network's file imports": (
        lambda: edit_with_same_size("layers.py", "8", "9"),
        r"network file \(net\.py:plain\): 1 file changed \(layers\.py\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_while_a_study_is_stopped_is_refused_and_nothing_is_changed(what: str) -> None:
    run()
    stop_before_the_last_dissection()
    before = contents("out")
    change, said = CHANGES[what]
    change()
    with pytest.raises(InputError, match=said) as refusal:
        run()
    assert "restore the files" in str(refusal.value)
    assert "remove out/fingerprints.parquet" in str(refusal.value)
    assert contents("out") == before
    # Doing what it says helps.
    Path("out/fingerprints.parquet").unlink()
    if "module" not in what:  # Which makes another network of it.
        assert run()[0].startswith("the fingerprints of task data, labelled images, labels, network file are recorded")
        assert run() == []


def test_the_command_says_what_changed_with_exit_code_2() -> None:
    words = ("study", "tiny.yaml", "--out", "out", "--device", "cpu")
    run()
    negative("task/train/b/3.png")
    # A study that is finished too: what it is asked for are results of these data.
    said = refused(*words)
    assert said.startswith(
        "error: the files that out depends on have changed since the study began; nothing was written"
    )
    assert "train/b/3.png" in said
    for others in (("plan", "tiny.yaml", "--out", "out", "--images-per-second", "9"), (*words, "--dry-run")):
        assert typed(*others).exit_code == 0


def test_files_that_are_touched_restored_or_not_read_are_no_change() -> None:
    run()
    stop_before_the_last_dissection()
    for name in ("task/train/a/0.png", "concepts/label.csv", "net.py"):
        os.utime(name)
    content = Path("concepts/images/3.png").read_bytes()
    negative("concepts/images/3.png")
    Path("concepts/images/3.png").write_bytes(content)
    for name in ("task/train/a/Thumbs.db", "task/readme.txt", "concepts/images/unused.png", "other.py"):
        Path(name).write_text("x")
    assert run() == []


@pytest.mark.parametrize("finished", [True, False])
def test_a_study_goes_on_with_data_that_were_moved(at: Path, finished: bool) -> None:
    run()
    if not finished:
        stop_before_the_last_dissection()
    Path("elsewhere").mkdir()
    for name in ("task", "concepts", "net.py", "layers.py"):
        Path(name).rename(f"elsewhere/{name}")
    places = [f"data.task={at}/elsewhere/task", "dissection.concepts=elsewhere/concepts"]
    places.append("network=elsewhere/net.py:plain")
    assert run(changes=places) == []
    # From then on they are looked for there, the report's images too.
    there = read_recipe("out/study.yaml")
    assert (there.network, there.data.task) == ("elsewhere/net.py:plain", f"{at}/elsewhere/task")
    if finished:
        assert typed("report", "out").exit_code == 0
    # What differs at the new place is refused as at the old one.
    negative("elsewhere/task/train/a/1.png")
    with pytest.raises(InputError, match=r"task data \(.*elsewhere/task\): 1 file changed \(train/a/1\.png\)"):
        run(changes=places)
    with pytest.raises(InputError, match="contains another study"):
        run(changes=[*places[:2], "network=elsewhere/net.py:another"])


def test_a_finished_study_needs_its_task_no_more() -> None:
    run()
    shutil.rmtree("task")
    Path("net.py").unlink()
    assert run() == []
    with pytest.raises(InputError, match="nowhere/train: there is no such folder"):
        run(changes=["data.task=nowhere"])


def test_a_study_without_fingerprints_goes_on_and_records_them(at: Path) -> None:
    run()
    stop_before_the_last_dissection()
    Path("out/fingerprints.parquet").unlink()
    # All that is known of its data is where they are, however that is written.
    shutil.copytree("task", "copy")
    with pytest.raises(InputError, match=r"contains another study(.|\n)*identified by their paths only"):
        run(changes=["data.task=copy"])
    notes = run(changes=[f"data.task={at}/task"])
    assert notes == [
        "the fingerprints of task data, labelled images, labels, network file are recorded now; this study began "
        "without them, so it is not known whether the files have changed since then"
    ]
    assert run(changes=["data.task=copy"]) == []
    negative("copy/train/b/3.png")
    with pytest.raises(InputError, match="1 file changed"):
        run(changes=["data.task=copy"])


def test_a_packed_copy_is_no_change_but_another_content_of_it_is() -> None:
    run()
    stop_before_the_last_dissection()
    pack_concepts("concepts")
    assert run() == []
    parts = pd.read_parquet("out/fingerprints.parquet")
    assert list(parts.loc[parts["part"] == "packed copy", "file"]) == ["packed/concepts.safetensors"]
    stop_before_the_last_dissection()
    # Packed again from files with other times it holds the same.
    for path in Path("concepts/images").iterdir():
        os.utime(path)
    pack_concepts("concepts")
    assert run() == []
    stop_before_the_last_dissection()
    file = packed_path(Path("concepts"))
    content = bytearray(file.read_bytes())
    content[5000] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"packed copy \(.*concepts\): 1 file changed \(packed/concepts\.safetensors"):
        run()
    shutil.rmtree("concepts/packed")
    assert run() == []


def test_drawn_images_that_were_changed_are_noticed(recipe: Path) -> None:
    drawn = ["data.task={miniature: {images: 64, seed: 1}}", "dissection.concepts={miniature: {images: 64, seed: 2}}"]
    given = read_recipe(recipe, [*drawn, "trials=1", "pruning.levels=0", "dissection.layers=[stage3]"])
    run_study(given, "out")
    shutil.rmtree("out/trial-0/level-00/dissection")
    label = next(Path("out/data/concepts/images").glob("*_object.png"))
    before = label.read_bytes()
    # Not through the file's second name in another study.
    label.unlink()
    label.write_bytes(next(Path("out/data/concepts/images").glob("*_color.png")).read_bytes())
    with pytest.raises(InputError, match=rf"labels \(out/data/concepts\): 1 file changed \(images/{label.name}\)"):
        run_study(given, "out")
    # A study that would have taken the drawn images from there draws its own.
    run_study(given.model_copy(update={"name": "other"}), "other", branch_from=["out"])
    assert (Path("other/data/concepts/images") / label.name).read_bytes() == before
    label.write_bytes(before)
    run_study(given, "out")


@pytest.mark.parametrize("work", ["train", "dissect"])
def test_a_change_while_the_study_runs_is_noticed_before_its_results_are_kept(work: str) -> None:
    given, edited = read_recipe("tiny.yaml", ["training.checkpoint_every=1it"]), []

    def report(event: Event) -> None:
        if (event.level, event.work) == (1, work) and event.fraction > 0 and not edited:
            edit_with_same_size("concepts/label.csv", "blue", "grey")
            edited.append(event)

    with pytest.raises(
        InputError, match=r"trial 0, level 1: files have changed while the study was running"
    ) as refusal:
        run_study(given, "out", report=report)
    assert "labels (concepts): 1 file changed (label.csv)" in str(refusal.value)
    assert ("checkpoints" in str(refusal.value)) == (work == "train")
    directory = StudyDirectory(Path("out"))
    assert directory.is_dissected(0, 0, ("0",))
    assert directory.is_trained(0, 1) == (work == "dissect")
    assert not directory.is_dissected(0, 1, ("0",))
    edit_with_same_size("concepts/label.csv", "grey", "blue")
    run_study(given, "out")
    run("whole", ["training.checkpoint_every=1it"])
    assert (directory.dissection(0, 1) / "0/units.csv").read_bytes() == Path(
        "whole/trial-0/level-01/dissection/0/units.csv"
    ).read_bytes()


def test_the_report_says_that_the_images_have_changed() -> None:
    run()
    negative("concepts/images/4.png")
    told = typed("report", "out")
    assert told.exit_code == 0
    assert "note: the labelled images have changed since the study began" in told.stderr
    assert "labelled images (" in told.stderr
    assert "images/4.png" in told.stderr
    assert Path("out/report/index.html").is_file()
    shutil.rmtree("concepts")
    assert "there is no such folder" in refused("report", "out")


def test_a_study_branches_where_the_files_hold_the_same_wherever_they_are() -> None:
    run("first")
    dense = Path("first/trial-0/level-00/weights.safetensors")
    shutil.copytree("task", "copied/task")
    shutil.copytree("concepts", "copied/concepts")
    places = ["data.task=copied/task", "dissection.concepts=copied/concepts"]
    changes = ["name=second", "pruning.fraction=0.2"]
    assert run("second", [*changes, *places], ["first"]) == [
        "trial 0: the dense network is that of first, and its dissection"
    ]
    for name in ("weights.safetensors", "predictions.parquet"):
        assert dense.with_name(name).samefile(f"second/trial-0/level-00/{name}")
    # The labels decide on the dissection alone.
    edit_with_same_size("copied/concepts/label.csv", "blue", "grey")
    assert run("third", [*changes, *places], ["first"]) == ["trial 0: the dense network is that of first"]
    # In the same place, but not the same any more.
    negative("task/train/a/0.png")
    assert run("fourth", changes, ["first"]) == ["trial 0: no dense network is reused: first differs in data.task"]
    with pytest.raises(InputError, match=r"first: it differs in data\.task"):
        run("fifth", [*changes, "pruning.fraction=0.5", "pruning.masks=branch"], ["first"])


def test_masks_are_those_of_a_study_that_was_moved_and_not_of_one_that_was_changed(at: Path) -> None:
    run("first")
    changes = ["name=control", "pruning.masks=branch", "pruning.retraining=reinitialise"]
    run("control", changes, ["first"])
    shutil.rmtree("control/trial-0/level-01")
    Path("first").rename("moved")
    run("control", changes, ["moved"])
    assert str(at / "moved") in Path("control/masks.json").read_text()
    shutil.rmtree("control/trial-0/level-01")
    edited = Path("moved/trial-0/level-01/mask.safetensors")
    content = bytearray(edited.read_bytes())
    content[-1] ^= 1
    edited.write_bytes(content)
    with pytest.raises(InputError, match=r"masks \(moved\): 1 file changed \(trial-0/level-01/mask\.safetensors\)"):
        run("control", changes, ["moved"])


def test_a_damaged_or_missing_cache_changes_nothing() -> None:
    run()
    cache, before = Path("out/fingerprints.cache"), Path("out/fingerprints.parquet").read_bytes()
    for damage in (b"damaged", b"", None):
        stop_before_the_last_dissection()
        if damage is None:
            cache.unlink()
            # Where it cannot be written.
            cache.mkdir()
        else:
            cache.write_bytes(damage)
        assert run() == []
        assert Path("out/fingerprints.parquet").read_bytes() == before


def test_a_checkpoint_of_other_images_is_refused() -> None:
    given = read_recipe("tiny.yaml", ["training.checkpoint_every=1it", "training.length=6it"])

    def interrupt(event: Event) -> None:
        if event.work == "train" and event.fraction > 0.7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(given, "out", report=interrupt)
    negative("task/train/a/0.png")
    Path("out/fingerprints.parquet").unlink()
    with pytest.raises(
        InputError, match=r"checkpoint of another training, which differs in content of the images; remove"
    ):
        run_study(given, "out")


def test_several_studies_of_a_notebook_take_moved_masks() -> None:
    run("first")
    Path("task").rename("moved")
    changes = ["data.task=moved", "name=control", "pruning.masks=branch", "pruning.retraining=reinitialise"]
    control = read_recipe("tiny.yaml", changes)
    (study,) = prunescope.studies([control], "out", device="cpu", branch_from=["first"])
    run_study(study.recipe, study.out, branch_from=study.branch_from)
    assert Path("out/control/trial-0/level-01/measured.json").is_file()


def test_what_a_study_left_that_never_began_is_no_record() -> None:
    run()
    Path("begun").mkdir()
    # As if the process had been killed before the recipe was written.
    shutil.copy("out/fingerprints.parquet", "begun")
    negative("task/train/a/0.png")
    assert run("begun") == []
    assert run("begun") == []
