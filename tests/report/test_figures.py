from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from prunescope.drawing import COLORS, STYLES
from prunescope.evidence import curves, study_evidence
from prunescope.report import Panel, draw_fates, draw_figures, draw_panel, draw_sensitivity, set_positions
from prunescope.report.figures import figures
from tests.cli.commands import typed
from tests.evidence.counted_study import write_counted
from tests.evidence.fake_study import UNITS, write_study

NAMES = ["figure1-accuracy", "figure2-units", "figure3-categories", "figure4-consistency", "figure5-agreement"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("figures") / "study")


@pytest.fixture(scope="module")
def files(study: Path) -> list[Path]:
    return draw_figures(curves(study), study / "figures")


def panels(table, name: str) -> list[Axes]:
    return figures(table)[name].axes


def drawn(axis: Axes) -> list[tuple[list[float], list[float]]]:
    """The lines of the trials, without those for comparison."""
    lines = [line for line in axis.lines if str(line.get_label()).startswith("Trial")]
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in lines]


def test_the_figures_of_curves_are_written_in_three_formats(study: Path, files: list[Path]) -> None:
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


def with_more(rows: pd.DataFrame) -> pd.DataFrame:
    """Curves with what more the evidence can have: fates, baselines and a reliability."""
    fates = {f"fate_{name}": 1 + place for place, name in enumerate(["kept", "unsure", "changed", "lost", "never"])}
    chance = {f"{kind}_{name}": 1.5 for kind in ("chance", "untrained") for name in ("interpretable", "concepts")}
    again = {"retrained_still_interpretable": 0.8, "retrained_same_concept": 0.7, "reliability": 0.9}
    return rows.assign(**fates, **chance, **again)


def test_text_neither_overlaps_nor_is_cut_with_twenty_levels(tmp_path: Path) -> None:
    table = curves(write_study(tmp_path, {(0, 0): UNITS[0, 0]}))
    rows = table.loc[[0] * 63].reset_index(drop=True)
    rows["trial"], rows["level"] = np.repeat([0, 1, 2], 21), list(range(21)) * 3
    rows["weights_remaining"] = 0.8 ** rows["level"]
    bounds = pd.DataFrame([(n, b / 100, 9 - b) for n in range(21) for b in range(1, 9)])
    bounds = bounds.set_axis(["level", "bound", "interpretable"], axis=1).assign(layer="layer4", trial=0)
    for style in STYLES.values():
        for figure in figures(with_more(rows), style, sensitivity=bounds).values():
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


def test_a_band_shows_the_interval_over_images_of_one_trial(tmp_path: Path) -> None:
    table = study_evidence(write_counted(tmp_path)).curves
    axis = figures(table)["figure2-units"].axes[0]
    (band,) = axis.collections
    heights = {tuple(point) for point in band.get_paths()[0].vertices.round(6).tolist()}
    for row in table.itertuples():
        assert {
            (row.weights_remaining, row.interpretable_low),
            (row.weights_remaining, row.interpretable_high),
        } <= heights
    texts = [text.get_text() for text in figures(table)["figure2-units"].legends[0].get_texts()]
    assert texts == ["95 % interval over images", "Trial 0"]


@pytest.mark.parametrize(("trials", "bands"), [(2, 0), (3, 1)])
def test_a_band_over_trials_needs_three_of_them(tmp_path: Path, trials: int, bands: int) -> None:
    table = curves(write_counted(tmp_path, trials=trials))
    assert len(figures(table)["figure2-units"].axes[1].collections) == bands


def test_floors_and_baselines_are_lines_that_the_legend_names(study: Path) -> None:
    made = figures(with_more(curves(study)))
    for name, labels in (
        ("figure2-units", ["chance", "untrained"]),
        ("figure4-consistency", ["units renumbered", "other trials", "retrained"]),
    ):
        texts = [text.get_text() for text in made[name].legends[0].get_texts()]
        assert texts == ["Trial 0", "Trial 1", *labels]


def test_fates_are_stacked_to_the_number_of_units(tmp_path: Path) -> None:
    found = study_evidence(write_counted(tmp_path, levels=3, trials=2))
    figure = figures(found.curves)["figure6-fates"]
    assert figure.axes[0].get_ylim() == (0, 12)
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown[0] == "kept"
    assert "lost" in shown
    assert "figure6-fates" not in figures(found.curves.query("level == 0"))


def test_counts_at_every_bound_are_a_heat_map(tmp_path: Path) -> None:
    found = study_evidence(write_counted(tmp_path, trials=2))
    figure = figures(found.curves, sensitivity=found.sensitivity)["figure7-sensitivity"]
    values = figure.axes[0].collections[0].get_array()
    means = found.sensitivity.groupby(["bound", "level"])["interpretable"].mean().unstack()
    np.testing.assert_allclose(np.asarray(values), means.to_numpy())


def test_each_can_be_drawn_on_given_axes(tmp_path: Path) -> None:
    found = study_evidence(write_counted(tmp_path))
    own = Figure(figsize=(9, 3))
    first, second, third = own.subplots(1, 3)
    draw_panel(first, found.curves, Panel("interpretable", "Units"))
    set_positions(first, found.curves)
    draw_fates(second, found.curves)
    own.colorbar(draw_sensitivity(third, found.sensitivity, "concepts"))
    own.draw_without_rendering()
    assert len(drawn(first)) == 1
    assert own.axes[1].get_ylabel() == "Units"


def test_fonts_are_embedded(files: list[Path]) -> None:
    by_name = {path.name: path for path in files}
    assert b"/FontFile2" in by_name["figure2-units.pdf"].read_bytes()
    assert "<text" not in by_name["figure2-units.svg"].read_text()


@pytest.mark.parametrize(("style", "width"), [("paper", 3.4), ("slides", 12.0)])
def test_a_study_has_figures_in_other_sizes_by_one_command(
    study: Path, tmp_path: Path, style: str, width: float
) -> None:
    result = typed("figures", study, "--style", style, "--format", "png", "--out", tmp_path / "own")
    assert result.exit_code == 0, result.output
    assert {path.suffix for path in (tmp_path / "own").iterdir()} == {".png"}
    with Image.open(tmp_path / "own/figure2-units.png") as image:
        assert image.width == pytest.approx(width * 300, abs=2)
    assert typed("figures", study, "--style", style, "--format", "pdf").exit_code == 0
    assert (study / "figures" / style / "figure2-units.pdf").is_file()


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--style", "papr"], "style is 'papr'; the nearest are: paper"), (["--format", "png,gif"], "formats has 'gif'")],
)
def test_an_unknown_style_or_format_is_one_clear_error(study: Path, options: list[str], said: str) -> None:
    result = typed("figures", study, *options)
    assert result.exit_code == 2
    assert said in result.stderr
