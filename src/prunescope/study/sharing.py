"""Share the dense network of a trial, and its dissection, between studies that would train the same one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from prunescope.dissection.basis import BASES, parse_bases
from prunescope.dissection.layer_files import is_complete, layer_folder
from prunescope.files import write_json
from prunescope.store.locations import IMAGES, LABELS, apart_from_places
from prunescope.store.recipe import Recipe
from prunescope.study.branching import Branch, differences, trial_of
from prunescope.study.identity import Identity
from prunescope.study.levels import Level
from prunescope.study.linking import link
from prunescope.study.retraining import begin_dense

# The batch size has no influence on a dissection, and the layers are compared separately.
_OF_DISSECTIONS = {"dissection": {"batch_size", "layers"}}


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
        complete already, if there are no branches, or if the recipe gives the weights of level 0.
    """
    recipe, directory, trial = level.recipe, level.directory, level.trial
    if recipe.start is not None or directory.is_trained(trial, 0, recipe.pruning):
        return ""
    found = dense_elsewhere(recipe, trial, branches, steps_per_epoch, identity)
    if found is None:
        problems = [
            f"{one.directory.root} {_unlike_dense(recipe, trial, one, steps_per_epoch, identity, is_there=True)}"
            for one in branches
        ]
        return f"trial {trial}: no dense network is reused: {'; '.join(problems)}" if problems else ""
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
    if there.predictions(theirs, 0).is_file():
        link(there.predictions(theirs, 0), directory.predictions(trial, 0))
    else:  # that study was made by an earlier version, and a file of an interrupted run would not fit its accuracy
        directory.predictions(trial, 0).unlink(missing_ok=True)
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
    finished: Sequence[Branch],
    steps_per_epoch: int,
    identity: Identity | None = None,
    to_come: Sequence[Branch] = (),
) -> tuple[Branch, int] | None:
    """Return the first study that a trial can take its dense network from, and the number of the matching trial there.

    Parameters
    ----------
    recipe
        The study's recipe.
    trial
        The number of the trial.
    finished
        Candidate studies, which must have the trained network and, if the recipe rewinds, the rewinding point.
    steps_per_epoch
        The number of training steps per epoch of the task.
    identity
        The fingerprints of the study's files, as in `differences`.
    to_come
        Candidate studies that will be run before this one, so that their networks need not be trained yet. They are
        considered if none of `finished` fits.

    Returns
    -------
    tuple of Branch and int, or None
        The study and its trial; None if no study fits, or if the recipe gives the weights of level 0.
    """
    if recipe.start is not None:
        return None
    candidates = (*((branch, True) for branch in finished), *((branch, False) for branch in to_come))
    for branch, is_there in candidates:
        if not _unlike_dense(recipe, trial, branch, steps_per_epoch, identity, is_there=is_there):
            theirs = trial_of(recipe, trial, branch.recipe)
            assert theirs is not None
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


def _unlike_dense(
    recipe: Recipe, trial: int, branch: Branch, steps_per_epoch: int, identity: Identity | None, *, is_there: bool
) -> str:
    """Return why a trial cannot take its dense network from a study; "" if it can."""
    if different := differences(recipe, branch, identity):
        return f"differs in {', '.join(different)}"
    theirs = trial_of(recipe, trial, branch.recipe)
    if theirs is None:
        return f"has no trial with seed {recipe.seed + trial}"
    trained = branch.directory.is_trained(theirs, 0)
    if not is_there:
        # A trial that is trained already can no longer save its weights at further steps.
        return f"has trained level 0 of its trial {theirs} already" if trained else ""
    if not trained:
        return f"has not finished level 0 of its trial {theirs}"
    step = recipe.pruning.rewind_to.iterations(steps_per_epoch)
    if (recipe.pruning.rewinds or recipe.retrained) and step not in _rewinding_points(branch, theirs, steps_per_epoch):
        return f"has not saved the weights of step {recipe.pruning.rewind_to}"
    return ""


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
    ours, trial = level.directory, level.trial
    pairs = [
        (there.reference_dissection(theirs, "untrained"), ours.reference_dissection(trial, "untrained")),
        (there.dissection(theirs, 0), ours.dissection(trial, 0)),
    ]
    for basis in parse_bases(level.recipe.dissection.basis):
        pairs += [(folder / BASES / basis.name, to / BASES / basis.name) for folder, to in pairs[:2]]
    # The dissection of the level is taken last, because it marks that of all as complete.
    pairs.append(pairs.pop(1))
    if not all(is_complete(folder, layer) for folder, _ in pairs for layer in layers):
        return ""
    for (folder, to), layer in product(pairs, layers):
        files = sorted(path for path in layer_folder(folder, layer).iterdir() if path.is_file())
        for file in sorted(files, key=lambda path: path.name == "summary.json"):
            link(file, layer_folder(to, layer) / file.name)
    return ", and its dissection"
