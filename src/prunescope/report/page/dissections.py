"""Describe dissections that belong to no study for their page: of one or several networks, or of a published table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from prunescope.concepts.broden import open_concepts
from prunescope.concepts.protocol import Concepts
from prunescope.dissection.basis import BASES
from prunescope.dissection.settings import DEFAULTS
from prunescope.errors import InputError
from prunescope.evidence.overview import find_summaries, read_numbers
from prunescope.progress import Progress, silent
from prunescope.reading import read_json, read_parquet
from prunescope.report.page.study import dissection_facts
from prunescope.report.page.subject import Subject
from prunescope.report.page.write import write_page
from prunescope.store.dissections import SUMMARY, UNITS

ALONE = "."  # the place of the layers of a single network


def write_dissection_report(
    directory: str | Path, concepts: Concepts | None = None, *, progress: Progress = silent
) -> Path:
    """Write the page of dissections: ``report/index.html`` in their directory.

    Parameters
    ----------
    directory : path
        The `out` of a dissection of one or several networks, or of an imported table.
    concepts : Concepts, optional
        The data set that was dissected with. By default, it is opened from the folder that the dissection names; if it
        is no longer there, the page shows no images.
    progress : function
        Called with the number of files written and their total number.

    Returns
    -------
    Path
        The path of the page.

    Raises
    ------
    InputError
        If the directory contains no dissection, if a file in it is damaged, if the networks have different layers, or
        if the stored examples refer to images that `concepts` does not contain.
    """
    root = Path(directory)
    found = find_summaries(root)
    if not found:
        raise InputError(f"{root} contains no study and no dissection; give the --out directory of one")
    folders = [path.parent for path in [*found, *sorted(root.glob(f"{BASES}/*/*/{SUMMARY}"))]]
    by_network: dict[str, dict[str, Path]] = {}
    for folder in folders:
        network = ALONE if folder == root else folder.parent.relative_to(root).as_posix()
        by_network.setdefault(network, {})[folder.name] = folder
    networks = list(by_network)
    layers = list(dict.fromkeys(layer for of_network in by_network.values() for layer in of_network))
    for network, of_network in by_network.items():
        if set(of_network) != set(layers):
            raise InputError(
                f"{root / network} has the layers {', '.join(sorted(of_network))}, and other networks in {root} have "
                f"{', '.join(sorted(layers))}; give the folder of one network"
            )

    def folder_of(trial: int, level: int, layer: str) -> Path:
        del trial  # There is one.
        return by_network[networks[level]][layer]

    def dissected(trial: int, level: int, layer: str) -> tuple[pd.DataFrame, dict[str, Any]]:
        folder = folder_of(trial, level, layer)
        return read_parquet(folder / UNITS), read_json(folder / SUMMARY)

    in_bases = len(networks) > 1 and all(network == ALONE or network.startswith(f"{BASES}/") for network in networks)
    shown = {network: network.removeprefix(f"{BASES}/") for network in networks}
    shown |= {ALONE: "units" if in_bases else "given network"}
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for level, network in enumerate(networks):
        for layer in layers:
            numbers, problem = read_numbers(by_network[network][layer] / SUMMARY, root)
            place = {"trial": 0, "level": level, "layer": layer, "weights_remaining": None, "accuracy": None}
            named = {} if len(networks) == 1 else {"at": level, "at_label": shown[network]}
            rows.append({**place, **named, **{name: value for name, value in numbers.items() if name != "folder"}})
            notes += [problem] if problem and problem not in notes else []
    units, summary = dissected(0, 0, layers[0])
    settings = summary.get("settings", {})
    kind = "dissection" if "threshold" in units.columns else "table"
    chosen = concepts if concepts is not None or kind == "table" else _opened(settings)
    if chosen is None and kind == "dissection":
        notes.append("The labelled images are no longer where the dissection read them, so the page shows no images.")
    iou = float(settings.get("iou", DEFAULTS.iou))
    facts = [(name.capitalize(), str(settings[name])) for name in ("network", "weights") if settings.get(name)]
    facts += (
        [("Bases" if in_bases else "Networks", ", ".join(shown[name] for name in networks))]
        if len(networks) > 1
        else []
    )
    if in_bases:
        notes.append(
            "The directions of another basis have numbers of their own: direction 3 of a rotation has nothing to do "
            "with unit 3."
        )
    facts += [("Layers", ", ".join(layers)), ("Interpretable", f"IoU above {iou:g}"), *dissection_facts(settings)]
    subject = Subject(
        root=root,
        title=root.resolve().name,
        kind=kind,
        layers=tuple(layers),
        keys=tuple((0, level) for level in range(len(networks))),
        iou=iou,
        axis="Basis" if in_bases else "Network",
        dissected=dissected,
        folder=folder_of,
        curves=pd.DataFrame(rows),
        facts=tuple(facts),
        notes=tuple(notes),
        tables={"categories": list(summary.get("by_category", {}))},
    )
    return write_page(subject, chosen, progress)


def _opened(settings: dict[str, Any]) -> Concepts | None:
    """Open the data set that a dissection names, if it is still there."""
    place = settings.get("concepts")
    if not isinstance(place, str) or not (Path(place) / "index.csv").is_file():
        return None
    return open_concepts(place)
