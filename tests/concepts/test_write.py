from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prunescope.concepts import LabelledImage, check_concepts, open_concepts, write_concepts
from prunescope.errors import InputError
from tests.concepts.reading import concepts_of

NAMES = [f"concept {n}" for n in range(1, 401)]


def image(index: int, size: tuple[int, int] = (6, 8)) -> LabelledImage:
    rng = np.random.default_rng(index)
    layers = [rng.integers(0, 401, size) for _ in range(2)]
    return LabelledImage(
        f"street, old/{index}",
        rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        {"object": layers, "scene": [1 + index % 3]},
        "val" if index == 2 else "train",
    )


def written(folder: Path, images: Any, names: Any = NAMES, **given: Any) -> Path:
    return write_concepts(folder, images, names, categories=("object", "scene"), progress=False, **given)


def test_the_pixels_of_each_concept_are_those_that_were_given(tmp_path: Path) -> None:
    root = written(tmp_path / "out", (image(i) for i in range(4)), about={"from": "a test"})
    found = concepts_of(root)
    assert not check_concepts(root, progress=False).problems
    data = open_concepts(root)
    for i in range(4):
        given = image(i)
        mine = found[given.name]
        expected = {number for layer in given.labels["object"] for number in np.unique(layer).tolist()} - {0}
        assert {name for category, name in mine if category == "object"} == {NAMES[n - 1] for n in expected}
        for number in expected:
            pixels = np.any([layer == number for layer in given.labels["object"]], axis=0)
            np.testing.assert_array_equal(mine["object", NAMES[number - 1]], pixels)
        assert mine["scene", NAMES[i % 3]].all()
        np.testing.assert_array_equal(data.image(i), given.image)
    assert data.splits == ("train", "train", "val", "train")


def test_the_tables_count_images_and_pixels(tmp_path: Path) -> None:
    half = np.array([[1, 1, 0, 0]] * 2)
    pixels = np.zeros((2, 4, 3), np.uint8)
    images = [
        LabelledImage("a", pixels, {"object": [half, half], "scene": [3]}),
        LabelledImage("b", pixels, {"object": [half[:, ::-1]], "scene": [1]}, group="film"),
    ]
    root = written(tmp_path / "out", images, ["dog", "never there", "street"])
    with (root / "label.csv").open() as file:
        lines = list(csv.reader(file))
    assert lines[1:] == [
        ["1", "dog", "object(2);scene(1)", "3", "2.000000", ""],
        ["3", "street", "scene(1)", "1", "1.000000", ""],
    ]
    assert open_concepts(root).labels["category"].tolist() == ["object", "scene"]
    assert len(set(open_concepts(root).groups)) == 2


def test_several_processes_write_the_same_bytes_as_one(tmp_path: Path) -> None:
    one = written(tmp_path / "one", range(70), read=image, workers=1)
    two = written(tmp_path / "two", range(70), read=image, workers=2)
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(two) for path in two.rglob("*") if path.is_file())
    assert all((one / file).read_bytes() == (two / file).read_bytes() for file in files)


@pytest.mark.parametrize(
    ("form", "suffix", "same"), [("JPEG", "jpg", True), ("PNG", "png", True), ("BMP", "png", False)]
)
def test_the_content_of_a_jpeg_or_png_file_is_kept(tmp_path: Path, form: str, suffix: str, same: bool) -> None:
    content = BytesIO()
    Image.new("RGB", (8, 6), (9, 99, 199)).save(content, form)
    root = written(tmp_path / "out", [LabelledImage("a", content.getvalue(), {"scene": [1]})])
    assert ((root / f"images/pictures/a.{suffix}").read_bytes() == content.getvalue()) == same
    assert abs(open_concepts(root).image(0).astype(int) - (9, 99, 199)).max() <= 2


def stopping(error: BaseException) -> Iterator[LabelledImage]:
    yield image(0)
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_what_is_interrupted_leaves_nothing_and_can_be_run_again(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        written(tmp_path / "out", stopping(error))
    assert list(tmp_path.iterdir()) == []
    written(tmp_path / "out", [image(0)])


def test_a_folder_with_files_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="contains files already; remove it"):
        written(tmp_path, [image(0)])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


PIXELS = np.zeros((6, 8, 3), np.uint8)
made = partial(LabelledImage, "a", PIXELS)
BAD: list[tuple[Callable[[], list[LabelledImage]], str]] = [
    (list, "there is no image to write"),
    (lambda: [made()], "none of the 1 images has a label"),
    (lambda: [made({"scene": [1]}), made({"scene": [1]})], "two images called 'a'"),
    (lambda: [image(0), image(1, (6, 9))], r"street, old/1.png: 6 x 9 pixels .* 6 x 8; .*resize or crop them"),
    (lambda: [made({"object": [np.full((6, 8), 401)]})], "have the number 401; expected numbers from 0 .* to 400"),
    (lambda: [made({"object": [np.full((6, 8), -1)]})], "have the number -1"),
    (lambda: [made({"object": [np.zeros((6, 8))]})], "an array of float64; expected whole numbers"),
    (lambda: [made({"object": [np.eye(6, dtype=int), np.eye(8, dtype=int)]})], "expected one shape"),
    (lambda: [made({"parts": [1]})], "the category 'parts'; there are: object, scene"),
    (lambda: [LabelledImage("../a", PIXELS)], "'../a' leaves the folder; rename it"),
    (lambda: [LabelledImage("a;b", PIXELS)], "'a;b' has a semicolon"),
    (lambda: [LabelledImage("a", b"no image")], "the image 'a' cannot be read: its format is not supported"),
    (lambda: [LabelledImage("a", PIXELS[..., 0])], r"an array \[6, 8\] of uint8; expected uint8 \[ih, iw, 3\]"),
]  # fmt: skip


@pytest.mark.parametrize(("images", "said"), BAD)
def test_images_that_cannot_be_written_are_refused(tmp_path: Path, images: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        written(tmp_path / "out", images())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("names", [["dog", "dog"], [], [" dog"], ["a\nb"], ["x"] * 2])
def test_names_that_cannot_be_written_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(InputError, match=r"there twice|there are 0|has the name"):
        written(tmp_path / "out", [image(0)], names)
