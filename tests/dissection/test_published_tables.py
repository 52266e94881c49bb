"""A published table is taken at its word only where it can be true."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from prunescope import InputError, import_netdissect
from prunescope.dissection.netdissect import FIELDS

GOLDEN = Path(__file__).parents[1] / "golden" / "tables"
HEADER = [
    "unit", "category", "label", "score",
    *(f"{category}-{field}" for category in ("object", "scene") for field in FIELDS),
]  # fmt: skip
ROWS = [
    ["3", "object", "dog", "0.25", "dog", "100", "50.0", "30", "0.25", "street", "300", "60", "0", "0"],
    ["1", "scene", "street", "0.2", "cat", "10", "20", "1", "0.034482758620689655", "street", "60", "60", "20", "0.2"],
]


def write(folder: Path, changes: dict[str, str] | None = None, row: int = 0) -> Path:
    rows = [dict(zip(HEADER, cells, strict=True)) for cells in ROWS]
    rows[row] |= changes or {}
    path = folder / "table.csv"
    pd.DataFrame(rows, columns=HEADER).to_csv(path, index=False)
    return path


def test_a_sound_table_is_taken_without_a_word(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = import_netdissect(write(tmp_path))
        import_netdissect(GOLDEN / "alexnet_imagenet.csv")
    assert found.units["unit"].tolist() == [0, 2]
    assert found.units["label"].tolist() == ["street", "dog"]
    assert found.units["iou"].tolist() == [0.2, 0.25]
    dog = found.pairs[found.pairs["label"] == "dog"].iloc[0]
    assert (dog["truth"], dog["activation"], dog["intersect"]) == (100, 50, 30)


@pytest.mark.parametrize(
    ("column", "cells", "expected"),
    [
        ("unit", ["1.5", "0", "-5", "1e30", "2.0000000001"], "a whole number of at least 1"),
        ("unit", ["inf", "nan", "NA", "", "0x10", "1_000", "True", "9" * 401, "x" * 10_000], "a number"),
        ("score", ["2", "-1", "1.0000001", "1e999"], "a number from 0 to 1"),
        ("score", ["inf", "nan", "1,5", "٢"], "a number"),
        ("object-truth", ["1e30", "1.7", "-3", "9223372036854775808"], "a whole number of at least 0"),
        ("object-activation", ["50.5", "1e17"], "a whole number of at least 0"),
        ("object-intersect", ["-1"], "a whole number of at least 0"),
        ("object-intersect", ["51"], "at most object-activation, 50, which it is part of"),
        ("object-truth", ["29"], None),
        ("object-iou", ["1.5", "-0.1", "1e400"], "a number from 0 to 1"),
        ("scene-iou", ["inf"], "a number"),
        ("category", ["texture", "", " "], "one of the table's categories: object, scene"),
        ("label", ["", " "], "a label; it is empty only for a unit without a category"),
    ],
)
def test_a_cell_that_cannot_be_is_refused_with_line_column_and_value(
    tmp_path: Path, column: str, cells: list[str], expected: str | None
) -> None:
    for cell in cells:
        path = write(tmp_path, {column: cell}, row=0)
        if expected is None:
            expected, column, cell = "at most object-truth, 29, which it is part of", "object-intersect", "30"
        shown = repr(cell if len(cell) <= 40 else cell[:40] + "...")
        with pytest.raises(InputError, match=re.escape(f"{path}, line 2: {column} is {shown}, expected {expected}")):
            import_netdissect(path, out=tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_unit_of_two_spellings_is_there_twice(tmp_path: Path) -> None:
    path = write(tmp_path, {"unit": "3.0"}, row=1)
    with pytest.raises(
        InputError, match=r"table\.csv, line 3: unit is '3\.0', expected a unit that no earlier row has"
    ):
        import_netdissect(path)


def test_a_unit_that_meets_no_concept_has_neither_label_nor_category(tmp_path: Path) -> None:
    found = import_netdissect(write(tmp_path, {"label": "", "category": "", "score": "0", "object-label": ""}))
    assert found.units.loc[1, ["label", "category"]].isna().all()
    assert found.summary["interpretable"] == 1


@pytest.mark.parametrize(("cells", "beside"), [({"label": "cat"}, "label"), ({"score": "0.9"}, "iou")])
def test_a_concept_that_is_not_the_best_of_its_category_is_told_once(
    tmp_path: Path, cells: dict[str, str], beside: str
) -> None:
    path = write(tmp_path, cells)
    with pytest.warns(UserWarning, match=f"table.csv, line 2: .*, unlike object-{beside} on the same line; 1 ") as seen:
        import_netdissect(path)
    assert len(seen) == 1


def test_an_iou_that_its_counts_do_not_give_is_told_once(tmp_path: Path) -> None:
    path = write(tmp_path, {"object-iou": "0.9", "score": "0.9"})
    with pytest.warns(
        UserWarning, match=r"table\.csv, line 2: object-iou is '0\.9' is not intersect / .* 1 IoUs"
    ) as seen:
        import_netdissect(path)
    assert len(seen) == 1


def test_ious_printed_with_three_digits_are_fine(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        import_netdissect(write(tmp_path, {"object-iou": "0.034"}, row=1))


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, {"unit": "x"}, row=1)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "", lines[1].replace("dog", '"do\ng"'), "", lines[2]]))
    with pytest.raises(InputError, match=r"table\.csv, line 7: unit is 'x'"):
        import_netdissect(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("scene-label", "object-label"), "line 1: .*'object-label' is there more than once"),
        (lambda text: text + "1,2\n", "line 4: .*2 cells; expected 14"),
        (lambda text: text.replace("\n", ",\n", 1), "14 cells; expected 15"),
        (lambda text: text[:0], "the table is empty"),
        (lambda text: text.replace("scene-", "-"), "is not a table of NetDissect-Lite"),
    ],
)
def test_a_table_of_another_form_is_refused(tmp_path: Path, change: Callable[[str], str], said: str) -> None:
    path = write(tmp_path)
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=said):
        import_netdissect(path)


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zip"])
def test_a_compressed_table_is_read_and_a_damaged_one_named(tmp_path: Path, ending: str) -> None:
    plain, path = write(tmp_path), tmp_path / f"table.csv{ending}"
    content = plain.read_bytes()
    if ending == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("table.csv", content)
    else:
        path.write_bytes({".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[ending](content))
    pd.testing.assert_frame_equal(import_netdissect(path).units, import_netdissect(plain).units)
    for damaged in (b"rubbish", path.read_bytes()[:-20], b""):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"table\.csv\."):
            import_netdissect(path)
