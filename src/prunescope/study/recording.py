"""Record the fingerprints of a study's files, and compare the files with what was recorded."""

from __future__ import annotations

from pathlib import Path

from prunescope.concepts.broden import ConceptData
from prunescope.errors import InputError
from prunescope.fingerprints import Fingerprint, read_fingerprints, write_fingerprints
from prunescope.hashes import Hashes
from prunescope.store.layout import StudyDirectory
from prunescope.store.locations import PACKED
from prunescope.study.identity import Fingerprinter, Identity


def recorded(directory: StudyDirectory) -> dict[str, Fingerprint]:
    """Read the fingerprints that a study recorded when it began; empty if it recorded none or has not begun.

    Raises
    ------
    InputError
        If the record is damaged.
    """
    # Without a recipe the study has not begun, and a record is left over from a process that was killed.
    return read_fingerprints(directory.fingerprints) if directory.recipe.is_file() else {}


def record(directory: StudyDirectory, identity: Identity) -> str:
    """Record the fingerprints of those parts of a study that have none recorded yet.

    Returns
    -------
    str
        A note for the user if the study had begun without these fingerprints, otherwise "".
    """
    there = recorded(directory)
    new = {part: made for part, made in identity.parts.items() if part not in there and made.names}
    if not new:
        return ""
    write_fingerprints(directory.fingerprints, there | new)
    older = [part for part in new if part != PACKED]
    if not older or not directory.recipe.is_file():
        return ""
    return (
        f"the fingerprints of {', '.join(older)} are recorded now; this study began without them, so it is not known "
        "whether the files have changed since then"
    )


def refuse_changes(directory: StudyDirectory, identity: Identity) -> None:
    """Raise if a study's files differ from when the study began.

    Raises
    ------
    InputError
        If fingerprints differ from the recorded ones. The message lists the files.
    """
    different = identity.differences(recorded(directory))
    if different:
        raise InputError(
            f"the files that {directory.root} depends on have changed since the study began; nothing was written:\n"
            f"{identity.describe(different)}\n{_how_to_go_on(directory)}"
        )


def refuse_changes_meanwhile(directory: StudyDirectory, identity: Identity, checkpoints: Path | None = None) -> None:
    """Raise if files have changed since their fingerprints were taken, so that results made from them are not kept.

    Parameters
    ----------
    directory
        The study's directory, for the message.
    identity
        The fingerprints and watches of the files.
    checkpoints
        The folder of checkpoints that may have been made from both versions of the files, for the message.

    Raises
    ------
    InputError
        If files have changed. The message lists them.
    """
    different = identity.changes()
    if different:
        trained = (
            f". The checkpoints in {checkpoints} may come from both versions; remove them unless they are "
            "known to be valid"
            if checkpoints is not None and checkpoints.is_dir()
            else ""
        )
        raise InputError(
            "files have changed while the study was running; complete stages are kept, but this one is discarded:\n"
            f"{identity.describe(different)}\n{_how_to_go_on(directory)}{trained}"
        )


def changed_concepts(directory: StudyDirectory, concepts: ConceptData) -> str:
    """Return a text that lists which labelled images and labels differ from when the study began; "" if none do."""
    before = recorded(directory)
    if not before:
        return ""
    fingerprinter = Fingerprinter(Hashes(directory.hashes))
    identity = fingerprinter.concepts(concepts.root) | fingerprinter.packed(concepts.packed)
    return identity.describe(identity.differences(before))


def _how_to_go_on(directory: StudyDirectory) -> str:
    return (
        "Levels are never compared across two versions of their data: restore the files, or start a new study in "
        "another --out. If you know that the change makes no difference, remove "
        f"{directory.fingerprints}, and the present files are accepted"
    )
