from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from prunescope.drawing import COLORS
from prunescope.evidence import curves
from prunescope.report import draw_figures
from prunescope.report.figures import PAGE_NARROW, figures
from tests.evidence.fake_study import UNITS, write_study

NAMES = ["figure1-accuracy", "figure2-units", "figure3-categories", "figure4-consistency"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("figures") / "study")


@pytest.fixture(scope="module")
def files(study: Path) -> list[Path]:
    return draw_figures(curves(study), study / "figures")


def panels(table, name: str) -> list[Axes]:
    return figures(table)[name].axes


def drawn(axis: Axes) -> list[tuple[list[float], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines]


def test_four_figures_are_written_in_three_formats(study: Path, files: list[Path]) -> None:
    assert sorted(path.name for path in files) == [f"{n}.{e}" for n in NAMES for e in ("pdf", "png", "svg")]
    assert sorted((study / "figures").iterdir()) == sorted(files)
    with Image.open(study / "figures/figure2-units.png") as image:
        assert image.width == pytest.approx(6.6 * 300, abs=2)


def test_the_same_curves_give_the_same_bytes(study: Path, files: list[Path], tmp_path: Path) -> None:
    again = draw_figures(curves(study), tmp_path)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in files]


def test_every_trial_is_a_line_through_its_levels(study: Path) -> None:
    table = curves(study)
    (accuracy,) = panels(table, "figure1-accuracy")
    remaining = [1, 0.5, 0.25]
    assert drawn(accuracy) == [
        (remaining, pytest.approx([90, 80, 70])),
        (remaining, pytest.approx([89, 79, 69])),
    ]
    units, concepts = panels(table, "figure2-units")
    assert [ys for _, ys in drawn(units)] == [[5, 5, 1], [0, 1, 0]]
    assert [ys for _, ys in drawn(concepts)] == [[4, 4, 1], [0, 1, 0]]
    assert [axis.get_title() for axis in panels(table, "figure3-categories")] == ["color", "object", "scene"]
    assert [ys for _, ys in drawn(panels(table, "figure3-categories")[1])] == [[2, 3, 1], [0, 1, 0]]
    still, same = panels(table, "figure4-consistency")
    assert drawn(still)[0][1] == pytest.approx([100, 80, 20])
    assert drawn(same)[0][1] == pytest.approx([100, 75, 0])
    assert np.isnan(drawn(same)[1][1]).all()


def test_weights_remaining_run_from_100_percent_down_on_a_logarithmic_axis(study: Path) -> None:
    for figure in figures(curves(study)).values():
        for axis in figure.axes:
            assert axis.get_xscale() == "log"
            left, right = axis.get_xlim()
            assert left > 1 > 0.25 > right
            assert [label.get_text() for label in axis.get_xticklabels()] == ["100", "50", "25"]


def test_text_neither_overlaps_nor_is_cut_with_twenty_levels(tmp_path: Path) -> None:
    table = curves(write_study(tmp_path, {(0, 0): UNITS[0, 0]}))
    rows = table.loc[[0] * 63].reset_index(drop=True)
    rows["trial"], rows["level"] = np.repeat([0, 1, 2], 21), list(range(21)) * 3
    rows["weights_remaining"] = 0.8 ** rows["level"]
    for width in (None, PAGE_NARROW):
        for figure in (figures(rows) if width is None else figures(rows, width)).values():
            figure.draw_without_rendering()
            texts = [text for legend in figure.legends for text in legend.get_texts()]
            for axis in figure.axes:
                low, high = axis.get_ylim()  # a tick label beyond the axis is not drawn
                texts += [label for label in axis.get_yticklabels() if low <= label.get_position()[1] <= high]
                texts += [*axis.get_xticklabels(), axis.title, axis.xaxis.label, axis.yaxis.label]
            boxes = [text.get_window_extent() for text in texts if text.get_text()]
            edge = figure.bbox
            assert all(edge.x0 <= b.x0 and b.x1 <= edge.x1 and edge.y0 <= b.y0 and b.y1 <= edge.y1 for b in boxes)
            assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]


def test_lines_differ_in_colour_and_marker_and_the_legend_names_them(study: Path) -> None:
    figure = figures(curves(study))["figure1-accuracy"]
    lines = figure.axes[0].lines
    assert [line.get_color() for line in lines] == list(COLORS[:2])
    assert lines[0].get_marker() != lines[1].get_marker()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Trial 0", "Trial 1"]


def test_several_layers_have_figures_of_their_own(tmp_path: Path) -> None:
    made = figures(curves(write_study(tmp_path, layers=["layer3", "layer4"])))
    assert list(made) == [
        "figure1-accuracy",
        *[f"{name}-{layer}" for layer in ("layer3", "layer4") for name in NAMES[1:]],
    ]


def test_one_trial_with_one_level_can_be_drawn(tmp_path: Path) -> None:
    table = curves(write_study(tmp_path / "study", {(0, 0): UNITS[1, 0]}, trials=1, levels=0))
    assert len(draw_figures(table, tmp_path / "figures", formats=["svg"])) == 4
    assert not figures(table)["figure1-accuracy"].legends


def test_a_category_with_dollar_signs_is_text(tmp_path: Path) -> None:
    table = curves(write_study(tmp_path / "study", {(0, 0): [("low", "a$^{$b", 0.3)]}, trials=1))
    draw_figures(table, tmp_path / "figures", formats=["svg"])
