"""The layout of a study's directory: the path of every file, and checks of which study a directory holds."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from prunescope.dissection.layer_files import is_complete
from prunescope.errors import InputError
from prunescope.files import write_text
from prunescope.fingerprints import read_fingerprints
from prunescope.store.locations import apart_from_places, with_places_of
from prunescope.store.measured import read_measured
from prunescope.store.pruning_settings import PruningSettings
from prunescope.store.reading import read_recipe
from prunescope.store.recipe import Recipe

LOCK = ".lock"


@dataclass(frozen=True)
class StudyDirectory:
    """The paths of a study's files below its root directory.

    A stage counts as complete if its files exist. A study runs only the stages that are not complete.
    """

    root: Path

    @property
    def recipe(self) -> Path:
        """The recipe with every default resolved."""
        return self.root / "study.yaml"

    @property
    def data(self) -> Path:
        """The folder of the data that the study draws itself."""
        return self.root / "data"

    @property
    def fingerprints(self) -> Path:
        """The fingerprints of the data, labels and network files at the time when the study began."""
        return self.root / "fingerprints.parquet"

    @property
    def hashes(self) -> Path:
        """A cache of file hashes, which are computed again where they are missing."""
        return self.root / "fingerprints.cache"

    @property
    def masks_of(self) -> Path:
        """The file that names the study from which this one takes its masks, if it takes them."""
        return self.root / "masks.json"

    def trial(self, trial: int) -> Path:
        """The folder of a trial."""
        return self.root / f"trial-{trial}"

    def initial(self, trial: int) -> Path:
        """The weights before the first training step."""
        return self.trial(trial) / "initial.safetensors"

    def rewind(self, trial: int) -> Path:
        """The weights and buffers at the step that the study rewinds to."""
        return self.trial(trial) / "rewind.safetensors"

    def snapshot(self, trial: int, step: int) -> Path:
        """The weights and buffers at a step that other studies may rewind to."""
        return self.trial(trial) / f"rewind-{step}it.safetensors"

    def level(self, trial: int, level: int) -> Path:
        """The folder of a level; level 0 is the dense network."""
        return self.trial(trial) / f"level-{level:02d}"

    def mask(self, trial: int, level: int) -> Path:
        """The mask of the kept weights, with tensors of the dense network's shapes."""
        return self.level(trial, level) / "mask.safetensors"

    def filters(self, trial: int, level: int) -> Path:
        """The kept filters, for studies that remove whole filters."""
        return self.level(trial, level) / "filters.safetensors"

    def weights(self, trial: int, level: int) -> Path:
        """The weights and buffers of the trained network."""
        return self.level(trial, level) / "weights.safetensors"

    def training(self, trial: int, level: int) -> Path:
        """The table of losses, accuracies and learning rates during training."""
        return self.level(trial, level) / "training.csv"

    def measured(self, trial: int, level: int) -> Path:
        """The measurements after training. Training writes this file last."""
        return self.level(trial, level) / "measured.json"

    def predictions(self, trial: int, level: int) -> Path:
        """The class that the trained network predicts for each validation image."""
        return self.level(trial, level) / "predictions.parquet"

    def checkpoints(self, trial: int, level: int) -> Path:
        """The folder of checkpoints for resuming training; it is removed when training is complete."""
        return self.level(trial, level) / "checkpoints"

    def tracking(self, trial: int, level: int) -> Path:
        """The folder that experiment trackers such as TensorBoard write to."""
        return self.root / "tracking" / f"trial-{trial}" / f"level-{level:02d}"

    def dissection(self, trial: int, level: int) -> Path:
        """The folder of a level's dissection, which has one subfolder per layer."""
        return self.level(trial, level) / "dissection"

    def reference(self, trial: int, kind: str) -> Path:
        """The folder of a network that the levels of a trial are compared with: `untrained` or `retrained`."""
        return self.trial(trial) / kind

    def reference_dissection(self, trial: int, kind: str) -> Path:
        """The folder of the dissection of such a network, which has one subfolder per layer."""
        return self.reference(trial, kind) / "dissection"

    def reference_checkpoints(self, trial: int) -> Path:
        """The folder of checkpoints for resuming the training of the retrained network; it is removed at the end."""
        return self.reference(trial, "retrained") / "checkpoints"

    def is_reference_dissected(self, trial: int, kind: str, layers: tuple[str, ...]) -> bool:
        """Return whether all the given layers of such a network are dissected."""
        return all(is_complete(self.reference_dissection(trial, kind), layer) for layer in layers)

    def is_trained(self, trial: int, level: int, pruning: PruningSettings | None = None) -> bool:
        """Return whether a level's training is complete.

        If the recipe's `pruning` is given, the files that it needs besides the trained network have to exist as well:
        the rewinding point for studies that rewind a level, and the kept filters for studies that remove filters.
        """
        files = [self.mask(trial, level), self.weights(trial, level), self.measured(trial, level)]
        if pruning is not None and pruning.rewinds and pruning.levels:
            files.append(self.rewind(trial))
        if pruning is not None and pruning.scope == "filters" and level:
            files.append(self.filters(trial, level))
        return all(file.is_file() for file in files)

    def is_dissected(self, trial: int, level: int, layers: tuple[str, ...]) -> bool:
        """Return whether all the given layers of a level are dissected."""
        return all(is_complete(self.dissection(trial, level), layer) for layer in layers)

    def read_measured(self, trial: int, level: int) -> dict[str, Any]:
        """Read and validate the measurements taken after a level's training (see `read_measured`)."""
        return read_measured(self.measured(trial, level), trial, level).model_dump(exclude_unset=True)

    def claim(self, recipe: Recipe) -> None:
        """Write the recipe into the directory, or update the paths of its data and network there."""
        if not self.recipe.is_file():
            write_text(self.recipe, recipe.to_yaml())
            return
        there = read_recipe(self.recipe)
        # References may be asked for later. They are added to the levels that are finished.
        moved = with_places_of(there, recipe).model_copy(update={"retrained": recipe.retrained})
        if moved != there:
            write_text(self.recipe, moved.to_yaml())

    def refuse_others(self, recipe: Recipe) -> None:
        """Raise if the directory belongs to another study.

        Two recipes describe the same study if all fields that influence the results are equal. The paths of the data
        and of the network's own file do not count once their fingerprints are recorded, because their contents are
        compared instead.

        Raises
        ------
        InputError
            If the directory holds another study (the message shows how the recipes differ) or other files.
        """
        if self.recipe.is_file():
            there = read_recipe(self.recipe)
            if there.decisive() == recipe.decisive():
                return
            known = read_fingerprints(self.fingerprints)
            ours, theirs = (apart_from_places(one.decisive(), known) for one in (recipe, there))
            if ours != theirs:
                lines = difflib.unified_diff(
                    there.to_yaml().splitlines(), recipe.to_yaml().splitlines(),
                    "study.yaml of the directory", "given recipe",
                    "", "", 0, "",
                )  # fmt: skip
                raise InputError(
                    f"{self.root} contains another study; nothing was changed. The difference:\n" + "\n".join(lines)
                    + "\nGive another --out, or the recipe of that study"
                    + ("" if known else ". (Until it is run again, its data are identified by their paths only)")
                )  # fmt: skip
            return
        # Drawn data and fingerprints are written before the recipe, and a killed process leaves half-written files.
        there_already = self.root.iterdir() if self.root.is_dir() else ()
        ours_before = {"data", self.fingerprints.name, LOCK}
        others = {path.name for path in there_already if not path.match(".*.part.*")} - ours_before
        if others or (self.root.exists() and not self.root.is_dir()):
            raise InputError(f"{self.root} exists but is not a study; give a new or an empty directory as --out")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Prevent other processes from running this study while the block runs.

        Raises
        ------
        InputError
            If another process is running it.
        """
        if os.path.lexists(self.root) and not self.root.is_dir():
            raise InputError(f"{self.root} exists but is not a study; give a new or an empty directory as --out")
        created = not self.root.exists()
        # The lock is inside, because the folder may be the only place that can be written to, such as a mounted volume.
        self.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.root / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(f"{self.root}: another process is running this study; wait for it or stop it") from error
        try:
            yield
        finally:
            # The file is removed before the lock is released; afterwards another process might already hold it.
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()
            if created:
                with suppress(OSError):  # It is kept unless it is still empty because the study was refused.
                    self.root.rmdir()
