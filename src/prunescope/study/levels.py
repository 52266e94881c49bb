"""One level of a trial: its mask, its trained network, and the consistency checks on its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from prunescope.errors import InputError
from prunescope.networks.source import build_network
from prunescope.networks.weights import classes_in, fit_weights, read_tensors
from prunescope.pruning import Filters, Mask, shrink
from prunescope.store.layout import StudyDirectory
from prunescope.store.recipe import Recipe
from prunescope.study.schedule import dense_mask, parent_number


@dataclass(frozen=True)
class Kept:
    """The part of the dense network that a level keeps.

    Attributes
    ----------
    mask
        The mask of the kept weights, with tensors of the dense network's shapes.
    filters
        The kept filters if the recipe removes whole filters, otherwise None.
    """

    mask: Mask
    filters: Filters | None = None

    def remove_the_rest(self, dense: nn.Module, image_size: int) -> Mask:
        """Prune a network of dense shape in place and return the mask to train it under.

        Without `filters`, the pruned weights are set to zero and `mask` is returned. With `filters`, the pruned filters
        are removed, and the returned mask keeps all weights of the smaller network.
        """
        if self.filters is None:
            self.mask.apply(dense)
            return self.mask
        shrink(dense, self.filters, image_size)
        return Mask.dense(dense)


@dataclass(frozen=True)
class Level:
    """One level of a trial.

    Attributes
    ----------
    recipe
        The study's recipe.
    directory
        The study's directory.
    trial
        The number of the trial, from 0.
    level
        The number of the level; 0 is the dense network.
    classes
        The number of classes of the task; None if it is the default of the network.
    """

    recipe: Recipe
    directory: StudyDirectory
    trial: int
    level: int
    classes: int | None

    @property
    def seed(self) -> int:
        """The seed of the trial."""
        return self.recipe.seed + self.trial

    @property
    def removes_filters(self) -> bool:
        """Whether pruning removes whole filters, so that networks become smaller."""
        return self.recipe.pruning.scope == "filters"

    @property
    def parent(self) -> Level:
        """The level that this one, from level 1 on, is pruned from."""
        return self.at(parent_number(self.recipe.pruning, self.level))

    def at(self, level: int) -> Level:
        """Return another level of the same trial."""
        return replace(self, level=level)

    def dense(self, seed: int | None = None) -> nn.Module:
        """Build an untrained network of dense shape, initialised with the trial's seed unless `seed` is given."""
        return build_network(self.recipe.network, classes=self.classes, seed=self.seed if seed is None else seed)

    def kept(self, dense: nn.Module | None = None) -> Kept:
        """Read the mask, and the filters if there are any, that this level was trained with.

        Parameters
        ----------
        dense
            A network of dense shape to check the files against, which is not modified. It is built if it is not given.

        Raises
        ------
        InputError
            If the level is not trained, or if a file is missing, is damaged or does not belong to this level.
        """
        dense = self.dense() if dense is None else dense
        mask, filters = (path(self.trial, self.level) for path in (self.directory.mask, self.directory.filters))
        kept = Kept(Mask.load(mask), Filters.load(filters) if self.removes_filters and self.level else None)
        self._check_mask(kept.mask, dense, mask)
        if kept.filters is not None and not _same(kept.filters.mask(dense), kept.mask):
            raise self._misfit(filters, "keeps other weights than mask.safetensors in the same folder")
        return kept

    def _check_mask(self, mask: Mask, dense: nn.Module, path: Path) -> None:
        """Raise if a mask contradicts the network, the counts in measured.json or the level it was pruned from."""
        whole = dense_mask(dense, self.recipe.pruning)
        for name in sorted(whole.keys() ^ mask.keys()):
            missing = name not in mask
            raise self._misfit(
                path,
                f"lacks the weight {name!r}, which the network has"
                if missing
                else f"contains the weight {name!r}, which the network does not have or the recipe excludes",
            )
        for name, tensor in mask.items():
            if tensor.shape != whole[name].shape:
                shapes = f"{list(tensor.shape)}, the network's {list(whole[name].shape)}"
                raise self._misfit(path, f"contains {name!r} of shape {shapes}")
        counted = self.directory.read_measured(self.trial, self.level)
        counts = (counted.get("kept"), counted.get("prunable"))
        if counts != (mask.kept, mask.prunable):
            stated = "{} of {}".format(*counts)
            raise self._misfit(path, f"keeps {mask.kept} of {mask.prunable} weights, but measured.json states {stated}")
        if self.level == 0 and self.recipe.start is None and mask.kept != mask.prunable:
            raise self._misfit(path, "prunes weights, although level 0 was not given but trained")
        if self.level == 0 or self.recipe.pruning.criterion == "shuffled":
            return
        before = self.parent
        earlier = Mask.load(before.directory.mask(self.trial, before.level))
        for name, tensor in mask.items():
            parent = earlier.get(name)
            if parent is None or parent.shape != tensor.shape or (tensor & ~parent).any():
                raise self._misfit(path, f"keeps weights of {name!r} that level {before.level} had pruned")

    def _check_weights(self, model: nn.Module, mask: Mask, path: Path) -> None:
        """Raise if a pruned weight is not zero in the trained network."""
        for name, weight in mask.parameters(model).items():
            count = int((weight.detach()[~mask[name]] != 0).sum())
            if count:
                raise self._misfit(
                    path,
                    f"has {count} weights in {name!r} that are not zero although mask.safetensors prunes them",
                )

    def _misfit(self, path: Path, what: str) -> InputError:
        return InputError(
            f"{path} {what}; the file was changed or belongs to another level. Restore the level's own file, or remove "
            f"{path.parent} and run the study again"
        )

    def trained(self) -> nn.Module:
        """Build this level's network with its trained weights; it is smaller than the dense one if filters are removed.

        Raises
        ------
        InputError
            If the weights are damaged, belong to another network or contradict the level's mask.
        """
        model = self.dense()
        path = self.directory.weights(self.trial, self.level)
        kept = self.kept(model)
        if kept.filters is not None:
            shrink(model, kept.filters, self.recipe.data.size)
        fit_weights(model, read_tensors(path), path)
        if kept.filters is None:
            self._check_weights(model, kept.mask, path)
        return model

    def trained_in_dense_shape(self) -> nn.Module:
        """Build a network of dense shape with this level's trained weights; pruned weights are zero."""
        if not (self.removes_filters and self.level):
            return self.trained()
        model = self.dense()
        path = self.directory.weights(self.trial, self.level)
        filters = self.kept(model).filters
        assert filters is not None
        fit_weights(model, _in_dense_shape(model, filters, read_tensors(path)), path)
        return model


def open_level(recipe: Recipe, directory: StudyDirectory, trial: int, level: int) -> Level:
    """Open a trained level without the classification task; the number of classes is that of the dense weights.

    Raises
    ------
    InputError
        If the level is not trained, or if the weights of level 0 cannot be read.
    """
    if not directory.is_trained(trial, level):
        raise InputError(f"{directory.root}: trial {trial}, level {level} is not trained yet; run the study")
    path = directory.weights(trial, 0)
    dense = build_network(recipe.network, seed=recipe.seed + trial)
    return Level(recipe, directory, trial, level, classes_in(dense, read_tensors(path), path))


def _same(one: Mask, other: Mask) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _in_dense_shape(dense: nn.Module, filters: Filters, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a shrunk network in the dense network's shapes, with zeros for the removed filters."""
    weights = filters.mask(dense)
    placed = {}
    for name, whole in dense.state_dict().items():
        tensor = tensors.get(name, whole)
        if tensor.shape != whole.shape:
            # A shrunk tensor holds the kept elements of the dense one in the same order.
            where = weights[name] if name in weights else filters.outputs[name.rpartition(".")[0]]
            tensor = whole.new_zeros(whole.shape).masked_scatter(where, tensor)
        placed[name] = tensor
    return placed
