"""Reading a data set in Broden's format."""

from __future__ import annotations

import os
import pickle
import struct
import tempfile
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prunescope.concepts import ConceptData, ImageLabels, check_concepts, open_concepts, pack_concepts, permute_labels
from prunescope.errors import InputError
from tests.concepts.small import change, save_layer, two_images, write_concepts
from tests.reference.labels import plain_labels

GOLDEN = Path(__file__).parents[1] / "golden" / "dissection"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return two_images(tmp_path / "data")


def concepts_of(labels: ImageLabels) -> dict[int, np.ndarray]:
    """Unfold a palette into a mask for each concept, refusing one that stands twice in a row."""
    masks: dict[int, np.ndarray] = {}
    for row, (start, stop) in enumerate(zip(labels.starts[:-1], labels.starts[1:], strict=True)):
        numbers = labels.numbers[start:stop].tolist()
        assert sorted(set(numbers)) == numbers
        for number in numbers:
            masks[number] = masks.get(number, np.zeros(labels.codes.shape, dtype=bool)) | (labels.codes == row)
    return masks


def assert_same_labels(labels: ImageLabels, plain: dict[int, np.ndarray]) -> None:
    masks = concepts_of(labels)
    assert sorted(masks) == sorted(plain)
    for number, mask in masks.items():
        np.testing.assert_array_equal(mask, plain[number])


def test_every_image_of_the_golden_data_set_has_the_labels_of_the_plain_reading() -> None:
    data = open_concepts(GOLDEN / "concepts")
    for i in range(0, len(data), 4):
        assert_same_labels(data.image_labels(i), plain_labels(data.root, i))


def test_the_golden_data_set_has_the_published_numbers_of_labelled_pixels() -> None:
    data = open_concepts(GOLDEN / "concepts")
    truth = pd.Series(0, index=data.labels.index)
    for i in range(len(data)):
        for number, mask in concepts_of(data.image_labels(i)).items():
            truth[number] += mask.sum()
    expected = pd.read_csv(GOLDEN / "pairs_image.csv").drop_duplicates("number").set_index("number")
    assert truth[expected.index].tolist() == expected["truth"].tolist()
    assert data.labels.loc[expected.index, "category"].tolist() == expected["category"].tolist()
    assert data.labels.loc[expected.index, "name"].tolist() == expected["label"].tolist()


def test_the_golden_tables_are_read_as_they_stand() -> None:
    data = open_concepts(GOLDEN / "concepts")
    assert data.categories == ("color", "object", "part", "material", "scene", "texture")
    assert (len(data), data.image_size, data.label_size) == (48, (224, 224), (112, 112))
    assert (data.names[4], data.splits[3:5]) == ("made/00004.jpg", ("train", "val"))
    assert data.labels.loc[15].tolist() == ["fabric", "material", ("object", "material")]
    assert 9 not in data.labels.index
    assert data.image(0).shape == (224, 224, 3)
    assert data.image(0).dtype == np.uint8


@st.composite
def data_sets(draw: st.DrawFn) -> tuple[list[dict[str, list[int | np.ndarray]]], dict[int, str], tuple[int, int]]:
    categories = draw(st.lists(st.sampled_from(["color", "object", "part", "scene"]), min_size=1, unique=True))
    numbers = draw(st.lists(st.sampled_from([1, 2, 255, 256, 257, 511, 65535]), min_size=1, unique=True))
    labels = {number: draw(st.sampled_from(categories)) for number in numbers} | {
        1000 + at: category for at, category in enumerate(categories)
    }
    size = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    pixel = st.sampled_from([0, *numbers])
    layer = st.lists(pixel, min_size=size[0] * size[1], max_size=size[0] * size[1]).map(
        lambda cells: np.array(cells).reshape(size)
    )
    item = st.one_of(st.sampled_from([0, *labels]), layer)
    image = st.dictionaries(st.sampled_from(categories), st.lists(item, max_size=4))
    return draw(st.lists(image, min_size=1, max_size=2)), labels, size


@settings(max_examples=60, deadline=None)
@given(data_sets())
def test_any_data_set_has_the_labels_of_the_plain_reading(
    content: tuple[list[dict[str, list[int | np.ndarray]]], dict[int, str], tuple[int, int]],
) -> None:
    images, labels, size = content
    with tempfile.TemporaryDirectory() as root:
        data = open_concepts(write_concepts(Path(root), images, labels, label_size=size))
        for i in range(len(data)):
            assert_same_labels(data.image_labels(i), plain_labels(data.root, i))


def test_more_layers_than_fit_one_key_are_told_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    layers = [rng.integers(0, 4, (7, 9)) * 20000 for _ in range(11)]
    labels = {20000: "part", 40000: "part", 60000: "part"}
    data = open_concepts(write_concepts(tmp_path, [{"part": layers}], labels, label_size=(7, 9)))
    assert_same_labels(data.image_labels(0), plain_labels(data.root, 0))


def test_a_palette_of_more_than_65536_rows_has_wider_codes(tmp_path: Path) -> None:
    layers = [np.arange(260 * 260).reshape(260, 260) % 260 + 1, np.arange(260 * 260).reshape(260, 260) // 260 + 1]
    labels = dict.fromkeys(range(1, 261), "part")
    data = open_concepts(write_concepts(tmp_path, [{"part": layers}], labels, label_size=(260, 260)))
    found = data.image_labels(0)
    assert found.codes.dtype == np.uint32
    assert len(found.starts) == 260 * 260 + 1
    row = found.codes[7, 5]
    assert found.numbers[found.starts[row] : found.starts[row + 1]].tolist() == [6, 8]


def test_an_image_without_labels_has_one_empty_row(tmp_path: Path) -> None:
    data = open_concepts(write_concepts(tmp_path, [{}, {"object": [1]}], {1: "object"}))
    labels = data.image_labels(0)
    assert labels.starts.tolist() == [0, 0]
    assert not labels.codes.any()


def test_the_primary_category_is_the_one_with_most_coverage(folder: Path) -> None:
    (folder / "c_object.csv").write_text("code,number,name,frequency,coverage\n1,300,x,9,0.25\n")
    (folder / "c_material.csv").write_text("code,number,name,frequency,coverage\n1,300,x,1,0.5\n")
    assert open_concepts(folder).labels.loc[300, "category"] == "material"


def test_without_coverage_the_counts_of_label_csv_decide_and_then_the_order(folder: Path) -> None:
    assert open_concepts(folder).labels.loc[300, "category"] == "object"
    change(folder / "label.csv", "object(2);material(1)", "object(2);material(3)")
    assert open_concepts(folder).labels.loc[300, "category"] == "material"
    change(folder / "label.csv", "object(2);material(3)", "material;object")
    assert open_concepts(folder).labels.loc[300, "category"] == "material"


def test_concepts_are_in_the_order_of_their_numbers_whatever_the_order_of_label_csv(folder: Path) -> None:
    header, *lines = (folder / "label.csv").read_text().splitlines()
    (folder / "label.csv").write_text("\n".join([header, *lines[::-1]]))
    assert open_concepts(folder).labels["name"].to_dict() == {n: f"concept{n}" for n in (1, 2, 7, 300)}
    assert open_concepts(folder).labels.index.is_monotonic_increasing


def test_coverage_of_one_category_alone_decides_nothing(folder: Path) -> None:
    (folder / "c_material.csv").write_text("code,number,name,frequency,coverage\n1,300,x,1,9.5\n")
    (folder / "c_object.csv").write_text("code,number,name,frequency,coverage\n1,300,x,1,\n")
    assert open_concepts(folder).labels.loc[300, "category"] == "object"


def test_a_byte_order_mark_crlf_and_quoted_cells_change_nothing(folder: Path) -> None:
    expected = open_concepts(folder)
    for table in ("index.csv", "label.csv", "category.csv"):
        lines = (folder / table).read_text().splitlines()
        quoted = [",".join(f'"{cell}"' for cell in line.split(",")) for line in lines]
        (folder / table).write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*quoted, ""]).encode())
    found = open_concepts(folder)
    assert (found.names, found.splits, found.categories) == (expected.names, expected.splits, expected.categories)
    pd.testing.assert_frame_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.image_labels(1).codes, expected.image_labels(1).codes)


def test_columns_may_be_absent_that_nothing_depends_on(folder: Path) -> None:
    for table, kept in {"index.csv": [0, 2, 3, 4, 5, 6, 7, 8], "label.csv": [0, 1, 2], "category.csv": [0]}.items():
        lines = (folder / table).read_text().splitlines()
        (folder / table).write_text("\n".join(",".join(line.split(",")[at] for at in kept) for line in lines))
    data = open_concepts(folder)
    assert data.splits == ("train", "train")
    assert 7 in concepts_of(data.image_labels(0))


def test_a_name_may_hold_commas_quotes_and_markup(folder: Path) -> None:
    change(folder / "label.csv", "concept7", '"<script>alert(""1"")</script>, really"')
    assert open_concepts(folder).labels.loc[7, "name"] == '<script>alert("1")</script>, really'


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1"])
def test_images_of_other_plain_modes_are_read_as_rgb(folder: Path, mode: str) -> None:
    path = folder / "images" / "made" / "0.png"
    Image.open(path).convert(mode).save(path)
    expected = np.asarray(Image.open(path).convert("RGB"))
    np.testing.assert_array_equal(open_concepts(folder).image(0), expected)


def test_a_jpeg_is_an_image_whatever_its_name(folder: Path) -> None:
    path = folder / "images" / "made" / "0.png"
    Image.open(path).save(path, format="JPEG")
    assert open_concepts(folder).image(0).shape == (6, 8, 3)


def test_the_alpha_of_a_label_layer_says_nothing(folder: Path) -> None:
    expected = concepts_of(open_concepts(folder).image_labels(0))
    thing = np.array([[1, 1, 0, 0], [1, 2, 2, 0], [0, 0, 300, 300]])
    save_layer(folder / "images" / "made" / "0_object0.png", thing, "RGBA")
    found = concepts_of(open_concepts(folder).image_labels(0))
    assert {number: mask.tolist() for number, mask in found.items()} == {
        number: mask.tolist() for number, mask in expected.items()
    }


def damage(folder: Path, how: str) -> Path:
    """Damage the first image's object layer; return the file."""
    path = folder / "images" / "made" / "0_object0.png"
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("not an image")
    elif how == "a folder":
        path.unlink()
        path.mkdir()
    elif how == "too large":
        save_layer(path, np.ones((30, 40), dtype=int))
    elif how == "undefined":
        save_layer(path, np.full((3, 4), 777))
    else:
        Image.open(path).convert(how).save(path)
    return path


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "no such file"),
        ("truncated", "cannot be read"),
        ("empty", "cannot be read"),
        ("text", "cannot be read"),
        ("a folder", "cannot be read"),
        ("too large", "is 30 x 40 pixels (height x width), but the index states 3 x 4"),
        ("undefined", "label 777"),
        ("P", "mode P"),
        ("L", "mode L"),
        ("I;16", "mode I;16"),
    ],
)
def test_a_damaged_layer_is_named_with_its_line_when_it_is_read_and_not_before(
    folder: Path, how: str, said: str
) -> None:
    path = damage(folder, how)
    data = open_concepts(folder)
    data.image_labels(1)
    with pytest.raises(InputError) as raised:
        data.image_labels(0)
    assert str(path) in str(raised.value)
    assert "index.csv, line 2" in str(raised.value)
    assert said in str(raised.value)


def test_a_truncated_jpeg_is_named(tmp_path: Path) -> None:
    root = write_concepts(tmp_path, [{"object": [1]}], {1: "object"}, image_size=(64, 64))
    path = root / "images" / "made" / "0.png"
    Image.open(path).save(path, format="JPEG")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"made/0\.png: cannot be read as JPEG or PNG: .*truncated"):
        open_concepts(root).image(0)


def test_label_layers_of_16_bits_a_channel_are_refused_since_half_of_each_number_would_be_lost(folder: Path) -> None:
    thing = np.array([[1, 1, 0, 0], [1, 2, 2, 0], [0, 0, 300, 300]])
    rows = np.stack([thing % 256, thing // 256, np.zeros_like(thing)], axis=2).astype(">u2")
    header = struct.pack(">IIBBBBB", 4, 3, 16, 2, 0, 0, 0)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    content = [struct.pack(">I", len(c)) + name + c + struct.pack(">I", zlib.crc32(name + c)) for name, c in chunks]
    (folder / "images" / "made" / "0_object0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(content))
    with pytest.raises(
        InputError, match=r"0_object0\.png: .*it has 16 bits a channel; expected an RGB PNG with 8 bits"
    ):
        open_concepts(folder).image_labels(0)


def test_labels_that_no_memory_could_hold_are_refused_with_the_line_of_the_index(folder: Path) -> None:
    change(folder / "index.csv", ",6,8,3,4,", ",6,8,30000,30000,")
    with pytest.raises(InputError, match=r"index\.csv:2: ih,iw,sh,sw are 6,8,30000,30000.*178956970 pixels"):
        open_concepts(folder)


@pytest.mark.parametrize("name", ["category.csv", "images/made/0.png", "images/made/0_object0.png"])
def test_a_pipe_is_refused_instead_of_waiting_for_it(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    problems = [str(problem) for problem in check_concepts(folder).problems]
    assert any("Not a regular file" in problem and name in problem for problem in problems)
    with pytest.raises(InputError, match="Not a regular file"):
        pack_concepts(folder, workers=1)


def test_a_file_that_is_a_link_out_of_the_folder_is_not_read(folder: Path, tmp_path: Path) -> None:
    path = folder / "images" / "made" / "0.png"
    path.rename(tmp_path / "secret.png")
    path.symlink_to(tmp_path / "secret.png")
    with pytest.raises(InputError, match="link that leaves the folder"):
        open_concepts(folder).image(0)


def test_a_link_that_stays_inside_is_read(folder: Path) -> None:
    path = folder / "images" / "made" / "0.png"
    path.rename(folder / "images" / "elsewhere.png")
    path.symlink_to(folder / "images" / "elsewhere.png")
    assert open_concepts(folder).image(0).shape == (6, 8, 3)


def read_in_process(data: ConceptData, i: int) -> tuple[int, int]:
    labels = data.image_labels(i)
    return int(data.image(i).sum()), int(labels.numbers.sum())


def test_it_can_be_read_from_other_processes_and_after_pickling(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    data = open_concepts("data")
    expected = [read_in_process(data, i) for i in range(2)]
    monkeypatch.chdir("/")
    copy = pickle.loads(pickle.dumps(data))
    with ProcessPoolExecutor(2) as processes:
        assert list(processes.map(read_in_process, [copy, copy], range(2))) == expected


@settings(max_examples=40, deadline=None)
@given(count=st.integers(2, 30), seed=st.integers(0, 2**32 - 1))
def test_permuted_data_hold_every_image_against_another_ones_labels_each_used_once(count: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        labels = dict.fromkeys(range(1, count + 1), "scene")
        data = open_concepts(write_concepts(Path(root), [{"scene": [i + 1]} for i in range(count)], labels))
        exchanged = permute_labels(data, seed)
        numbers = [int(exchanged.image_labels(i).numbers[0]) for i in range(count)]
        assert sorted(numbers) == list(range(1, count + 1))
        assert all(number != i + 1 for i, number in enumerate(numbers))
        assert exchanged.names == data.names
        np.testing.assert_array_equal(exchanged.image(0), data.image(0))
        again = permute_labels(Path(root), seed)
        assert [int(again.image_labels(i).numbers[0]) for i in range(count)] == numbers


def test_labels_cannot_be_exchanged_among_one_image(tmp_path: Path) -> None:
    data = open_concepts(write_concepts(tmp_path, [{"object": [1]}], {1: "object"}))
    with pytest.raises(InputError, match="one image only"):
        permute_labels(data, 0)


def test_as_many_images_as_broden_has_can_be_opened(tmp_path: Path) -> None:
    root = write_concepts(tmp_path, [{"object": [1], "part": [2], "scene": [3]}], {1: "object", 2: "part", 3: "scene"})
    lines = [
        f"ade20k/{i:08d}.jpg,train,224,224,112,112,ade20k/{i:08d}_o.png,"
        f"ade20k/{i:08d}_p.png;ade20k/{i:08d}_q.png,{i % 3 + 1}\n"
        for i in range(63305)
    ]
    (root / "index.csv").write_text("image,split,ih,iw,sh,sw,object,part,scene\n" + "".join(lines))
    data = open_concepts(root)
    assert len(data) == 63305


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_named(folder: Path) -> None:
    (folder / "images" / "made" / "0.png").chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        open_concepts(folder).image(0)
