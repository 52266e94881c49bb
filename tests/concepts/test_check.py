"""Everything that can be wrong with a data set: opening names the first, checking names them all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prunescope.concepts import check_concepts, open_concepts
from prunescope.errors import InputError
from tests.concepts.small import change, two_images

GOLDEN = Path(__file__).parents[1] / "golden" / "dissection"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return two_images(tmp_path / "data")


def test_a_clean_data_set_has_no_problem_and_a_table_of_what_it_holds(folder: Path) -> None:
    check = check_concepts(folder)
    assert check.problems == ()
    assert check.table.to_dict("list") == {
        "category": ["object", "scene", "material"],
        "images": [2, 1, 0],
        "concepts": [3, 1, 0],
        "pixels": [7 + 10, 12, 0],
    }


def test_the_golden_data_set_is_clean() -> None:
    seen: list[tuple[int, int]] = []
    check = check_concepts(GOLDEN / "concepts", workers=1, progress=lambda done, total: seen.append((done, total)))
    assert check.problems == ()
    assert seen[-1] == (48, 48)
    assert check.table["images"].tolist() == [42, 39, 42, 39, 40, 14]
    assert check.table["concepts"].tolist() == [8, 5, 5, 4, 4, 4]


def test_as_many_processes_as_one_likes_find_the_same(folder: Path) -> None:
    lines = (folder / "index.csv").read_text().splitlines()
    more = [lines[1].replace("made/0.png", f"made/copy{i}.png", 1) for i in range(150)]
    for i in range(150):
        (folder / "images" / "made" / f"copy{i}.png").write_bytes((folder / "images" / "made" / "0.png").read_bytes())
    (folder / "images" / "made" / "copy130.png").unlink()
    (folder / "index.csv").write_text("\n".join([*lines, *more]) + "\n")
    seen: list[tuple[int, int]] = []
    one = check_concepts(folder, workers=1)
    several = check_concepts(folder, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert several.problems == one.problems
    assert len(one.problems) == 1
    assert one.problems[0].file.name == "copy130.png"
    assert several.table.equals(one.table)
    assert seen == [(64, 152), (128, 152), (152, 152)]


@pytest.mark.parametrize("reader", [open_concepts, check_concepts])
def test_no_folder_and_no_index_are_no_data_set_at_all(tmp_path: Path, reader: object) -> None:
    assert callable(reader)
    with pytest.raises(InputError, match="there is no such folder"):
        reader(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no index\.csv in this folder"):
        reader(tmp_path)


# What is changed in which table, and what is then said of which line.
WRONG = [
    ("index.csv", "made/0.png,", "../../x.png,", "index.csv:2", "'../../x.png' leaves the folder"),
    ("index.csv", "made/0.png,", "/etc/x.png,", "index.csv:2", "is absolute"),
    ("index.csv", "made/0.png,", "C:/x.png,", "index.csv:2", "is absolute"),
    ("index.csv", "made/0.png,", "made\\..\\x.png,", "index.csv:2", "backslash"),
    ("index.csv", "made/0.png,", "made/\x00x.png,", "index.csv:2", "unprintable"),
    ("index.csv", "made/0.png,", ",", "index.csv:2", "is empty"),
    ("index.csv", "made/1.png,", "made/0.png,", "index.csv:3", "is on line 2 already"),
    ("index.csv", "made/1.png,", "./made/0.png,", "index.csv:3", "'./made/0.png' is on line 2 already as 'made/0.png'"),
    ("index.csv", "made/1.png,", "made//0.png,", "index.csv:3", "'made//0.png' is on line 2 already as 'made/0.png'"),
    ("index.csv", "made/1.png,", "made/./0.png,", "index.csv:3", "is on line 2 already as 'made/0.png'"),
    ("index.csv", "made/1.png,", "made/x/../0.png,", "index.csv:3", "goes back up with .. (write 'made/0.png')"),
    ("index.csv", "made/1.png,", "made/../../0.png,", "index.csv:3", "leaves the folder"),
    ("index.csv", "made/0_object0.png", "../x.png", "index.csv:2", "'../x.png' leaves the folder"),
    ("index.csv", "made/0_object0.png", "7;/x.png", "index.csv:2", "'/x.png' is absolute"),
    ("index.csv", "made/0_object0.png", "..\\x.png", "index.csv:2", "backslash"),
    ("index.csv", "made/0_object0.png", "999", "index.csv:2", "label 999 is not in label.csv"),
    ("index.csv", "made/0_object0.png", "7;;1", "index.csv:2", "'' in the cell '7;;1' is neither"),
    ("index.csv", "made/0_object0.png", "7;", "index.csv:2", "is neither"),
    ("index.csv", "made/0_object0.png", "-7", "index.csv:2", "is neither"),
    ("index.csv", "made/0_object0.png", "7.0", "index.csv:2", "is neither"),
    ("index.csv", "made/0_object0.png", "\u0667", "index.csv:2", "is neither"),
    ("index.csv", "made/0_object0.png", "made/0.jpg", "index.csv:2", "is neither"),
    ("index.csv", "made/0_object0.png", "1,2", "index.csv:2", "10 cells; expected 9"),
    ("index.csv", "val", "", "index.csv:4", "the split is empty"),
    ("index.csv", "made/1.png,train,6,8", "made/1.png,train,6,9", "index.csv:3", "6,8,3,4 on line 2"),
    ("index.csv", "made/1.png,train,6,8", "made/1.png,train,0,8", "index.csv:3", "four positive numbers"),
    ("index.csv", "made/1.png,train,6,8", "made/1.png,train,-6,8", "index.csv:3", "four positive numbers"),
    ("index.csv", "made/1.png,train,6,8", "made/1.png,train,six,8", "index.csv:3", "four positive numbers"),
    ("index.csv", "image,split", "picture,split", "index.csv:1", "no column 'image'"),
    ("index.csv", ",sw,", ",sh,", "index.csv:1", "'sh' is there more than once"),
    ("index.csv", ",scene", ",scenes", "index.csv:1", "'scenes' is not in category.csv; the nearest are: scene"),
    ("index.csv", "made/1.png,train", '"made/1.png"x,train', "index.csv:3", "not a line of a CSV table"),
    ("category.csv", "scene,", "sc/ene,", "category.csv:3", "cannot be a category's name"),
    ("category.csv", "scene,", "image,", "category.csv:3", "cannot be a category's name"),
    ("category.csv", "scene,", "object,", "category.csv:3", "is on line 2 already"),
    ("category.csv", "scene,", ",", "category.csv:3", "has no name"),
    ("label.csv", "7,concept7", "seven,concept7", "label.csv:4", "'seven' is not 1, 2, 3"),
    ("label.csv", "7,concept7", "0,concept7", "label.csv:4", "0 stands for no label"),
    ("label.csv", "7,concept7", "2,concept7", "label.csv:4", "the number 2 is on line 3 already"),
    ("label.csv", "2,concept2", "007,concept2", "label.csv:4", "the number 7 is on line 3 already"),
    *(
        ("label.csv", "7,concept7", f"{number},concept7", "label.csv:4", f"{number!r} is not 1, 2, 3")
        for number in ("7.0", "7.5", "7e0", "+7", "-7", "0x7", "7_0", "7" * 30)
    ),
    ("label.csv", "scene(1)", "scene(1);scene(2)", "label.csv:4", "the category 'scene' is there twice"),
    ("label.csv", "7,concept7", "7,", "label.csv:4", "label 7 has no name"),
    ("label.csv", "scene(1)", "scenery(1)", "label.csv:4", "'scenery' is not in category.csv; the nearest are: scene"),
    ("label.csv", "scene(1)", "scene(one)", "label.csv:4", "malformed"),
    ("label.csv", "scene(1)", "", "label.csv:4", "malformed"),
    ("c_scene.csv", "7,", "8,", "c_scene.csv", "label 8 is not in label.csv"),
    ("c_scene.csv", "0.5", "much", "c_scene.csv:2", "'much' is not a number"),
    ("c_scene.csv", "0.5", "nan", "c_scene.csv:2", "'nan' is not a number"),
    ("c_scene.csv", "number", "n", "c_scene.csv:1", "no column 'number'"),
]


@pytest.mark.parametrize(("table", "old", "new", "place", "said"), WRONG, ids=[f"{w[0]} {w[2]!r}" for w in WRONG])
def test_what_is_wrong_with_a_table_is_said_with_its_line_on_opening_and_on_checking(
    folder: Path, table: str, old: str, new: str, place: str, said: str
) -> None:
    (folder / "c_scene.csv").write_text("code,number,name,frequency,coverage\n1,7,concept7,1,0.5\n")
    third = (folder / "images" / "made" / "0.png").read_bytes()
    (folder / "images" / "made" / "2.png").write_bytes(third)
    with (folder / "index.csv").open("a") as file:
        file.write("made/2.png,val,6,8,3,4,1,,\n")
    assert check_concepts(folder).problems == ()
    change(folder / table, old, new)
    with pytest.raises(InputError) as raised:
        open_concepts(folder)
    problems = [str(problem) for problem in check_concepts(folder).problems]
    assert any(str(folder / place.split(":")[0]) in problem for problem in problems)
    assert any(f"{place}: " in problem and said in problem for problem in problems)
    assert str(raised.value).startswith(problems[0])


@pytest.mark.parametrize("linked", ["made/1.png", "other/0.png"])
def test_a_link_to_an_image_is_the_same_image(folder: Path, linked: str) -> None:
    images = folder / "images"
    if linked == "made/1.png":
        (images / linked).unlink()
        (images / linked).symlink_to("0.png")
    else:
        (images / "other").symlink_to("made")
        change(folder / "index.csv", "made/1.png,", "other/0.png,")
    message = f"'{linked}' is on line 2 already as 'made/0.png'; keep one of them"
    assert [str(problem) for problem in check_concepts(folder).problems] == [
        f"{folder}/index.csv:3: the image {message}"
    ]


def test_an_image_may_be_written_in_a_long_form_and_two_may_share_a_label_layer(folder: Path) -> None:
    expected = open_concepts(folder)
    change(folder / "index.csv", "made/1.png,", "./made//1.png,")
    change(folder / "index.csv", "made/1_object0.png", "made/0_object0.png")
    assert check_concepts(folder).problems == ()
    assert open_concepts(folder).names == expected.names


@pytest.mark.parametrize("table", ["label.csv", "category.csv", "images"])
def test_what_is_missing_is_named(folder: Path, table: str) -> None:
    (folder / table).rename(folder / "away")
    with pytest.raises(InputError, match=f"{table}: "):
        open_concepts(folder)
    problems = check_concepts(folder).problems
    assert folder / table in [problem.file for problem in problems]


@pytest.mark.parametrize("table", ["index.csv", "label.csv", "category.csv"])
def test_a_table_without_lines_is_named(folder: Path, table: str) -> None:
    header = (folder / table).read_text().splitlines()[0]
    for text, said in ((header, "there is no"), ("", "the table is empty")):
        (folder / table).write_text(text)
        with pytest.raises(InputError):
            open_concepts(folder)
        assert any(said in str(problem) and problem.file.name == table for problem in check_concepts(folder).problems)


def test_text_that_is_not_utf8_is_named_with_its_line(folder: Path) -> None:
    raw = (folder / "label.csv").read_bytes()
    (folder / "label.csv").write_bytes(raw.replace(b"concept7", b"caf\xe9"))
    with pytest.raises(InputError, match=r"label\.csv:4: byte 0xe9 is not UTF-8"):
        open_concepts(folder)


def test_the_line_after_a_name_on_two_lines_is_counted_right(folder: Path) -> None:
    change(folder / "label.csv", "concept2", '"concept\n2"')
    change(folder / "label.csv", "7,concept7", "seven,concept7")
    with pytest.raises(InputError, match=r"label\.csv:5: "):
        open_concepts(folder)


@pytest.mark.parametrize("linked", ["images", "images/made"])
def test_a_folder_that_is_a_link_out_of_the_data_set_is_refused(folder: Path, tmp_path: Path, linked: str) -> None:
    (folder / linked).rename(tmp_path / "outside")
    (folder / linked).symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="link that leaves the folder"):
        open_concepts(folder)


def test_a_data_set_that_is_itself_reached_by_a_link_is_fine(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert check_concepts(tmp_path / "link").problems == ()


def test_opening_says_how_many_more_problems_there_are(folder: Path) -> None:
    change(folder / "index.csv", ",6,8,", ",6,-8,")
    with pytest.raises(InputError, match=r"index\.csv:2: .*and 1 more: `prunescope concepts check` lists them all"):
        open_concepts(folder)


def test_checking_finds_every_problem_of_tables_and_images_together(folder: Path) -> None:
    made = folder / "images" / "made"
    change(folder / "index.csv", "made/0.png,train", "../0.png,")
    change(folder / "index.csv", ",7,", ",7;8;nine,")
    change(folder / "label.csv", "2,concept2", "2,")
    (made / "1.png").write_bytes((made / "1.png").read_bytes()[:60])
    Image.new("RGB", (4, 3), (99, 0, 0)).save(made / "1_object0.png")
    (made / "1_object1.png").unlink()
    check = check_concepts(folder)
    found = [str(problem).removeprefix(f"{folder}{os.sep}").split(";")[0] for problem in check.problems]
    assert found == [
        "label.csv:3: label 2 has no name",
        "index.csv:2: the image's path '../0.png' leaves the folder",
        "index.csv:2: the split is empty",
        "index.csv:2: label 8 is not in label.csv",
        "index.csv:2: 'nine' in the cell '7",
        found[5],
        "images/made/1_object1.png: there is no such file",
    ]
    assert found[5].startswith("images/made/1.png: cannot be read")
    assert check.table["images"].tolist() == [1, 1, 0]


ITEMS = st.text(st.sampled_from(list("./\\;:~ab7\x00\n,\"' ")), max_size=12)


@settings(max_examples=150, deadline=None)
@given(image=ITEMS, cell=ITEMS, ending=st.sampled_from(["", ".png"]))
def test_whatever_the_index_says_nothing_outside_the_folder_is_touched(image: str, cell: str, ending: str) -> None:
    with tempfile.TemporaryDirectory() as outside:
        root = two_images(Path(outside, "data"))
        quoted = [text.replace('"', '""') + ending for text in (image, cell)]
        change(root / "index.csv", "made/0.png,", f'"{quoted[0]}",')
        change(root / "index.csv", "made/0_object0.png", f'"{quoted[1]}"')
        for problem in check_concepts(root, workers=1).problems:
            assert Path(os.path.normpath(problem.file)).is_relative_to(root)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_damage_to_a_table_makes_checking_fail(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = two_images(Path(folder, "data"))
        path = root / data.draw(st.sampled_from(["index.csv", "label.csv", "category.csv"]))
        raw = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(raw) - 1))
            raw[at : at + data.draw(st.integers(0, 3))] = data.draw(
                st.sampled_from([b'"', b",", b";", b"\n", b"", b"7", b"\xff", b"\x00"])
            )
        path.write_bytes(raw)
        problems = check_concepts(root, workers=1).problems
        try:
            opened = open_concepts(root)
            for i in range(len(opened)):
                opened.image(i), opened.image_labels(i)
        except InputError:
            assert problems
        else:
            assert not problems
