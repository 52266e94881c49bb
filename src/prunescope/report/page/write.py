"""Write the page of a study: ``report/index.html`` and the data that it draws, in ``report/data``."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prunescope.concepts.protocol import Concepts
from prunescope.dissection.examples import EXAMPLES_FILE, read_examples
from prunescope.dissection.scores import interpretable
from prunescope.drawing import FATE_COLORS
from prunescope.errors import InputError
from prunescope.evidence import Evidence, read_evidence
from prunescope.evidence.fates import FATES
from prunescope.files import write_text
from prunescope.progress import Progress, silent
from prunescope.report.page.data import DATA, packed, table_columns, write_data
from prunescope.report.page.maps import map_arrays
from prunescope.report.page.pictures import COLUMNS, TILES, Pictures, choose_pictures, sheets
from prunescope.report.page.study import of_study
from prunescope.report.page.subject import Subject
from prunescope.report.page.units import kept_columns, unit_arrays, unit_numbers
from prunescope.report.page.vocabulary import NONE, Vocabulary, vocabulary
from prunescope.report.page.weights import kept_into_units
from prunescope.store.stored import open_study
from prunescope.store.tallies import PAIRS

SCRIPTS = ("core.js", "data.js", "charts.js", "pictures.js", "overview.js", "table.js", "journeys.js", "main.js")
MOST_NAMED = 6
MOST_EXEMPLARS = 50  # of a level


def write_report(
    study_dir: str | Path, concepts: Concepts, evidence: Evidence | None = None, *, progress: Progress = silent
) -> Path:
    """Write the page of a study or a series, which need not be finished.

    The page is ``report/index.html``, and draws the data in ``report/data``. It can be opened from disk, and makes no
    network requests.

    Parameters
    ----------
    study_dir : path
        The directory of the study.
    concepts : Concepts
        The data set that the study was dissected with.
    evidence : Evidence, optional
        The evidence of the study; by default, it is read or computed.
    progress : function
        Called with the number of files written and their total number.

    Returns
    -------
    Path
        The path of the page.

    Raises
    ------
    InputError
        If the directory does not contain a study, if no level is finished, if a file of a level is damaged, or if the
        stored examples refer to images that `concepts` does not contain. Nothing is written then.
    """
    study = open_study(study_dir)
    return write_page(of_study(study, read_evidence(study_dir) if evidence is None else evidence), concepts, progress)


def write_page(subject: Subject, concepts: Concepts | None, progress: Progress = silent) -> Path:
    """Write the page of any subject; without a data set, it shows no images."""
    folder = subject.root / "report"
    keys = subject.with_units
    tables = {key: kept_columns(subject.dissected(*key)[0]) for key in keys}
    words = vocabulary(None if concepts is None else concepts.labels, tables.values())
    pictures, wanted, with_examples = _pictures(subject, concepts, tables, words)
    chains = sorted({(subject.layers.index(layer), trial) for trial, _, layer in keys})
    total = len(chains) + len(with_examples) + (0 if pictures is None else pictures.sheets) + 1
    total += sum(table is not None for table in (subject.classes, subject.exemplars))
    written: set[str] = set()
    notes: list[str] = []

    def write(name: str, content: Mapping[str, Any]) -> None:
        write_data(folder, name, content)
        written.add(f"{name}.js")
        progress(len(written), total)

    for place, trial in chains:
        layer = subject.layers[place]
        of_chain = {level: tables[trial, level, layer] for t, level in subject.keys if t == trial}
        found = subject.fates
        fates = {} if found is None else _by_level(found, trial, layer)
        pairs = {level: subject.folder(trial, level, layer) / PAIRS for level in of_chain}
        into = _into(subject, trial, of_chain, layer, notes)
        content = unit_arrays(of_chain, fates, pairs, words, subject.iou, into)
        write(f"units-{place}-{trial}", content)
    if concepts is not None and pictures is not None:
        for trial, level, layer in with_examples:
            table = tables[trial, level, layer]
            units = table["unit"].to_numpy(np.int64)
            examples = read_examples(subject.folder(trial, level, layer) / EXAMPLES_FILE, units, len(concepts))
            if examples is not None:
                thresholds = table["threshold"].to_numpy(np.float64)
                content = map_arrays(examples, units, pictures.tiles, thresholds)
                write(f"maps-{subject.layers.index(layer)}-{trial}-{level}", content)
        for number, sheet in enumerate(sheets(pictures, concepts, wanted)):
            write(f"sheet-{number}", sheet)
    if subject.classes is not None:
        write("classes", table_columns(subject.classes))
    if subject.exemplars is not None:
        write("exemplars", table_columns(clearest(subject.exemplars)))
    write("study", _study(subject, words, concepts, pictures, with_examples, notes))
    write_text(folder / "index.html", page_text(subject))
    _remove_others(folder, written)
    return folder / "index.html"


def _pictures(
    subject: Subject, concepts: Concepts | None, tables: Mapping[tuple[int, int, str], pd.DataFrame], words: Vocabulary
) -> tuple[Pictures | None, NDArray[np.int64], list[tuple[int, int, str]]]:
    """Return the images to show, the concepts to mark on them, and the levels that have example images."""
    nothing = np.zeros((0, 3), np.int64)
    if concepts is None:
        return None, nothing, []
    shown: list[NDArray[np.int64]] = []
    marked: list[NDArray[np.int64]] = []
    found: list[tuple[int, int, str]] = []
    for key, table in tables.items():
        units = table["unit"].to_numpy(np.int64)
        examples = read_examples(subject.folder(*key) / EXAMPLES_FILE, units, len(concepts))
        if examples is None or "threshold" not in table:
            continue
        found.append(key)
        best = np.argsort(-table["iou"].to_numpy(np.float64), kind="stable")
        shown.append(examples.images[best])
        detecting = interpretable(table, subject.iou).to_numpy(bool)
        places = np.repeat(words.places(table)[detecting], examples.images.shape[1])
        marked.append(np.unique(np.stack([examples.images[detecting].ravel(), places], 1), axis=0))
    pictures = choose_pictures(shown, len(concepts), concepts.image_size)
    pairs = np.unique(np.concatenate([np.zeros((0, 2), np.int64), *marked]), axis=0)
    numbers = words.table["number"].to_numpy(np.int64)
    pairs = pairs[(pairs[:, 0] >= 0) & (pairs[:, 1] >= 0)]
    pairs = pairs[numbers[pairs[:, 1]] != NONE]
    wanted = np.stack([pictures.tiles[pairs[:, 0]], numbers[pairs[:, 1]], pairs[:, 1]], 1) if len(pairs) else nothing
    return pictures, wanted[np.lexsort(wanted.T[::-1])].astype(np.int64), found


def _into(
    subject: Subject, trial: int, tables: Mapping[int, pd.DataFrame], layer: str, notes: list[str]
) -> NDArray[np.float32] | None:
    """Return the kept weights of every unit by level; if a mask cannot be read, add a note that says so."""
    if subject.mask is None:
        return None
    paths = [subject.mask(trial, level) for level in sorted(tables)]
    try:
        return kept_into_units([path if path.is_file() else None for path in paths], layer, len(unit_numbers(tables)))
    except InputError as error:
        notes.append(f"The weights that lead into the units of trial {trial} are not shown. {error}.")
        return None


def clearest(exemplars: pd.DataFrame) -> pd.DataFrame:
    """Return the exemplars of each level that most trials agree about, and how many the level has in all."""
    agreeing = exemplars["dense_agreeing"] + exemplars["pruned_agreeing"]
    ordered = exemplars.assign(agreeing=-agreeing, of=exemplars.groupby("level")["image"].transform("size"))
    ordered = ordered.sort_values(["level", "agreeing", "image"], kind="stable").drop(columns="agreeing")
    return ordered.groupby("level", sort=False).head(MOST_EXEMPLARS)


def _by_level(fates: pd.DataFrame, trial: int, layer: str) -> dict[int, pd.DataFrame]:
    rows = fates[(fates["trial"] == trial) & (fates["layer"] == layer)]
    return {int(level): rows[rows["level"] == level] for level in rows["level"].unique()}


def _study(
    subject: Subject,
    words: Vocabulary,
    concepts: Concepts | None,
    pictures: Pictures | None,
    with_examples: list[tuple[int, int, str]],
    notes: list[str],
) -> dict[str, Any]:
    """Return what the page needs first: the results of the study as a whole, and the names of concepts."""
    content: dict[str, Any] = {
        "title": subject.title,
        "kind": subject.kind,
        "layers": list(subject.layers),
        "keys": [list(key) for key in subject.keys],
        "iou": subject.iou,
        "axis": subject.axis,
        "facts": [list(fact) for fact in subject.facts],
        "notes": [*subject.notes, *notes, *_without_examples(subject, with_examples)],
        "curves": table_columns(subject.curves),
        "fates": list(FATES),
        "fate_colors": dict(FATE_COLORS),
        "names": words.table["shown"].tolist(),
        "categories_of": words.table["category"].tolist(),
        "maps": [[subject.layers.index(layer), trial, level] for trial, level, layer in with_examples],
        "classes": subject.classes is not None,
        "exemplars": subject.exemplars is not None,
        **subject.tables,
    }
    if pictures is not None and concepts is not None:
        content["pictures"] = {
            "tiles": TILES,
            "columns": COLUMNS,
            "height": pictures.height,
            "width": pictures.width,
            "label_size": list(concepts.label_size),
            "images": packed(pictures.images.astype(np.int32)),
        }
    return content


def _without_examples(subject: Subject, found: list[tuple[int, int, str]]) -> list[str]:
    lacking = [
        f"trial {trial}, level {level}" + (f", {layer}" if len(subject.layers) > 1 else "")
        for trial, level, layer in subject.with_units
        if (trial, level, layer) not in set(found)
    ]
    if subject.kind == "table":
        return []
    more = f" and {len(lacking) - MOST_NAMED} more" if len(lacking) > MOST_NAMED else ""
    return [f"Example images are missing for {'; '.join(lacking[:MOST_NAMED])}{more}."] if lacking else []


def page_text(subject: Subject) -> str:
    """Return the HTML of the page, with its style and its script in it."""
    folder = files("prunescope.report.page") / "browser"
    style = (folder / "page.css").read_text(encoding="utf-8")
    parts = "\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)
    program = f'"use strict";\n(() => {{\n{parts}\n}})();\n'
    text = (folder / "page.html").read_text(encoding="utf-8")
    values = {
        "TITLE": html.escape(subject.title),
        "STYLE_HASH": _digest(style),
        "SCRIPT_HASH": _digest(program),
        "STYLE": style,
        "SCRIPT": program,
    }
    return re.sub(r"\{\{([A-Z_]+)\}\}", lambda found: values[found[1]], text)


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _remove_others(folder: Path, written: set[str]) -> None:
    """Remove the data of an earlier page, and the sheets of images that earlier versions wrote."""
    for path in (folder / DATA).glob("*.js"):
        if path.name not in written:
            path.unlink()
    for path in (folder / "sheets").glob("trial-*.jpg"):
        path.unlink()
