"""What of a study is stored where."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from prunescope.dissection.result import is_complete
from prunescope.errors import InputError
from prunescope.files import write_text
from prunescope.fingerprints import read_fingerprints
from prunescope.study.measured import read_measured
from prunescope.study.places import apart_from_places, with_places_of
from prunescope.study.reading import read_recipe
from prunescope.study.recipe import Pruning, Recipe


@dataclass(frozen=True)
class StudyDirectory:
    """The paths of a study; a stage whose files are complete is not run again."""

    root: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.root / "study.yaml"

    @property
    def data(self) -> Path:
        """Where the study draws its own data."""
        return self.root / "data"

    @property
    def fingerprints(self) -> Path:
        """What the files held that the study is of, when it began."""
        return self.root / "fingerprints.parquet"

    @property
    def hashes(self) -> Path:
        """The hashes of files that did not change since; made anew where they are missing."""
        return self.root / "fingerprints.cache"

    @property
    def masks_of(self) -> Path:
        """Which study's masks this one takes, if it does."""
        return self.root / "masks.json"

    def trial(self, trial: int) -> Path:
        """One chain of levels."""
        return self.root / f"trial-{trial}"

    def initial(self, trial: int) -> Path:
        """The weights before the first step."""
        return self.trial(trial) / "initial.safetensors"

    def rewind(self, trial: int) -> Path:
        """The weights and buffers at the step to rewind to."""
        return self.trial(trial) / "rewind.safetensors"

    def snapshot(self, trial: int, step: int) -> Path:
        """The weights and buffers at a step that another study rewinds to."""
        return self.trial(trial) / f"rewind-{step}it.safetensors"

    def level(self, trial: int, level: int) -> Path:
        """One level; 0 is the dense network."""
        return self.trial(trial) / f"level-{level:02d}"

    def mask(self, trial: int, level: int) -> Path:
        """The kept weights, in the dense network's shapes."""
        return self.level(trial, level) / "mask.safetensors"

    def filters(self, trial: int, level: int) -> Path:
        """The filters that are left, where filters are removed."""
        return self.level(trial, level) / "filters.safetensors"

    def weights(self, trial: int, level: int) -> Path:
        """The trained network."""
        return self.level(trial, level) / "weights.safetensors"

    def training(self, trial: int, level: int) -> Path:
        """The course of training."""
        return self.level(trial, level) / "training.csv"

    def measured(self, trial: int, level: int) -> Path:
        """What was measured after training; the last file that training writes."""
        return self.level(trial, level) / "measured.json"

    def checkpoints(self, trial: int, level: int) -> Path:
        """What a training that was cut off goes on from; removed when it is complete."""
        return self.level(trial, level) / "checkpoints"

    def tracking(self, trial: int, level: int) -> Path:
        """What trackers write."""
        return self.root / "tracking" / f"trial-{trial}" / f"level-{level:02d}"

    def dissection(self, trial: int, level: int) -> Path:
        """A folder per layer."""
        return self.level(trial, level) / "dissection"

    def is_trained(self, trial: int, level: int, pruning: Pruning | None = None) -> bool:
        """Say whether a level's training is complete; given the recipe's pruning, with all that it leaves behind."""
        files = [self.mask(trial, level), self.weights(trial, level), self.measured(trial, level)]
        if pruning is not None and pruning.rewinds:
            files.append(self.rewind(trial))
        if pruning is not None and pruning.scope == "filters" and level:
            files.append(self.filters(trial, level))
        return all(file.is_file() for file in files)

    def is_dissected(self, trial: int, level: int, layers: tuple[str, ...]) -> bool:
        """Say whether all layers of a level are dissected."""
        return all(is_complete(self.dissection(trial, level), layer) for layer in layers)

    def read_measured(self, trial: int, level: int) -> dict[str, Any]:
        """Read what was measured after a level's training, as `read_measured` checks it."""
        return read_measured(self.measured(trial, level), trial, level).model_dump(exclude_unset=True)

    def claim(self, recipe: Recipe) -> None:
        """Make the directory this recipe's, or note where its data are now."""
        if not self.recipe.is_file():
            write_text(self.recipe, recipe.to_yaml())
            return
        there = read_recipe(self.recipe)
        moved = with_places_of(there, recipe)
        if moved != there:
            write_text(self.recipe, moved.to_yaml())

    def refuse_others(self, recipe: Recipe) -> None:
        """See that the directory is this recipe's, or free.

        Recipes are the same study where all fields that decide the results are the same. Where the data and the
        network's own file are is no such field once their fingerprints are recorded: what they hold decides then.

        Raises
        ------
        InputError
            It holds another study (the difference is shown) or something else.
        """
        if self.recipe.is_file():
            there = read_recipe(self.recipe)
            if there.decisive() == recipe.decisive():
                return
            known = read_fingerprints(self.fingerprints)
            ours, theirs = (apart_from_places(one.decisive(), known) for one in (recipe, there))
            if ours != theirs:
                lines = difflib.unified_diff(
                    there.to_yaml().splitlines(), recipe.to_yaml().splitlines(), "study.yaml there", "recipe given",
                    "", "", 0, "",
                )  # fmt: skip
                raise InputError(
                    f"{self.root} holds another study; nothing was changed. The difference:\n" + "\n".join(lines)
                    + "\nGive another --out, or the recipe that is there"
                    + ("" if known else ". (Its data are known by their path only, until it is run again)")
                )  # fmt: skip
            return
        # Drawn data and fingerprints are there before the recipe is; a killed process leaves half-written files.
        there_already = self.root.iterdir() if self.root.is_dir() else ()
        ours_before = {"data", self.fingerprints.name}
        others = {path.name for path in there_already if not path.match(".*.part.*")} - ours_before
        if others or (self.root.exists() and not self.root.is_dir()):
            raise InputError(f"{self.root} is there and is no study; give a new or an empty directory as --out")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands from running this study at the same time.

        Raises
        ------
        InputError
            One does.
        """
        root = self.root.resolve()  # `.` has a name then
        root.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root.parent / f".{root.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(f"{self.root}: another process is running this study; wait for it or stop it") from error
        try:
            yield
        finally:
            # While it is held: a file that another process has locked in between must not go.
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()
