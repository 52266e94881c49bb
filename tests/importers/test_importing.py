"""Data sets that are imported have the pixels that an independent reader finds in the files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from prunescope.concepts import check_concepts, open_concepts
from prunescope.errors import InputError
from prunescope.importers import (
    import_coco,
    import_folders,
    import_huggingface,
    import_masks,
    import_voc,
    merge_concepts,
)
from prunescope.miniature import COLORS, color_places
from tests.cli.commands import refused, typed
from tests.concepts.reading import concepts_of
from tests.concepts.small import two_images

SIZE = (12, 16)
MASKS = [np.random.default_rng(seed).choice([0, 1, 2, 7, 255], SIZE).astype(np.uint8) for seed in range(3)]
NAMES = {1: "dog", 2: "grass", 7: "sky"}
OPTIONS: dict[str, Any] = {"workers": 1, "progress": False}


def save(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def photos(folder: Path, names: tuple[str, ...] = ("a", "b", "val/c"), size: tuple[int, int] = SIZE) -> Path:
    for seed, name in enumerate(names):
        save(folder / f"{name}.jpg", np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return photos(tmp_path / "images")


def expected(names: dict[int, str] = NAMES, category: str = "object") -> dict[str, dict[tuple[str, str], np.ndarray]]:
    return {
        key: {(category, name): mask == value for value, name in names.items()}
        for key, mask in zip(("a", "b", "val/c"), MASKS, strict=True)
    }


def assert_equal(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, mine in wanted.items():
        assert found[name].keys() == {key for key, pixels in mine.items() if pixels.any()}
        for key, pixels in found[name].items():
            assert (pixels == mine[key]).all()


def gray(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask)


def deep(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint16))


def palette(mask: np.ndarray) -> Image.Image:
    image = Image.fromarray(mask)
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    assert image.mode == "P"
    return image


def rgb_of_gray(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask).convert("RGB")


@pytest.mark.parametrize("mode", [gray, deep, palette, rgb_of_gray])
def test_index_masks_of_every_mode_are_read(mode: Callable[[np.ndarray], Image.Image], images: Path) -> None:
    masks = images.with_name("masks")
    for name, mask in zip(("a", "b", "val/c"), MASKS, strict=True):
        (masks / name).parent.mkdir(parents=True, exist_ok=True)
        mode(mask).save(masks / f"{name}.png")
    root = import_masks(images, masks, images.with_name("out"), names=NAMES, category="thing", **OPTIONS)
    assert_equal(concepts_of(root), expected(category="thing"))
    assert open_concepts(root).splits == ("train", "train", "val")
    assert not check_concepts(root, workers=1).problems
    assert (root / "images/pictures/a.jpg").read_bytes() == (images / "a.jpg").read_bytes()
    assert json.loads((root / "about.json").read_text())["format"] == "masks"


def test_masks_in_colors_are_read_by_a_table_of_colors(images: Path, tmp_path: Path) -> None:
    table = np.zeros((256, 3), np.uint8)
    table[[1, 2, 7]] = [(255, 0, 0), (0, 128, 7), (1, 2, 3)]
    table[255] = (224, 224, 192)
    for name, mask in zip(("a", "b", "val/c"), MASKS, strict=True):
        save(tmp_path / f"masks/{name}_mask.png", table[mask])
    names = tmp_path / "colors.csv"
    names.write_text("name,color\ndog,#ff0000\ngrass,#008007\nsky,#010203\nvoid,#e0e0c0\n")
    root = import_masks(images, tmp_path / "masks", tmp_path / "out", names=names, suffix="_mask", **OPTIONS)
    assert_equal(concepts_of(root), expected())


def test_the_coding_of_ade20k_is_read_with_its_parts(tmp_path: Path) -> None:
    folder = photos(tmp_path / "ade", ("x/ADE_1",))
    whole, part = np.where(MASKS[0] == 255, 0, MASKS[0].astype(int) * 400), np.where(MASKS[1] == 1, 2978, 0)
    for values, end in ((whole, "seg"), (part, "parts_1")):
        coded = np.stack([values // 256 * 10, values % 256, np.full(SIZE, 3)], -1)
        save(folder / f"x/ADE_1_{end}.png", coded.astype(np.uint8))
    names = tmp_path / "names.txt"
    names.write_text("400\tdog, domestic dog\n800: grass\n2800 sky\n2978: wheel\n")
    root = import_masks(folder, folder, tmp_path / "out", names=names, coding="ade20k", **OPTIONS)
    found = concepts_of(root)["x/ADE_1"]
    assert {key: int(mask.sum()) for key, mask in found.items()} == {
        ("object", "dog, domestic dog"): int((MASKS[0] == 1).sum()),
        ("object", "grass"): int((MASKS[0] == 2).sum()),
        ("object", "sky"): int((MASKS[0] == 7).sum()),
        ("part", "wheel"): int((MASKS[1] == 1).sum()),
    }
    assert (found["part", "wheel"] == (MASKS[1] == 1)).all()


def test_pascal_voc_is_read_with_its_splits(tmp_path: Path) -> None:
    photos(tmp_path / "VOC2012/JPEGImages", ("2007_1", "2007_2", "only_boxes"))
    for name, mask in zip(("2007_1", "2007_2"), MASKS, strict=False):
        (tmp_path / "VOC2012/SegmentationClass").mkdir(exist_ok=True)
        palette(mask).save(tmp_path / f"VOC2012/SegmentationClass/{name}.png")
    listed = tmp_path / "VOC2012/ImageSets/Segmentation"
    listed.mkdir(parents=True)
    (listed / "train.txt").write_text("2007_2\n")
    (listed / "val.txt").write_text("2007_1\n")
    root = import_voc(tmp_path / "VOC2012", tmp_path / "out", **OPTIONS)
    names = {1: "aeroplane", 2: "bicycle", 7: "car"}
    wanted = {f"2007_{at + 1}": {("object", name): MASKS[at] == n for n, name in names.items()} for at in (0, 1)}
    assert_equal(concepts_of(root), wanted)
    assert open_concepts(root).splits == ("val", "train")


def test_folders_give_labels_of_whole_images(tmp_path: Path) -> None:
    photos(tmp_path / "data", ("train/beach/1", "val/beach/1", "train/park/x/2"))
    root = import_folders(tmp_path / "data", tmp_path / "out", **OPTIONS)
    found = concepts_of(root)
    assert {name: list(mine) for name, mine in found.items()} == {
        "train/beach/1": [("scene", "beach")],
        "train/park/x/2": [("scene", "park")],
        "val/beach/1": [("scene", "beach")],
    }
    assert all(mask.all() for mine in found.values() for mask in mine.values())
    assert open_concepts(root).splits == ("train", "train", "val")


def test_classes_whose_names_begin_like_a_split_are_classes(tmp_path: Path) -> None:
    photos(tmp_path / "data", ("trains/1", "trainers/2"))
    found = concepts_of(import_folders(tmp_path / "data", tmp_path / "out", **OPTIONS))
    assert {name: list(mine) for name, mine in found.items()} == {
        "trainers/2": [("scene", "trainers")],
        "trains/1": [("scene", "trains")],
    }


def test_a_list_of_pascal_voc_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    photos(tmp_path / "JPEGImages", ("1",))
    save(tmp_path / "SegmentationClass/1.png", MASKS[0])
    listed = tmp_path / "ImageSets/Segmentation/val.txt"
    listed.parent.mkdir(parents=True)
    listed.write_bytes(b"\xff\xfe1")
    with pytest.raises(InputError, match=r"val\.txt: cannot be read as UTF-8 text"):
        import_voc(tmp_path, tmp_path / "out", **OPTIONS)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 100_000, b"\xff"])
def test_annotations_of_coco_that_are_no_json_object_are_refused(content: bytes, images: Path, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.json: .*; expected COCO's annotations"):
        import_coco(images, tmp_path / "x.json", tmp_path / "out", **OPTIONS)


def coco(folder: Path, **changes: Any) -> Path:
    """Write annotations of three images: overlapping polygons, a crowd in plain RLE, and packed RLE."""
    packed = rle.encode(np.asfortranarray(MASKS[1] == 7))
    counts = [0, 5, 60, 20, SIZE[0] * SIZE[1] - 85]
    content: dict[str, Any] = {
        "images": [
            {"id": 10 + at, "file_name": f"{name}.jpg", "height": SIZE[0], "width": SIZE[1]}
            for at, name in enumerate(("a", "b", "val/c"))
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 18, "iscrowd": 0, "segmentation": [[1, 1, 9.5, 1, 9.5, 8, 1, 8]]},
            {"id": 2, "image_id": 10, "category_id": 3, "iscrowd": 0, "segmentation": [[4, 4, 30, 4, 30, 11, 4, 11]]},
            {"id": 3, "image_id": 10, "category_id": 18, "iscrowd": 0, "segmentation": [[12, 0, 15, 0, 13, 5]]},
            {"id": 4, "image_id": 11, "category_id": 3, "iscrowd": 1,
             "segmentation": {"size": list(SIZE), "counts": counts}},
            {"id": 5, "image_id": 11, "category_id": 18, "iscrowd": 0,
             "segmentation": {"size": list(SIZE), "counts": packed["counts"].decode()}},
        ],
    }  # fmt: skip
    content["annotations"][0] |= changes
    path = folder / "instances_train.json"
    path.write_text(json.dumps(content))
    return path


def test_coco_instances_have_the_pixels_that_pycocotools_finds(images: Path, tmp_path: Path) -> None:
    path = coco(tmp_path)
    root = import_coco(images, path, tmp_path / "out", **OPTIONS)
    reference = COCO(str(path))
    wanted: dict[str, dict[tuple[str, str], np.ndarray]] = {"a": {}, "b": {}, "val/c": {}}
    for annotation in reference.loadAnns(reference.getAnnIds()):
        mine = wanted[reference.imgs[annotation["image_id"]]["file_name"].removesuffix(".jpg")]
        key = ("object", reference.cats[annotation["category_id"]]["name"])
        mine[key] = mine.get(key, np.zeros(SIZE, bool)) | reference.annToMask(annotation).astype(bool)
    assert (wanted["a"]["object", "dog"] & wanted["a"]["object", "car"]).any()
    assert_equal(concepts_of(root), wanted)


def test_coco_panoptic_segments_are_read(tmp_path: Path) -> None:
    photos(tmp_path / "images", ("a",))
    ids = np.where(MASKS[0] == 255, 0, MASKS[0].astype(int) * 70000)
    save(tmp_path / "panoptic_val/a.png", np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8))
    segments = [{"id": 70000 * value, "category_id": value} for value in NAMES]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": SIZE[0], "width": SIZE[1]}],
        "categories": [{"id": value, "name": name} for value, name in NAMES.items()],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
    }
    (tmp_path / "panoptic_val.json").write_text(json.dumps(content))
    root = import_coco(tmp_path / "images", tmp_path / "panoptic_val.json", tmp_path / "out", **OPTIONS)
    assert_equal(concepts_of(root), {"a": expected()["a"]})
    assert open_concepts(root).splits == ("val",)


def test_a_data_set_of_hugging_face_is_read(images: Path, tmp_path: Path) -> None:
    import datasets

    rows = {
        "image": [str(images / f"{name}.jpg") for name in ("a", "b")],
        "annotation": [Image.fromarray(mask) for mask in MASKS[:2]],
        "scene": [0, 1],
    }
    features = datasets.Features(
        {"image": datasets.Image(), "annotation": datasets.Image(), "scene": datasets.Value("int64")}
    )
    made = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": made, "validation": made.select([1])}).save_to_disk(str(tmp_path / "hf"))
    (tmp_path / "hf/id2label.json").write_text(json.dumps(NAMES))
    root = import_huggingface(tmp_path / "hf", tmp_path / "out", **OPTIONS)
    found, wanted = concepts_of(root), expected()
    assert_equal(found, {"train/000000": wanted["a"], "train/000001": wanted["b"], "validation/000000": wanted["b"]})
    assert open_concepts(root).splits == ("train", "train", "val")
    with pytest.raises(InputError, match="no column of images 'scene'"):
        import_huggingface(tmp_path / "hf", tmp_path / "other", mask="scene", **OPTIONS)


def test_merged_data_sets_share_concepts_of_the_same_name(tmp_path: Path) -> None:
    one, two = two_images(tmp_path / "one"), two_images(tmp_path / "two")
    labels = (two / "label.csv").read_text()
    (two / "label.csv").write_text(labels.replace("concept1,", "zebra,").replace("concept2,", "concept1,"))
    root = merge_concepts([one, two], tmp_path / "out", **OPTIONS)
    renamed = {"concept1": "zebra", "concept2": "concept1"}
    wanted = {f"one/{name}": mine for name, mine in concepts_of(one).items()}
    for name, mine in concepts_of(one).items():
        wanted[f"two/{name}"] = {(kind, renamed.get(label, label)): mask for (kind, label), mask in mine.items()}
    assert_equal(concepts_of(root), wanted)
    assert not check_concepts(root, workers=1).problems


def test_images_and_labels_are_brought_to_one_size(tmp_path: Path) -> None:
    left = np.zeros((4, 8), np.uint8)
    left[:, :4] = 1
    top = np.zeros((16, 4), np.uint8)
    top[:8] = 2
    for name, mask in (("tall", top), ("wide", left)):
        photos(tmp_path / "images", (name,), mask.shape)
        save(tmp_path / f"masks/{name}.png", mask)
    half = np.zeros((4, 4), bool)
    half[:, :2] = True
    given = (tmp_path / "images", tmp_path / "masks")
    with pytest.raises(InputError, match=r"8 x? ?.*resize"):
        import_masks(*given, tmp_path / "refused", names=NAMES, **OPTIONS)
    cases: dict[str, tuple[dict[str, Any], np.ndarray, np.ndarray]] = {
        "stretch": ({}, half, half.T),
        "crop": ({"crop": "center"}, half, half.T),
        "pad": ({"pad": True}, np.pad(half[:2], ((1, 1), (0, 0))), np.pad(half.T[:, :1], ((0, 0), (1, 2)))),
    }
    for name, (options, dog, grass) in cases.items():
        found = concepts_of(import_masks(*given, tmp_path / name, names=NAMES, resize=4, **options, **OPTIONS))
        assert (found["wide"]["object", "dog"] == dog).all()
        assert (found["tall"]["object", "grass"] == grass).all()


def test_the_orientation_of_a_camera_has_to_be_decided_on(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be seen, the image has to be turned by 90 degrees to the right
    photo = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    save(tmp_path / "images/a.png", photo, exif=exif)
    save(tmp_path / "masks/a.png", np.rot90(MASKS[0], -1))
    given: dict[str, Any] = {"images": tmp_path / "images", "masks": tmp_path / "masks", "names": NAMES, **OPTIONS}
    with pytest.raises(InputError, match=r"a.png: has an EXIF orientation.*--orient"):
        import_masks(out=tmp_path / "out", **given)
    root = import_masks(out=tmp_path / "out", orient=True, **given)
    assert (open_concepts(root).image(0) == np.rot90(photo, -1)).all()
    assert (concepts_of(root)["a"]["object", "sky"] == np.rot90(MASKS[0] == 7, -1)).all()
    with pytest.raises(InputError, match=r"labels are 16 x 12 .* is 12 x 16"):
        import_masks(out=tmp_path / "stored", orient=False, **given)


def test_colors_are_those_that_the_miniature_draws(images: Path, tmp_path: Path) -> None:
    save(tmp_path / "masks/a.png", MASKS[0])
    root = import_masks(
        images, tmp_path / "masks", tmp_path / "out", names=NAMES, colors=True, skip_unpaired=True, **OPTIONS
    )
    found, places = concepts_of(root)["a"], color_places(open_concepts(root).image(0))
    for at, name in enumerate(COLORS):
        assert (found.get(("color", name), np.zeros(SIZE, bool)) == (places == at)).all()


def broken_mask(folder: Path) -> None:
    save(folder / "masks/a.png", MASKS[0][:5])


def missing_mask(folder: Path) -> None:
    (folder / "masks/b.png").unlink()


def lone_mask(folder: Path) -> None:
    save(folder / "masks/z.png", MASKS[0])


def unknown_value(folder: Path) -> None:
    save(folder / "masks/a.png", np.full(SIZE, 9, np.uint8))


def unknown_color(folder: Path) -> None:
    save(folder / "masks/a.png", np.full((*SIZE, 3), (9, 0, 0), np.uint8))


def lossy_mask(folder: Path) -> None:
    Image.fromarray(MASKS[0]).save(folder / "masks/a.png", "JPEG")


def same_stem(folder: Path) -> None:
    save(folder / "images/a.png", np.zeros((*SIZE, 3), np.uint8))


def damaged_image(folder: Path) -> None:
    (folder / "images/a.jpg").write_bytes((folder / "images/a.jpg").read_bytes()[:300])


WRONG: dict[Callable[[Path], None], str] = {
    broken_mask: r"masks/a.png: the labels are 5 x 16 .*a.jpg is 12 x 16",
    missing_mask: r"b.jpg: has no mask.*--skip-unpaired",
    lone_mask: r"z.png: has no image.*--skip-unpaired",
    unknown_value: r"a.png: the value 9 \(row 0, column 0, and 191 more",
    unknown_color: r"a.png: .*in color.*--coding ade20k",
    lossy_mask: r"a.png: .*JPEG.*save masks as PNG",
    same_stem: r"a.png and a.jpg have the same stem",
    damaged_image: r"a'? ?.*cannot be read",
}


@pytest.mark.parametrize("spoil", WRONG)
def test_masks_that_cannot_be_used_are_refused_by_name(
    spoil: Callable[[Path], None], images: Path, tmp_path: Path
) -> None:
    for name, mask in zip(("a", "b", "val/c"), MASKS, strict=True):
        save(tmp_path / f"masks/{name}.png", mask)
    spoil(tmp_path)
    with pytest.raises(InputError, match=WRONG[spoil]):
        import_masks(images, tmp_path / "masks", tmp_path / "out", names=NAMES, **OPTIONS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "masks"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"category_id": 4}, r"annotation 1 \(image 10\) has the category_id 4"),
        ({"image_id": 77}, r"annotation 1 has the image_id 77"),
        ({"segmentation": [[50, 1, 60, 1, 60, 8]]}, r"annotation 1 .*polygon from \(50, 1\) to \(60, 8\) lies outside"),
        ({"segmentation": [[1, 1, 5, 5]]}, "annotation 1 .*malformed"),
        ({"segmentation": []}, "annotation 1 .*has no segmentation"),
        ({"segmentation": {"size": [3, 3], "counts": [9]}}, r"annotation 1 .*RLE has the size \[3, 3\]"),
        ({"segmentation": {"size": list(SIZE), "counts": [5]}}, r"annotation 1 .*RLE"),
        ({"segmentation": {"size": list(SIZE), "counts": "PP"}}, r"annotation 1 .*RLE"),
    ],
)
def test_annotations_of_coco_that_cannot_be_used_are_refused_by_number(
    changes: dict[str, Any], message: str, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        import_coco(images, coco(tmp_path, **changes), tmp_path / "out", **OPTIONS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file_name": "../images/a.jpg"}, r"file_name '\.\./images/a\.jpg'"),
        ({"file_name": "/etc/passwd"}, "file_name '/etc/passwd'"),
        ({"file_name": 7}, "file_name 7 is not a name"),
        ({"height": -3}, r"images\[0\]: height is -3"),
        ({"width": "16"}, r"images\[0\]: width is '16'"),
        ({"id": []}, r"images\[0\]: id is \[\]"),
        ({"height": 11}, r"RLE|are 11 x 16"),
    ],
)
def test_images_of_coco_that_cannot_be_used_are_refused_by_name(
    changes: dict[str, Any], message: str, images: Path, tmp_path: Path
) -> None:
    path = coco(tmp_path)
    content = json.loads(path.read_text())
    content["images"][0] |= changes
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        import_coco(images, path, tmp_path / "out", **OPTIONS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1: dog\n1: cat\n", "1 is called 'dog' and 'cat'"),
        ("dog\n", "'dog' names no number"),
        ("number,name\nx,dog\n", "'x' is neither a number nor a color"),
        ("number,name\n", "names no number|contains no names"),
        ("1: dog\n#ff0000: cat\n", "names both"),
        ('number,name\n1,"' + "x" * 140_000 + '"\n', r"names\.txt: cannot be read as a table"),
    ],
)
def test_names_that_cannot_be_used_are_refused(content: str, message: str, images: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text(content)
    with pytest.raises(InputError, match=message):
        import_masks(images, images, tmp_path / "out", names=tmp_path / "names.txt", **OPTIONS)


def test_the_commands_write_what_the_functions_write(images: Path, tmp_path: Path) -> None:
    for name, mask in zip(("a", "b", "val/c"), MASKS, strict=True):
        save(tmp_path / f"masks/{name}.png", mask)
    names = tmp_path / "names.json"
    names.write_text(json.dumps(NAMES))
    result = typed(
        "concepts", "import", "masks", images, tmp_path / "masks", "--names", names, "--out", tmp_path / "one",
        "--resize", 8, "--pad", "--category", "thing", "--colors", "--workers", 1,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("3 images, ")
    assert result.stdout.endswith(f"(thing, color): {tmp_path / 'one'}\n")
    wanted = import_masks(
        images, tmp_path / "masks", tmp_path / "two", names=NAMES, resize=8, pad=True, category="thing", colors=True,
        **OPTIONS,
    )  # fmt: skip
    assert_equal(concepts_of(tmp_path / "one"), concepts_of(wanted))
    result = typed("concepts", "import", "coco", images, coco(tmp_path), "--out", tmp_path / "three", "--workers", 1)
    assert result.exit_code == 0, result.output
    merged = typed("concepts", "merge", tmp_path / "one", tmp_path / "two", "--out", tmp_path / "four", "--workers", 1)
    assert merged.stdout.startswith("6 images, ")
    said = refused("concepts", "import", "masks", images, tmp_path / "none", "--names", names, "--out", tmp_path / "no")
    assert "none: there is no such folder" in said
    said = refused(
        "concepts", "import", "coco", images, tmp_path / "names.json", "--crop", "left", "--out", tmp_path / "no"
    )
    assert "crop is 'left'" in said or "has no list 'images'" in said


def test_coco_without_its_package_names_what_to_install(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(InputError, match=r"pip install 'prunescope\[coco\]'"):
        import_coco(images, images / "x.json", images / "out")
