"""Dissect one level of a study."""

from __future__ import annotations

from prunescope.dissection.result import Dissection
from prunescope.dissection.run import dissect_networks
from prunescope.networks.layers import UnitsAxis, units_axes
from prunescope.pruning import unit_numbers
from prunescope.study.context import StudyContext
from prunescope.study.levels import Level
from prunescope.study.references import UNTRAINED, untrained_network
from prunescope.study.writing import shown_of


def dissect_level(level: Level, study: StudyContext) -> dict[str, Dissection]:
    """Dissect the trained network of a level and, in the same pass at level 0, the untrained network of the trial.

    Parameters
    ----------
    level
        A trained level.
    study
        What all levels of the study share.

    Returns
    -------
    dict of str to Dissection
        The dissections of the recipe's layers: that of the level under "" and that of the untrained network, which is
        dissected once per trial, under "untrained". If filters were removed, the units have their numbers in the dense
        network.

    Raises
    ------
    InputError
        If a file of the level is damaged, or if the input files have changed meanwhile.
    """
    recipe, settings, model = level.recipe, level.recipe.dissection, level.trained()
    shown = shown_of(level)
    networks = {"": model} | ({UNTRAINED: untrained_network(level, study)} if level.level == 0 else {})
    found = dissect_networks(
        networks,
        layers=settings.layers,
        concepts=study.concepts,
        settings=settings,
        preprocessing=recipe.data.preprocessing(),
        units_axis=_units_axis(level, study),
        device=study.device,
        metadata={"network": recipe.network, "trial": level.trial, "level": level.level},
        progress=lambda done, total: study.progress.update(done / total * 0.99, **shown),
    )
    study.refuse_changes()
    if not (level.removes_filters and level.level):
        return found
    dense = level.dense()
    filters = level.kept(dense).filters
    assert filters is not None
    numbers = unit_numbers(
        dense, model.cpu(), filters, settings.layers, recipe.data.size, units_axis=settings.units_axis
    )
    return {"": found[""].numbered(numbers)}


def _units_axis(level: Level, study: StudyContext) -> UnitsAxis | None:
    """Return the axes that hold the units; for a shrunk network they are measured on the dense network."""
    settings = level.recipe.dissection
    if level.kept().filters is None:
        return settings.units_axis
    return units_axes(level.dense(), settings.layers, study.concepts.image_size, settings.units_axis)
