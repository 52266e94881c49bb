"""Image data sets of Hugging Face's library: saved on disk or in folders, their columns found or told."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prunescope.errors import InputError
from prunescope.fingerprints import Difference, Fingerprint, difference, take_fingerprint
from prunescope.hashes import Hashes
from prunescope.tasks import Task, open_task
from prunescope.tasks.contents import classes_of, list_task
from prunescope.tasks.huggingface import Rows
from prunescope.tasks.order import Plan
from prunescope.tasks.sources import HuggingFace

datasets = pytest.importorskip("datasets")

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _quiet_and_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for name in ("datasets.config.HF_HUB_OFFLINE", "huggingface_hub.constants.HF_HUB_OFFLINE"):
        monkeypatch.setattr(name, True)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def picture(shade: int, width: int = 24, height: int = 20) -> Image.Image:
    return Image.fromarray(np.full((height, width, 3), shade, np.uint8))


def encoded(shade: int) -> bytes:
    buffer = io.BytesIO()
    picture(shade).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def encoded_floats() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((20, 24), 0.5, np.float32)).save(buffer, "TIFF")
    return buffer.getvalue()


def split(labels: list[Any], label: Any = None, image: str = "image", name: str = "label") -> Any:
    """Make a data set whose image i has the shade 10 i."""
    features = datasets.Features(
        {
            image: datasets.Image(),
            name: label if label is not None else datasets.ClassLabel(names=["cat", "dog"]),
            "number": datasets.Value("float32"),
        }
    )
    rows = {
        image: [{"bytes": encoded(10 * i), "path": None} for i in range(len(labels))],
        name: labels,
        "number": [0.5] * len(labels),
    }
    return datasets.Dataset.from_dict(rows, features=features)


def saved(folder: Path, **splits: Any) -> str:
    datasets.DatasetDict(splits).save_to_disk(str(folder / "saved"))
    return str(folder / "saved")


def opened(name: str | Path, size: int = 16, in_memory: bool = False, workers: int = 0, **fields: Any) -> Task:
    return open_task(
        HuggingFace.model_validate({"huggingface": str(name)} | fields),
        size=size,
        augmentation="flip",
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        in_memory=in_memory,
        workers=workers,
    )


def shades(task: Task) -> list[int]:
    images = torch.cat([batch.images for batch in task.validation_batches(3, CPU)])
    return (images.mean((1, 2, 3)) * 255).round().int().tolist()


def near(found: list[int], expected: list[int]) -> bool:
    """Compare what JPEG has changed a little."""
    return len(found) == len(expected) and all(
        abs(one - other) <= 2 for one, other in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_saved_on_disk_is_read_as_it_is(tmp_path: Path, workers: int) -> None:
    task = opened(saved(tmp_path, train=split([0, 1, 1, 0]), validation=split([1, 0, 1])), workers=workers)
    assert task.classes == ("cat", "dog")
    assert task.train.targets.tolist() == [0, 1, 1, 0]
    assert task.val.targets.tolist() == [1, 0, 1]
    assert near(shades(task), [0, 10, 20])
    batch = next(task.training_batches(Plan(4, 4, 0), 0, 1, CPU))
    assert batch.images.shape == (4, 3, 16, 16)
    order = next(Plan(4, 4, 0).batches(0, 1))[1].tolist()
    assert batch.targets.tolist() == task.train.targets[order].tolist()
    assert near((batch.images.mean((1, 2, 3)) * 255).round().int().tolist(), [10 * place for place in order])


def test_images_of_the_right_size_can_be_held_in_memory(tmp_path: Path) -> None:
    small = split([0, 1]).cast_column("image", datasets.Image())
    small = small.map(lambda _row, place: {"image": picture(10 * place, 16, 16)}, with_indices=True)
    name = saved(tmp_path, train=small, test=small)
    assert shades(opened(name, in_memory=True)) == [0, 10]
    with pytest.raises(InputError, match=r"split train, image 0: the image is 16 x 16, expected 32 x 32"):
        opened(name, size=32, in_memory=True)


def test_a_folder_of_images_by_split_and_class_is_read(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / "pets" / part / name
            folder.mkdir(parents=True)
            for number in range(2):
                picture(100 * label + 10 * number).save(folder / f"{number}.png")
    task = opened(tmp_path / "pets")
    assert task.classes == ("cat", "dog")
    assert sorted(zip(shades(task), task.val.targets.tolist(), strict=True)) == [(0, 0), (10, 0), (100, 1), (110, 1)]


def test_parquet_files_as_the_hub_holds_them_are_read(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    split([0, 1, 1]).to_parquet(str(tmp_path / "pets" / "train-0.parquet"))
    split([1, 0]).to_parquet(str(tmp_path / "pets" / "validation-0.parquet"))
    task = opened(tmp_path / "pets")
    assert task.val.targets.tolist() == [1, 0]
    assert near(shades(task), [0, 10])


@pytest.mark.parametrize(
    ("label", "labels", "classes", "targets"),
    [
        ("int64", [10, 9, 10], ("9", "10"), [1, 0, 1]),
        ("string", ["dog", "cat", "dog"], ("cat", "dog"), [1, 0, 1]),
        ("large_string", ["dog", "cat", "dog"], ("cat", "dog"), [1, 0, 1]),
        ("bool", [True, False, True], ("False", "True"), [1, 0, 1]),
    ],
)
def test_labels_that_are_plain_values_are_sorted(
    tmp_path: Path, label: str, labels: list[Any], classes: tuple[str, ...], targets: list[int]
) -> None:
    value = datasets.Value(label)
    task = opened(saved(tmp_path, train=split(labels, value), val=split(labels[1:], value)))
    assert task.classes == classes
    assert task.train.targets.tolist() == targets
    assert task.val.targets.tolist() == targets[1:]


def test_splits_and_columns_of_other_names_can_be_told(tmp_path: Path) -> None:
    part = split([1, 0], image="photo", name="animal").add_column("label", ["x", "y"])
    name = saved(tmp_path, first=part, second=part.select([1]))
    task = opened(name, train="first", validation="second")
    assert task.val.targets.tolist() == [0]
    assert opened(name, train="first", validation="second", label="label", image="photo").classes == ("x", "y")


CLASSES = datasets.ClassLabel(names=["cat", "dog"])
TWO_LABELS = split([0, 1], name="fine").add_column("coarse", [0, 1]).cast_column("coarse", CLASSES)


@pytest.mark.parametrize(
    ("splits", "fields", "message"),
    [
        ({"train": split([0])}, {}, r"no split called validation or .* or test; there are: train; .* `validation`"),
        ({"a": split([0]), "test": split([0])}, {}, r"no split called train or training; there are: a, test"),
        (
            {"train": split([0]), "test": split([0])},
            {"train": "trian"},
            r"no split 'trian' \(train\); the nearest are: t",
        ),
        ({"train": split([]), "test": split([0])}, {}, "datasets cannot load it"),
        ({"train": split([0]), "test": split([0])}, {"label": "lable"}, r"no column 'lable' \(label\); .*: label"),
        (
            {"train": split([0]), "test": split([0])},
            {"label": "number"},
            r"'number' \(label\) contains .*float32.*classes",
        ),
        (
            {"train": split([0]), "test": split([0])},
            {"image": "number"},
            r"'number' \(image\) contains .*expected images",
        ),
        (
            {"train": split([0], name="x").remove_columns("x")},
            {"validation": "train"},
            r"no column .* classes .*`label`",
        ),
        ({"train": split([0]).remove_columns("image")}, {"validation": "train"}, r"no column .* images; .*`image`"),
        (
            {"train": TWO_LABELS},
            {"validation": "train"},
            r"several columns contain classes .*: fine, coarse; .* `label`",
        ),
        ({"train": split([0]), "test": split([0, -1])}, {}, r"1 of 2 images have no class .* image 1 \(-1\).*another"),
        ({"train": split([0]), "test": split([0, None])}, {}, r"1 of 2 images have no class .* image 1 \(None\)"),
        (
            {"train": split([0]), "test": split([0], datasets.ClassLabel(names=["dog", "cat"]))},
            {},
            "its 2 classes differ from the 2 classes of split train",
        ),
        (
            {"train": split(["a"], datasets.Value("string")), "test": split(["b"], datasets.Value("string"))},
            {},
            "contains b, which the training split does not contain",
        ),
    ],
)
def test_what_is_missing_or_ambiguous_is_named(
    tmp_path: Path, splits: dict[str, Any], fields: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message) as raised:
        opened(saved(tmp_path, **splits), **fields)
    assert str(raised.value).startswith(str(tmp_path / "saved"))


@pytest.mark.parametrize(("kind", "columns"), [("torch", ["label"]), ("arrow", None), ("pandas", None)])
def test_how_a_saved_data_set_would_show_its_rows_changes_nothing(
    tmp_path: Path, kind: str, columns: list[str] | None
) -> None:
    part = split([0, 1, 1])
    part.set_format(kind, columns=columns)
    task = opened(saved(tmp_path, train=part, test=part))
    assert near(shades(task), [0, 10, 20])
    assert task.train.targets.tolist() == [0, 1, 1]


def test_a_single_split_is_not_enough(tmp_path: Path) -> None:
    split([0, 1]).save_to_disk(str(tmp_path / "one"))
    with pytest.raises(InputError, match="is a single split; save a DatasetDict"):
        opened(tmp_path / "one")


@pytest.mark.parametrize("name", ["nobody/nothing", "no such name at all"])
def test_a_name_that_cannot_be_loaded_is_named(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: datasets cannot load it .* a name on the hub, a folder"):
        opened(name)


def test_a_folder_that_is_no_data_set_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: datasets cannot load it"):
        opened(tmp_path / "empty")
    (tmp_path / "empty" / "dataset_dict.json").write_text("{not json")
    with pytest.raises(InputError, match="empty: datasets cannot load it"):
        opened(tmp_path / "empty")


def test_a_data_set_that_brings_code_is_refused_and_the_code_is_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "script"
    folder.mkdir()
    (folder / "script.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(InputError, match="script: datasets cannot load it"):
        opened(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"bytes": b"no image", "path": None}, "split test, image 1: cannot be read as an image"),
        ({"bytes": encoded(50)[:300], "path": None}, "split test, image 1: cannot be read as an image"),
        (
            {"bytes": None, "path": "/etc/hostname"},
            "image 1: cannot be read as an image .*refers to the file /etc/hostname, outside",
        ),
        (
            {"bytes": None, "path": "../../x.png"},
            r"image 1: cannot be read as an image .*refers to the file \.\./\.\./x.png, outside",
        ),
        ({"bytes": None, "path": "gone.png"}, "image 1: cannot be read as an image .*No such file"),
        (None, "image 1: cannot be read as an image .*the row has no image"),
        (
            {"bytes": encoded_floats(), "path": None},
            "image 1: .*the mode F, 32-bit floats .*; save it with 8 or 16 bits",
        ),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named(
    tmp_path: Path, row: dict[str, Any] | None, message: str, workers: int
) -> None:
    name = with_row(tmp_path, row)
    with pytest.raises(InputError, match=message):
        list(opened(name, workers=workers).validation_batches(2, CPU))


def with_row(tmp_path: Path, row: dict[str, Any] | None) -> str:
    """Save a data set whose second validation image is `row`: by hand, since the library would refuse it."""
    import pyarrow as pa

    name = saved(tmp_path, train=split([0, 1]), test=split([0, 1]))
    features = datasets.Features({"image": datasets.Image(), "label": CLASSES})
    table = pa.table({"image": [{"bytes": encoded(0), "path": None}, row], "label": [0, 1]})
    table = table.cast(features.arrow_schema)
    folder = Path(name) / "test"
    (file,) = folder.glob("*.arrow")
    with pa.ipc.new_stream(str(file), table.schema) as stream:
        stream.write_table(table)
    datasets.DatasetInfo(features=features).write_to_directory(str(folder))
    return name


def test_images_that_the_library_unpacked_are_read_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    picture(50).save(tmp_path / "cache" / "x.png")
    task = opened(with_row(tmp_path, {"bytes": None, "path": str(tmp_path / "cache" / "x.png")}))
    assert shades(task) == [0, 50]


def test_without_the_library_its_installation_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'prunescope\[datasets\]'"):
        opened("some/name")


def identity(folder: Path) -> list[Fingerprint]:
    origin = HuggingFace(huggingface=str(folder))
    classes = classes_of(origin, 16)
    assert classes is not None
    return [take_fingerprint(list_task(origin), Hashes())[0], classes]


def test_a_saved_data_set_is_known_by_its_content_wherever_it_is(tmp_path: Path) -> None:
    name = saved(tmp_path / "one", train=split([0, 1]), test=split([0, 1]))
    files, classes = identity(Path(name))
    assert "train/data-00000-of-00001.arrow" in files.names
    assert classes.names == ["classes of the training images", "classes of the validation images"]
    moved = Path(name).rename(tmp_path / "moved")
    # What the library keeps in the folder of its own is no change.
    (moved / "train" / "cache-0123456789abcdef.arrow").write_bytes(b"x")
    (moved / ".cache").mkdir()
    (moved / ".cache" / "lock").write_text("x")
    assert [difference(*both) for both in zip([files, classes], identity(moved), strict=True)] == [None, None]
    relabelled = Path(saved(tmp_path / "other", train=split([0, 1]), test=split([1, 0])))
    files_there, classes_there = identity(relabelled)
    assert difference(classes, classes_there) == Difference(["classes of the validation images"], [], [])
    changed = difference(files, files_there)
    assert changed is not None
    assert "test/data-00000-of-00001.arrow" in changed.changed


def test_a_data_set_on_the_hub_is_known_by_the_librarys_fingerprint(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    folder.mkdir()
    split([0, 1, 1]).to_parquet(str(folder / "train-0.parquet"))
    split([1, 0]).to_parquet(str(folder / "validation-0.parquet"))
    # The library names what it has loaded by where it comes from, whether that is a folder or the hub.
    task = opened(folder)
    assert isinstance(task.train.images, Rows)
    assert task.train.images.fingerprint == datasets.load_dataset(str(folder))["train"]._fingerprint
    assert list_task(HuggingFace(huggingface="owner/name")).names == []
