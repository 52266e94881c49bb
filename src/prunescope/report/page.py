"""Write the report page of a study.

The page shows the main results, the figures, the table of all numbers, and the units of every level with the images
that excite them most.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from prunescope.concepts.protocol import Concepts
from prunescope.dissection.outlines import Bytes
from prunescope.drawing import PAGE
from prunescope.evidence import Evidence, category_columns, read_evidence
from prunescope.evidence.fates import fate_columns
from prunescope.files import write_text
from prunescope.report.drawing import Panel, percent
from prunescope.report.figures import figures, panels_by_figure
from prunescope.report.inline import inline_svg, svg_text, svg_width
from prunescope.report.method import counted, method
from prunescope.report.sheets import GUTTER, Tiles, scaled
from prunescope.report.units import MOST_UNITS, LevelUnits, level_units
from prunescope.store.stored import StoredStudy, open_study

REMEMBERED_BYTES = 256 * 2**20
CAPTIONS = {
    "figure1": "Accuracy on the validation set.",
    "figure2": "Units that detect a concept (first panel), and how many different concepts they detect (second). Grey "
    "lines are the counts with permuted labels and of the untrained network, where they are known.",
    "figure3": "Detected concepts by category.",
    "figure4": "Consistency with the dense network of the same trial: how many of its interpretable units still are "
    "(first panel), and how many of those detect the same concept (second). Grey lines are what remains if units are "
    "renumbered at random, and where they are known, the consistency with the dense networks of other trials and of a "
    "retrained network.",
    "figure5": "Agreement with the dense network, corrected for chance (Cohen's kappa) or independent of the units' "
    "numbers, and the reliability of concepts: the share of resamples of the images in which units keep theirs.",
    "figure6": "What becomes of the dense network's units. Unsure units detect another concept, but resampled images "
    "do not show that it has changed.",
    "figure7": "Counts at every bound of the IoU; this study's bound is stated above.",
}


@dataclass(frozen=True)
class Drawing:
    """One figure on the page.

    Attributes
    ----------
    name : str
        The id of the figure's HTML element.
    title, caption : str
        The text below the figure.
    words : str
        A description in words of what the figure shows.
    share : str
        The part of the page's width that the figure takes, as a CSS percentage. It keeps the text of all figures at
        the same size.
    svg : Markup
        The figure.
    """

    name: str
    title: str
    caption: str
    words: str
    share: str
    svg: Markup


@dataclass(frozen=True)
class Part:
    """One collapsible section of the page, which shows one layer at one level of one trial."""

    trial: int
    level: int
    layer: str
    facts: dict[str, Any]
    listing: LevelUnits


def write_report(
    study_dir: str | Path, concepts: Concepts, evidence: Evidence | None = None, drawn: Sequence[Path] = ()
) -> Path:
    """Write the report of a study: ``report/index.html`` and the image sheets that it shows.

    The page can be opened from disk and makes no network requests. It shows the levels that are finished and lists
    those that are missing.

    Parameters
    ----------
    study_dir : path
        A study's directory, finished or not.
    concepts : Concepts
        The data set that the study was dissected with.
    evidence : Evidence, optional
        The evidence of the study; by default, it is read or computed.
    drawn : sequence of Path
        The files that `draw_figures` has drawn from this evidence. The page shows those that are SVG; figures that are
        not among them are drawn, which takes a fifth of a second each.

    Returns
    -------
    Path
        The path of the page.

    Raises
    ------
    InputError
        If the directory does not contain a study, if no level is finished, if a file of a level is damaged, or if the
        stored examples refer to images that `concepts` does not contain.
    """
    study = open_study(study_dir)
    found = read_evidence(study_dir) if evidence is None else evidence
    curves = found.curves
    folder = study.root / "report"
    parts = list(_parts(study, curves, concepts, folder))
    tile = Tiles.fitting(concepts.image_size)
    sheet_width = tile.size(1)[0]
    environment = Environment(
        loader=PackageLoader("prunescope.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, share=_share, number=_number, plain=_plain)
    script = _source(environment, "page.js")
    page = environment.get_template("page.html").render(
        settings=study.settings,
        method=" ".join(filter(None, [_method(study), counted(study.measured(*study.finished[0]))])),
        dissected=_dissection_settings(study),
        facts=_facts(curves, study.settings.axis),
        drawings=_drawings(found, study.settings.axis, drawn),
        verdict=found.verdict,
        claims=None if found.claims is None else found.claims.to_dict("records"),
        notes=found.notes,
        curves=curves.to_dict("records"),
        categories=category_columns(curves),
        layers=list(curves["layer"].unique()),
        trials=sorted(curves["trial"].unique()),
        parts=parts,
        missing=_missing(study),
        empty=_empty(study),
        without_examples=[part for part in parts if not part.listing.has_examples],
        most_units=MOST_UNITS,
        strip={
            "ratio": f"{sheet_width} / {tile.height}",
            "tile": f"{100 * tile.width / sheet_width:.4f}%",
            "pitch": f"{100 * (tile.width + GUTTER) / sheet_width:.4f}%",
        },
        style=_source(environment, "page.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    write_text(folder / "index.html", page)
    _remove_others(folder / "sheets", {sheet for part in parts for sheet in part.listing.sheets})
    return folder / "index.html"


def _parts(study: StoredStudy, curves: pd.DataFrame, concepts: Concepts, folder: Path) -> Iterator[Part]:
    tile = Tiles.fitting(concepts.image_size)

    @lru_cache(maxsize=REMEMBERED_BYTES // (3 * tile.height * tile.width))
    def show(image: int) -> Bytes:
        return scaled(concepts.image(image), tile)

    finished = set(study.finished)
    for facts in curves.to_dict("records"):
        trial, level, layer = int(facts["trial"]), int(facts["level"]), str(facts["layer"])
        dense = study.units(trial, 0, layer) if level > 0 and (trial, 0) in finished else None
        listing = level_units(study, (trial, level, layer), dense, folder, concepts, show)
        yield Part(trial, level, layer, {str(name): value for name, value in facts.items()}, listing)


def _method(study: StoredStudy) -> str:
    pruning = study.settings.pruning
    if pruning is not None:
        return method(pruning)
    return "The levels are checkpoints that existed already; nothing was trained."


def _drawings(evidence: Evidence, axis: str | None, drawn: Sequence[Path]) -> list[Drawing]:
    curves = evidence.curves
    texts = {path.stem: path.read_text(encoding="utf-8") for path in drawn if path.suffix == ".svg"}
    if not texts:
        made = figures(curves, axis=axis, sensitivity=evidence.sensitivity)
        texts = {name: svg_text(figure) for name, figure in made.items()}
    layers = list(curves["layer"].unique())
    panels = panels_by_figure(curves)
    drawings = []
    for name, text in texts.items():
        number, _, rest = name.partition("-")
        layer = rest.partition("-")[2] or str(layers[0])
        rows = curves[curves["layer"] == layer]
        if name in panels:
            words = _panels_in_words(*panels[name], axis)
        elif number == "figure6":
            words = _fates_in_words(rows, axis)
        else:
            words = _bounds_in_words(evidence.sensitivity[evidence.sensitivity["layer"] == layer])
        drawings.append(
            Drawing(
                name=name,
                title=f"Figure {number.removeprefix('figure')}",
                caption=CAPTIONS[number] + (f" Layer {layer}." if len(layers) > 1 and number != "figure1" else ""),
                words=f"{words}. Means over trials.",
                share=f"{100 * svg_width(text) / PAGE.width:.1f}%",
                svg=inline_svg(text, f"{name}-"),
            )
        )
    return drawings


def _panels_in_words(rows: pd.DataFrame, panels: Sequence[Panel], axis: str | None) -> str:
    return "; ".join(
        f"{f'{panel.title}: ' if panel.title else ''}{panel.label} "
        f"{_between(rows, panel.column, 100 if panel.percent else 1, axis)}"
        for panel in panels
    )


def _fates_in_words(rows: pd.DataFrame, axis: str | None) -> str:
    return "; ".join(f"{fate} {_between(rows, column, 1, axis)}" for fate, column in fate_columns(rows).items())


def _bounds_in_words(sensitivity: pd.DataFrame) -> str:
    first, last = sensitivity["level"].min(), sensitivity["level"].max()
    sentences = []
    for bound in (0.01, 0.05, 0.1, 0.2):
        at = sensitivity[(sensitivity["bound"] - bound).abs() < 1e-9].groupby("level")["interpretable"].mean()
        sentences.append(
            f"{_number(at[first])} interpretable units at level {first} and {_number(at[last])} at level {last} with "
            f"an IoU above {bound:g}"
        )
    return "; ".join(sentences)


def _between(rows: pd.DataFrame, column: str, scale: float, axis: str | None) -> str:
    """Describe the first and the last point of a curve, averaged over trials."""
    first, last = rows["level"].min(), rows["level"].max()
    ends = [rows[rows["level"] == level] for level in ([first, last] if last > first else [first])]
    return ", ".join(f"{_number(scale * float(end[column].mean()))} at {_position(end, axis)}" for end in ends)


def _position(rows: pd.DataFrame, axis: str | None) -> str:
    """Describe where a level lies on the horizontal axis of the figures."""
    if axis is not None:
        return f"{rows['at_label'].iloc[0]} ({axis})"
    return f"{percent(rows['weights_remaining'].mean())} % of weights"


def _facts(curves: pd.DataFrame, axis: str | None) -> list[dict[str, Any]]:
    """Return the headline numbers, measured at the first and at the last finished level."""
    first, last = curves["level"].min(), curves["level"].max()
    facts: list[dict[str, Any]] = []
    for layer in curves["layer"].unique():
        of_layer = curves[curves["layer"] == layer]
        ends = [of_layer[of_layer["level"] == level] for level in ([first, last] if last > first else [first])]
        where = [_position(rows, axis) for rows in ends]
        several = f", {layer}" if curves["layer"].nunique() > 1 else ""
        if not facts and of_layer["accuracy"].notna().any():
            facts.append({"name": "Top-1 accuracy", "values": _pairs(where, ends, "accuracy", 100, " %"), "note": ""})
        facts.append(
            {
                "name": f"Interpretable units{several}",
                "values": _pairs(where, ends, "interpretable"),
                "note": f"of {int(of_layer['units'].max())}",
            }
        )
        facts.append({"name": f"Detected concepts{several}", "values": _pairs(where, ends, "concepts"), "note": ""})
    return facts


def _pairs(
    where: list[str], ends: list[pd.DataFrame], column: str, scale: float = 1, unit: str = ""
) -> list[dict[str, str]]:
    pairs = []
    for place, rows in zip(where, ends, strict=True):
        values = rows[column] * scale
        range_ = f"{_number(values.min())} to {_number(values.max())}" if values.min() < values.max() else ""
        pairs.append({"at": place, "mean": f"{_number(values.mean())}{unit}", "range": range_})
    return pairs


def _missing(study: StoredStudy) -> list[str]:
    """List the levels that are not finished, one line per trial."""
    by_trial: dict[int, list[str]] = {}
    for trial, level in study.missing:
        by_trial.setdefault(trial, []).append(str(level))
    return [
        f"Trial {trial}: level{'s' if len(levels) > 1 else ''} {', '.join(levels)}"
        for trial, levels in by_trial.items()
    ]


def _empty(study: StoredStudy) -> list[str]:
    """List the layers that have no weights left, one line per trial and level."""
    found = {key: study.measured(*key).empty for key in study.finished}
    return [f"Trial {trial}, level {level}: {', '.join(empty)}" for (trial, level), empty in found.items() if empty]


def _dissection_settings(study: StoredStudy) -> dict[str, Any]:
    settings = study.summary(*study.finished[0], study.settings.layers[0]).get("settings", {})
    return settings if isinstance(settings, dict) else {}


def _remove_others(folder: Path, kept: set[str]) -> None:
    """Remove sheets that were written for an earlier report and are not in `kept`."""
    names = {Path(sheet).name for sheet in kept}
    for path in folder.glob("trial-*.jpg"):
        if path.name not in names:
            path.unlink()


def _source(environment: Environment, name: str) -> Markup:
    """Return the text of a file of the package, marked so that it is not escaped in the page."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _share(value: float) -> str:
    """Format a fraction in percent, or return a dash if it is NaN."""
    return "–" if pd.isna(value) else f"{100 * value:.1f}"


def _number(value: float) -> str:
    """Format a number with at most one decimal, or return a dash if it is NaN."""
    return "–" if pd.isna(value) else f"{value:.1f}".removesuffix(".0")


def _plain(value: float) -> str:
    """Format a number with at most three decimals, or return a dash if it is NaN."""
    return "–" if pd.isna(value) else f"{value:.3f}".rstrip("0").rstrip(".")
