"""Identify a study's data, labels and network by the contents of their files, so that the files may be moved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from prunescope.concepts.contents import digest_packed, list_concepts, list_packed
from prunescope.concepts.packed_file import PackedFile
from prunescope.errors import InputError
from prunescope.fingerprints import (
    Difference,
    Fingerprint,
    Watch,
    difference,
    take_fingerprint,
)
from prunescope.hashes import Hashes, digest_file
from prunescope.listings import Listing
from prunescope.networks.contents import list_network
from prunescope.progress import Progress, silent
from prunescope.store.locations import (
    IMAGES,
    LABELS,
    MASKS,
    NETWORK,
    PACKED,
    REWINDING,
    START,
    TASK,
    Origin,
    concepts_place,
    task_place,
)
from prunescope.store.recipe import Recipe
from prunescope.study.given import list_given
from prunescope.tasks.contents import classes_of, list_task
from prunescope.tasks.sources import Cifar, HuggingFace


@dataclass(frozen=True)
class Identity:
    """The fingerprints of a study's files, by part.

    Attributes
    ----------
    parts
        The fingerprint of each part. The parts are the task's data, the labelled images, their labels and tables and,
        if there are such files, the packed copy, the network's own file, the weights that the study begins with and
        rewinds to, and the masks taken from another study.
    locations
        The location of each part, for messages.
    watches
        The watch of each part, which detects changes of its files while the study runs.
    """

    parts: Mapping[str, Fingerprint] = field(default_factory=dict)
    locations: Mapping[str, str] = field(default_factory=dict)
    watches: Mapping[str, Watch] = field(default_factory=dict)

    def __or__(self, other: Identity) -> Identity:
        """Return an identity with the parts of both; parts of `other` replace those of the same name."""
        return Identity(
            {**self.parts, **other.parts}, {**self.locations, **other.locations}, {**self.watches, **other.watches}
        )

    def differences(self, before: Mapping[str, Fingerprint]) -> dict[str, Difference]:
        """Compare the parts with earlier fingerprints, and return the differences by part.

        Only parts that have fingerprints at both times are compared. A packed copy that exists at only one of the two
        times makes no difference, because it has the same content as the data set. A part without an earlier
        fingerprint makes no difference either, because older studies have not recorded it.
        """
        found = {part: difference(there, self.parts[part]) for part, there in before.items() if part in self.parts}
        return {part: different for part, different in found.items() if different is not None}

    def without_parts(self) -> Identity:
        """Return an identity that can still detect changes, but does not keep the names of all files in memory."""
        return replace(self, parts={})

    def content(self, part: str) -> str:
        """Return a hash of a part's content as 32 hexadecimal digits, or "" if the part does not exist."""
        return self.parts[part].content if part in self.parts else ""

    def describe(self, different: Mapping[str, Difference]) -> str:
        """Return a text that lists for each part which files differ."""
        return "\n".join(f"  {part} ({self.locations[part]}): {files}" for part, files in different.items())

    def changes(self) -> dict[str, Difference]:
        """Return how files differ from the time when their fingerprints were taken.

        At most 10,000 files of each part are checked.
        """
        found = {part: watch.difference() for part, watch in self.watches.items()}
        return {part: different for part, different in found.items() if different is not None}


class Fingerprinter:
    """Takes the fingerprints of a study's parts.

    Parameters
    ----------
    hashes
        The cache of file hashes. Hashes that are computed are added to it.
    progress
        Called with a short description of each piece of work; returns the progress callback for that work.
    """

    def __init__(self, hashes: Hashes, progress: Callable[[str], Progress] = lambda _doing: silent) -> None:
        self._hashes, self._progress = hashes, progress

    def task(self, origin: Origin, size: int, *, training: bool = True) -> Identity:
        """Take the fingerprint of the classification task, or of its validation images alone.

        Raises
        ------
        InputError
            If the data do not exist, or a file cannot be read.
        """
        listing = list_task(origin, self._progress("listing the task's data"), training=training)
        found = self._taken(TASK, listing, _location(origin), all_content=False)
        classes = classes_of(origin, size)
        if classes is None:
            return found
        files = found.parts[TASK]
        whole = Fingerprint(
            [*files.names, *classes.names],
            np.concatenate([files.sizes, classes.sizes]),
            np.concatenate([files.digests, classes.digests]),
        )
        return found | Identity({TASK: whole})

    def concepts(self, root: str | Path) -> Identity:
        """Take the fingerprints of the labelled images and of their labels.

        Raises
        ------
        InputError
            If there is no data set in the folder, or a file cannot be read.
        """
        images, labels = list_concepts(root)
        return self._taken(IMAGES, images, str(root), all_content=False) | self._taken(LABELS, labels, str(root))

    def packed(self, packed: PackedFile | None) -> Identity:
        """Take the fingerprint of the packed copy of the labelled images, if there is one."""
        if packed is None:
            return Identity()
        found = self._taken(
            PACKED, list_packed(packed), str(packed.path.parent.parent), lambda _path, _size: digest_packed(packed)
        )
        # Copies that other versions have packed may differ in size but hold the same content.
        part = found.parts[PACKED]
        return found | Identity({PACKED: Fingerprint(part.names, np.zeros_like(part.sizes), part.digests)})

    def network(self, name: str) -> Identity:
        """Take the fingerprint of the network's own file or folder; it is empty for networks without one."""
        return self._taken(NETWORK, list_network(name), name)

    def start(self, recipe: Recipe) -> Identity:
        """Take the fingerprints of the weights that the study begins with and rewinds to, if its recipe gives any."""
        found = Identity()
        for part, name in ((START, "weights"), (REWINDING, "rewind_weights")):
            files = {} if recipe.start is None else recipe.start.files()
            if name in files:
                listing = list_given(recipe, rewinding=part == REWINDING)
                found |= self._taken(part, listing, ", ".join(files[name]))
        return found

    def masks(self, listing: Listing, location: str) -> Identity:
        """Take the fingerprint of the masks that this study takes from another one."""
        return self._taken(MASKS, listing, location)

    def _taken(
        self,
        part: str,
        listing: Listing,
        location: str,
        digest: Callable[[str, int], str] = digest_file,
        *,
        all_content: bool = True,
    ) -> Identity:
        progress = self._progress(f"reading the {part}")
        made, watch = take_fingerprint(listing, self._hashes, all_content=all_content, digest=digest, progress=progress)
        return Identity({part: made}, {part: location}, {part: watch})


def identify(recipe: Recipe, data: Path, fingerprinter: Fingerprinter, *, finished: Recipe | None = None) -> Identity:
    """Take the fingerprints of all files of a study except a packed copy and the masks of another study.

    Parameters
    ----------
    recipe
        The study's recipe.
    data
        The folder of the data that the study draws itself.
    fingerprinter
        The object that takes the fingerprints.
    finished
        The recipe stored in the directory if the study is finished. Parts that no longer exist at the path given there
        are then left out, because a finished study does not need them.

    Returns
    -------
    Identity
        The fingerprints by part.

    Raises
    ------
    InputError
        If data do not exist at the path in the recipe, or cannot be read.
    """
    task, concepts = task_place(recipe, data), concepts_place(recipe, data)
    if finished is None:
        return (
            fingerprinter.task(task, recipe.data.size)
            | fingerprinter.concepts(concepts)
            | fingerprinter.network(recipe.network)
            | fingerprinter.start(recipe)
        )
    if isinstance(task, Cifar):
        task = task.model_copy(update={"download": False})
    found = Identity()
    takes: list[tuple[Callable[[], Identity], bool]] = [
        (lambda: fingerprinter.task(task, recipe.data.size), finished.data.task == recipe.data.task),
        (lambda: fingerprinter.concepts(concepts), finished.dissection.concepts == recipe.dissection.concepts),
        (lambda: fingerprinter.start(recipe), finished.start == recipe.start),
    ]
    for take, unmoved in takes:
        try:
            found |= take()
        except InputError:
            if not unmoved:
                raise
    network = fingerprinter.network(recipe.network)
    return found if finished.network == recipe.network and not network.parts[NETWORK].names else found | network


def _location(origin: Origin) -> str:
    if isinstance(origin, Cifar):
        return origin.cifar10 or origin.cifar100 or ""
    return origin.huggingface if isinstance(origin, HuggingFace) else str(origin)
