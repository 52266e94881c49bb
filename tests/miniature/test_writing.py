from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunescope.concepts import open_concepts
from prunescope.devices import import_torchvision
from prunescope.errors import InputError
from prunescope.miniature import CATEGORIES, COLORS, NAMES, SCENES, color_places, draw, make_miniature, write

from .conftest import IMAGES, SEED


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def numbers(folder: Path, name: str) -> np.ndarray:
    pixels = np.asarray(Image.open(folder / "images" / name)).astype(int)
    return pixels[..., 0] + 256 * pixels[..., 1]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_an_image_is_the_same_for_any_number_of_images_and_of_workers(tmp_path: Path) -> None:
    few = contents(make_miniature(tmp_path / "few", 40, seed=SEED, workers=1))
    many = contents(make_miniature(tmp_path / "many", 100, seed=SEED, workers=3))
    pictures = [name for name in few if name.endswith(".png")]
    assert len(pictures) > 5 * 40
    assert all(many[name] == few[name] for name in pictures)


def test_the_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    one = contents(make_miniature(tmp_path / "one", 70, seed=1, workers=1))
    assert contents(make_miniature(tmp_path / "three", 70, seed=1, workers=3)) == one


def test_the_index_names_every_image_with_its_split_sizes_and_scene(made: Path) -> None:
    rows = table(made / "index.csv")
    scenes = {int(row["number"]): row["name"] for row in table(made / "c_scene.csv")}
    assert len(rows) == IMAGES
    for index, row in enumerate(rows):
        assert (row["ih"], row["iw"], row["sh"], row["sw"]) == ("64", "64", "64", "64")
        assert row["split"] == ("val" if index // 16 % 4 == 3 else "train")
        assert scenes[int(row["scene"])] == SCENES[index % 16]


def test_the_written_pictures_are_the_drawn_ones(made: Path) -> None:
    rows = table(made / "index.csv")
    by_number = {int(row["number"]): row["name"] for row in table(made / "label.csv")}
    for index in range(0, IMAGES, 37):
        picture = draw(SEED, index)
        assert (np.asarray(Image.open(made / "images" / rows[index]["image"])) == picture.image).all()
        for category, layers in picture.layers.items():
            files = rows[index][category].split(";") if rows[index][category] else []
            drawn = [layer for layer in layers if layer.any()]
            assert len(files) == len(drawn)
            for name, layer in zip(files, drawn, strict=True):
                names = ["", *NAMES[category]]
                for number, place in set(zip(numbers(made, name).ravel(), layer.ravel(), strict=True)):
                    assert by_number.get(number, "") == names[place]


def test_the_color_labels_agree_with_the_images(made: Path) -> None:
    first = {row["name"]: int(row["number"]) for row in table(made / "c_color.csv")}
    lookup = np.array([first[name] for name in COLORS])
    for row in table(made / "index.csv")[::29]:
        image = np.asarray(Image.open(made / "images" / row["image"]))
        assert (numbers(made, row["color"]) == lookup[color_places(image)]).all()


def test_frequency_and_coverage_are_what_the_images_hold(made: Path) -> None:
    data = open_concepts(made)
    frequency: Counter[int] = Counter()
    pixels: Counter[int] = Counter()
    for i in range(len(data)):
        labels = data.image_labels(i)
        area = np.bincount(labels.codes.ravel(), minlength=len(labels.starts) - 1)
        here: Counter[int] = Counter()
        for code, count in enumerate(area):
            for number in labels.numbers[labels.starts[code] : labels.starts[code + 1]]:
                here[int(number)] += int(count)
        pixels.update(here)
        frequency.update(number for number, count in here.items() if count)
    for row in table(made / "label.csv"):
        number = int(row["number"])
        assert int(row["frequency"]) == frequency[number], row
        assert float(row["coverage"]) == pytest.approx(pixels[number] / 64**2, abs=1e-5), row


def test_the_tables_agree_with_each_other(made: Path) -> None:
    labels = {row["number"]: row for row in table(made / "label.csv")}
    categories = table(made / "category.csv")
    assert tuple(row["name"] for row in categories) == CATEGORIES
    for category in categories:
        codes = table(made / f"c_{category['name']}.csv")
        assert [code["code"] for code in codes] == [str(place) for place in range(1, len(codes) + 1)]
        assert [code["number"] for code in codes] == [
            str(number) for number in range(int(category["first"]), int(category["last"]) + 1)
        ]
        assert int(category["count"]) == len(codes)
        for code in codes:
            label = labels.pop(code["number"])
            assert label["name"] == code["name"]
            assert label["category"] == f"{category['name']}({code['frequency']})"
            assert (label["frequency"], label["coverage"]) == (code["frequency"], code["coverage"])
    assert not labels


def test_every_concept_occurs_and_none_but_common_colors_is_too_large_to_be_found(made: Path) -> None:
    found = 0
    for row in table(made / "label.csv"):
        share = float(row["coverage"]) / IMAGES
        assert int(row["frequency"]) > 0, row["name"]
        if not row["category"].startswith("color"):
            assert share < 0.08, row["name"]
        found += 0.003 <= share <= 0.05
    assert found >= 40


def test_the_classification_task_holds_the_same_images_by_scene(made: Path) -> None:
    folder = import_torchvision().datasets.ImageFolder
    train, val = (folder(str(made / "classification" / split)) for split in ("train", "val"))
    assert set(train.classes) == set(val.classes) == set(SCENES)
    assert (len(train), len(val)) == (IMAGES * 3 // 4, IMAGES // 4)
    for file, target in [*train.samples, *val.samples]:
        index = int(Path(file).stem)
        assert train.classes[target] == SCENES[index % 16]
        assert Path(file).read_bytes() == (made / "images" / Path(file).name).read_bytes()


def test_making_the_same_again_does_nothing(made: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in made.rglob("*")}
    assert make_miniature(made, IMAGES, seed=SEED) == made
    assert {file: file.stat().st_mtime_ns for file in made.rglob("*")} == before


def test_another_miniature_in_the_folder_is_refused_and_told(made: Path) -> None:
    with pytest.raises(
        InputError, match=f"contains a miniature of other settings .*seed {SEED}.* than the given ones .*seed 78"
    ):
        make_miniature(made, IMAGES, seed=SEED + 1)
    assert contents(made)["index.csv"]


def test_a_folder_with_something_else_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(InputError, match="contains other files"):
        make_miniature(tmp_path, 16, seed=0)
    with pytest.raises(InputError, match="is a file"):
        make_miniature(tmp_path / "thesis.txt", 16, seed=0)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_mark_is_refused(tmp_path: Path) -> None:
    (tmp_path / "miniature.json").write_text("[1")
    with pytest.raises(InputError, match=r"miniature\.json: cannot be read"):
        make_miniature(tmp_path, 16, seed=0)


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert len(open_concepts(make_miniature(tmp_path, 16, seed=0))) == 16


@pytest.mark.parametrize(
    ("images", "seed", "size", "told"),
    [(0, 0, 64, "images is 0"), (16, -1, 64, "seed is -1"), (16, 2**64, 64, "seed"), (16, 0, 8, "size is 8")],
)
def test_a_number_out_of_range_is_refused(tmp_path: Path, images: int, seed: int, size: int, told: str) -> None:
    with pytest.raises(InputError, match=told):
        make_miniature(tmp_path / "new", images, seed=seed, size=size)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_miniature_leaves_nothing(tmp_path: Path, error: BaseException, workers: int) -> None:
    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise error

    with pytest.raises(type(error)):
        make_miniature(tmp_path / "new", 160, seed=0, workers=workers, progress=stop)
    assert not list(tmp_path.iterdir())


def test_a_failure_in_a_worker_reaches_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Path, _pixels: np.ndarray) -> None:
        raise OSError(28, "No space left on device", str(file))

    monkeypatch.setattr(write, "save_png", full)
    with pytest.raises(OSError, match="No space left"):
        make_miniature(tmp_path / "new", 160, seed=0, workers=2)
    assert not list(tmp_path.iterdir())


def test_progress_ends_at_the_number_of_images(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    make_miniature(tmp_path / "new", 50, seed=0, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (50, 50)
    assert all(total == 50 for _, total in seen)


def test_without_hard_links_the_classification_holds_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Path, _target: Path) -> None:
        raise PermissionError("hard links")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    folder = make_miniature(tmp_path / "new", 16, seed=0, workers=1)
    copy = folder / "classification" / "train" / SCENES[2] / "000002.png"
    assert copy.read_bytes() == (folder / "images" / "000002.png").read_bytes()
    assert copy.stat().st_nlink == 1


def test_what_another_process_made_meanwhile_is_taken(tmp_path: Path) -> None:
    theirs = make_miniature(tmp_path / "theirs", 16, seed=SEED, workers=1)
    folder = tmp_path / "world"
    made = make_miniature(folder, 16, seed=SEED, workers=1, progress=lambda *_: theirs.rename(folder))
    assert made == folder
    assert (folder / "index.csv").is_file()
    assert [entry.name for entry in tmp_path.iterdir()] == ["world"]


def test_another_miniature_that_came_meanwhile_is_refused_and_stays(tmp_path: Path) -> None:
    theirs = make_miniature(tmp_path / "theirs", 16, seed=SEED + 1, workers=1)
    folder = tmp_path / "world"
    with pytest.raises(InputError, match="contains a miniature of other settings"):
        make_miniature(folder, 16, seed=SEED, workers=1, progress=lambda *_: theirs.rename(folder))
    assert [entry.name for entry in tmp_path.iterdir()] == ["world"]
