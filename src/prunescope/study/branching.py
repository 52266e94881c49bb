"""Branching: a study reuses dense networks, dissections or masks of another study if both depend on the same inputs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from prunescope.dissection.result import layer_folder
from prunescope.errors import InputError
from prunescope.files import replacing, write_json
from prunescope.fingerprints import Fingerprint
from prunescope.listings import Listing, list_files
from prunescope.store.layout import StudyDirectory
from prunescope.store.locations import IMAGES, LABELS, MASKS, NETWORK, TASK, apart_from_places
from prunescope.store.reading import read_recipe
from prunescope.store.recipe import Recipe
from prunescope.study.identity import Identity, recorded
from prunescope.study.levels import Level
from prunescope.study.retraining import begin_dense

# The batch size has no influence on a dissection, and the layers are compared separately.
_OF_DISSECTIONS = {"dissection": {"batch_size", "layers"}}


@dataclass(frozen=True)
class Branch:
    """A study that other studies branch from."""

    directory: StudyDirectory
    recipe: Recipe

    @classmethod
    def open(cls, path: str | Path) -> Branch:
        """Open the study in a directory.

        Raises
        ------
        InputError
            If the directory holds no study, or its recipe cannot be read.
        """
        directory = StudyDirectory(Path(path))
        if not directory.recipe.is_file():
            raise InputError(f"{path} holds no study to branch from: there is no study.yaml in it")
        return cls(directory, read_recipe(directory.recipe))

    @cached_property
    def fingerprints(self) -> dict[str, Fingerprint]:
        """The recorded fingerprints of the study's files by part; empty if the study recorded none or has not begun."""
        return recorded(self.directory)


def differences(recipe: Recipe, branch: Branch, identity: Identity | None = None) -> list[str]:
    """Return the names of the recipe fields that make the dense networks of two studies differ.

    The seed is not compared, because the trials of two studies are matched by their seeds (see `trial_of`).

    Parameters
    ----------
    recipe
        The recipe of the first study.
    branch
        The second study.
    identity
        The fingerprints of the first study's files. Data and network files are compared by content if the fingerprints
        of both studies are known, and by path otherwise.
    """
    known = identity.parts.keys() & branch.fingerprints.keys() if identity else set()
    other = identity.differences(branch.fingerprints) if identity else {}
    fields = {TASK: "data.task", NETWORK: "network"}
    return [*_other_fields(recipe, branch, known), *(name for part, name in fields.items() if part in other)]


def trial_of(recipe: Recipe, trial: int, other: Recipe) -> int | None:
    """Return the number of the other study's trial that has the same seed, or None if there is none."""
    number = recipe.seed + trial - other.seed
    return number if 0 <= number < other.trials else None


def share_dense(
    level: Level, branches: Sequence[Branch], steps_per_epoch: int, identity: Identity | None = None
) -> str:
    """Take over the dense network of a trial from the first branch that has it.

    The files of the initial weights, the rewinding point, the trained weights and the training table are hard-linked,
    or copied where the file system has no hard links. The dissection is taken as well if both studies have the same
    dissection settings and data. Training of level 0 is complete afterwards.

    Parameters
    ----------
    level
        Level 0 of a trial.
    branches
        The studies to search, in this order.
    steps_per_epoch
        The number of training steps per epoch of the task.
    identity
        The fingerprints of the study's files, as in `differences`.

    Returns
    -------
    str
        A message that says what was shared, or why no branch could share its network. It is empty if the level is
        complete already or if there are no branches.
    """
    recipe, directory, trial = level.recipe, level.directory, level.trial
    if directory.is_trained(trial, 0, recipe.pruning):
        return ""
    found = dense_elsewhere(recipe, trial, branches, steps_per_epoch, identity)
    if found is None:
        problems = [f"{b.directory.root} {_keeps_from_dense(recipe, trial, b, identity)}" for b in branches]
        return f"trial {trial}: no dense network is taken: {'; '.join(problems)}" if problems else ""
    branch, theirs = found
    there, points = branch.directory, _rewinding_points(branch, theirs, steps_per_epoch)
    step = recipe.pruning.rewind_to.iterations(steps_per_epoch)
    for file, ours in (
        (there.initial(theirs), directory.initial(trial)),
        *([(points[step], directory.rewind(trial))] if step in points else []),
        (there.weights(theirs, 0), directory.weights(trial, 0)),
        (there.training(theirs, 0), directory.training(trial, 0)),
    ):
        link(file, ours)
    mask = begin_dense(level, steps_per_epoch).mask
    mask.save(directory.mask(trial, 0))
    # The measurements are written last, because they mark the level as complete.
    measured = there.read_measured(theirs, 0) | {"trial": trial, "kept": mask.kept, "prunable": mask.prunable}
    write_json(directory.measured(trial, 0), measured)
    return (
        f"trial {trial}: the dense network is that of {there.root}{_share_dissection(level, branch, theirs, identity)}"
    )


def dense_elsewhere(
    recipe: Recipe,
    trial: int,
    branches: Sequence[Branch],
    steps_per_epoch: int,
    identity: Identity | None = None,
) -> tuple[Branch, int] | None:
    """Return the first branch that has a trial's dense network, and the number of the matching trial there.

    The branch also has to have stored the rewinding point if the recipe rewinds. None is returned if no branch fits.
    """
    step = recipe.pruning.rewind_to.iterations(steps_per_epoch)
    for branch in branches:
        theirs = trial_of(recipe, trial, branch.recipe)
        if theirs is None or differences(recipe, branch, identity):
            continue
        if not branch.directory.is_trained(theirs, 0):
            continue
        if not recipe.pruning.rewinds or step in _rewinding_points(branch, theirs, steps_per_epoch):
            return branch, theirs
    return None


def same_dissection(recipe: Recipe, trial: int, branch: Branch, theirs: int, identity: Identity | None = None) -> bool:
    """Return whether two studies would dissect the same network with the same result; layers are not compared."""
    known = identity.parts.keys() & branch.fingerprints.keys() if identity else set()
    other = identity.differences(branch.fingerprints) if identity else {}
    first, second = (
        apart_from_places({"dissection": one.model_dump(mode="json", exclude=_OF_DISSECTIONS)["dissection"]}, known)
        for one in (recipe, branch.recipe)
    )
    # A summary stores the number of its trial, so dissections are shared only between trials of the same number.
    return trial == theirs and first == second and not {IMAGES, LABELS} & other.keys()


def _rewinding_points(branch: Branch, trial: int, steps_per_epoch: int) -> dict[int, Path]:
    directory = branch.directory
    own = branch.recipe.pruning.rewind_to.iterations(steps_per_epoch)
    points = {0: directory.initial(trial), own: directory.rewind(trial)}
    for path in directory.trial(trial).glob("rewind-*it.safetensors"):
        if step := re.fullmatch(r"rewind-([0-9]{1,18})it\.safetensors", path.name):
            points[int(step[1])] = path
    return {step: path for step, path in points.items() if path.is_file()}


def _share_dissection(level: Level, branch: Branch, theirs: int, identity: Identity | None) -> str:
    there, layers = branch.directory, level.recipe.dissection.layers
    if not same_dissection(level.recipe, level.trial, branch, theirs, identity):
        return ""
    if not there.is_dissected(theirs, 0, layers):
        return ""
    for layer in layers:
        folder = layer_folder(there.dissection(theirs, 0), layer)
        files = sorted(path for path in folder.iterdir() if path.is_file())
        for file in sorted(files, key=lambda path: path.name == "summary.json"):
            link(file, layer_folder(level.directory.dissection(level.trial, 0), layer) / file.name)
    return ", and its dissection"


def masks_branch(
    recipe: Recipe,
    finished: Sequence[Branch],
    to_come: Sequence[Branch] = (),
    identity: Identity | None = None,
) -> Branch | None:
    """Return the study that a recipe takes its masks from, or None if the recipe prunes by itself.

    Parameters
    ----------
    recipe
        The study's recipe.
    finished
        Candidate studies, which have to have trained all levels that masks are needed from.
    to_come
        Candidate studies that will be run before this one, so that their levels need not be trained yet.
    identity
        The fingerprints of the study's files, as in `differences`. If they are not known yet, the paths of files that
        a candidate has fingerprints of are not compared.

    Raises
    ------
    InputError
        If the recipe takes masks and no candidate fits. The message gives the reason for each candidate.
    """
    if recipe.pruning.masks == "own":
        return None
    problems = []
    for branch, is_there in (*((branch, True) for branch in finished), *((branch, False) for branch in to_come)):
        problem = _keeps_from_masks(recipe, branch, is_there, identity)
        if not problem:
            return branch
        problems.append(f"{branch.directory.root}: {problem}")
    offered = "none is named" if not problems else "none of these fits:\n  " + "\n  ".join(problems)
    raise InputError(
        f"recipe {recipe.name}: pruning.masks is branch, which takes the masks of a finished study, but {offered}"
        f"{'' if problems else '; give --branch-from STUDY, or its recipe before this one'}"
    )


def list_masks(recipe: Recipe, branch: Branch) -> Listing:
    """List the mask and filter files that a study takes from another study, by the names they have in this study."""
    files = []
    for trial in range(recipe.trials):
        theirs = trial_of(recipe, trial, branch.recipe)
        assert theirs is not None
        for level in range(1, recipe.pruning.levels + 1):
            for path in (branch.directory.mask(theirs, level), branch.directory.filters(theirs, level)):
                files.append((f"trial-{trial}/level-{level:02d}/{path.name}", str(path)))
    return list_files(files)


def refuse_other_masks(directory: StudyDirectory, branch: Branch) -> None:
    """Raise if a study that has not recorded the fingerprint of its masks began with the masks of another study.

    Raises
    ------
    InputError
        If `masks.json` names another study than `branch`, or cannot be read.
    """
    root = str(branch.directory.root.absolute())
    if MASKS in recorded(directory) or not directory.masks_of.is_file():
        return
    try:
        noted = json.loads(directory.masks_of.read_text(encoding="utf-8"))["study"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f'{directory.masks_of} cannot be read; expected {{"study": DIRECTORY}}, the study whose masks this one '
            "takes; write that, or remove the file if they are those of this --branch-from"
        ) from error
    if noted != root:
        raise InputError(
            f"{directory.root} takes its masks from another study than {root}: from {noted}; give that one to "
            f"branch from or, if it was moved, its new place in {directory.masks_of}"
        )


def note_masks(directory: StudyDirectory, branch: Branch) -> None:
    """Record the path of the study from which a study takes its masks."""
    write_json(directory.masks_of, {"study": str(branch.directory.root.absolute())})


def link(file: str | Path, other: str | Path) -> None:
    """Create the hard link `other` to `file`, or a copy if the file system does not support hard links."""
    with replacing(Path(other)) as beside:
        try:
            beside.hardlink_to(file)
        except OSError:
            shutil.copy2(file, beside)


def _keeps_from_dense(recipe: Recipe, trial: int, branch: Branch, identity: Identity | None) -> str:
    if different := differences(recipe, branch, identity):
        return f"has another {', '.join(different)}"
    theirs = trial_of(recipe, trial, branch.recipe)
    if theirs is None:
        return f"has no trial of seed {recipe.seed + trial}"
    if not branch.directory.is_trained(theirs, 0):
        return f"has not finished level 0 of its trial {theirs}"
    return f"has kept no weights of step {recipe.pruning.rewind_to}"


def _keeps_from_masks(recipe: Recipe, branch: Branch, is_there: bool, identity: Identity | None) -> str:
    ours, theirs = recipe.pruning, branch.recipe.pruning
    if theirs.masks != "own":
        return "its masks are a branch's too"
    different = (
        differences(recipe, branch, identity) if identity else _other_fields(recipe, branch, branch.fingerprints)
    )
    if different:
        return f"it has another {', '.join(different)}"
    kept = ("schedule", "scope", "exclude", "fraction", *(() if ours.criterion == "shuffled" else ("criterion",)))
    if different := [f"pruning.{name}" for name in kept if getattr(ours, name) != getattr(theirs, name)]:
        return f"it has another {', '.join(different)}"
    if (ours.remaining or ()) != (theirs.remaining or ())[: ours.levels]:
        return "it has another pruning.remaining"
    if theirs.levels < ours.levels:
        return f"it has {theirs.levels} levels, {ours.levels} are needed"
    for trial in range(recipe.trials):
        number = trial_of(recipe, trial, branch.recipe)
        if number is None:
            return f"it has no trial of seed {recipe.seed + trial}"
        for level in range(ours.levels + 1) if is_there else ():
            if not branch.directory.is_trained(number, level):
                return f"level {level} of its trial {number} is not finished"
    return ""


def _other_fields(recipe: Recipe, branch: Branch, known: Collection[str]) -> list[str]:
    """Return the names of differing fields that dense networks depend on, except paths of parts in `known`."""
    ours, theirs = (dict(_fields(apart_from_places(_dense(one), known))) for one in (recipe, branch.recipe))
    return [field for field in {**ours, **theirs} if ours.get(field) != theirs.get(field)]


def _dense(recipe: Recipe) -> dict[str, Any]:
    """Return the fields that a trial's dense network depends on, without the seed."""
    content = recipe.decisive()
    training = {name: value for name, value in content["training"].items() if name != "measure_every"}
    return {"network": recipe.network, "data": content["data"], "training": training}


def _fields(content: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _fields(value, f"{at}{name}.")
        else:
            yield f"{at}{name}", value
