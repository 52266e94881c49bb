"""Take the masks of another study instead of pruning."""

from __future__ import annotations

from collections.abc import Sequence

from prunescope.errors import InputError
from prunescope.files import write_json
from prunescope.listings import Listing, list_files
from prunescope.reading import read_json
from prunescope.store.layout import StudyDirectory
from prunescope.store.locations import MASKS
from prunescope.store.recipe import Recipe
from prunescope.study.branching import Branch, differences, other_fields, trial_of
from prunescope.study.identity import Identity
from prunescope.study.recording import recorded


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
        Candidate studies, which must have trained every level whose mask is needed.
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
        problem = _unlike_masks(recipe, branch, is_there, identity)
        if not problem:
            return branch
        problems.append(f"{branch.directory.root}: {problem}")
    offered = "none of these studies fits:\n  " + "\n  ".join(problems)
    if not problems:
        offered = "no study is given; give --branch-from STUDY, or list the recipe of that study before this one"
    raise InputError(
        f"recipe {recipe.name}: pruning.masks is branch, which takes the masks of a finished study, but {offered}"
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
    advice = (
        'expected {"study": DIRECTORY}, the study whose masks this one takes; write that, or remove the file if they '
        "are those of this --branch-from"
    )
    noted = read_json(directory.masks_of, advice).get("study")
    if not isinstance(noted, str):
        raise InputError(f"{directory.masks_of} cannot be read; {advice}")
    if noted != root:
        raise InputError(
            f"{directory.root} takes its masks from {noted}, not from {root}; branch from that study or, if it was "
            f"moved, write its new path into {directory.masks_of}"
        )


def note_masks(directory: StudyDirectory, branch: Branch) -> None:
    """Record the path of the study from which a study takes its masks."""
    write_json(directory.masks_of, {"study": str(branch.directory.root.absolute())})


def _unlike_masks(recipe: Recipe, branch: Branch, is_there: bool, identity: Identity | None) -> str:
    ours, theirs = recipe.pruning, branch.recipe.pruning
    if theirs.masks != "own":
        return "it takes its own masks from another study"
    different = differences(recipe, branch, identity) if identity else other_fields(recipe, branch, branch.fingerprints)
    if different:
        return f"it differs in {', '.join(different)}"
    kept = ("schedule", "scope", "exclude", "fraction", *(() if ours.criterion == "shuffled" else ("criterion",)))
    if different := [f"pruning.{name}" for name in kept if getattr(ours, name) != getattr(theirs, name)]:
        return f"it differs in {', '.join(different)}"
    if (ours.remaining or ()) != (theirs.remaining or ())[: ours.levels]:
        return "it differs in pruning.remaining"
    if theirs.levels < ours.levels:
        return f"it has {theirs.levels} levels, but {ours.levels} are needed"
    for trial in range(recipe.trials):
        number = trial_of(recipe, trial, branch.recipe)
        if number is None:
            return f"it has no trial with seed {recipe.seed + trial}"
        for level in range(ours.levels + 1) if is_there else ():
            if not branch.directory.is_trained(number, level):
                return f"level {level} of its trial {number} is not finished"
    return ""
