"""One level of a trial: what is left of the dense network, and the network as it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from prunescope.networks.source import build_network
from prunescope.networks.weights import fit_weights, read_tensors
from prunescope.pruning import Filters, Mask, shrink
from prunescope.study.layout import StudyDirectory
from prunescope.study.recipe import Recipe


@dataclass(frozen=True)
class Left:
    """What a level has left of the dense network.

    Attributes
    ----------
    mask
        Which weights, in the dense network's shapes.
    filters
        Which filters, where whole filters are removed.
    """

    mask: Mask
    filters: Filters | None = None

    def remove_the_rest(self, dense: nn.Module, image_size: int) -> Mask:
        """Take from a network of dense shape what is not left, in place; return the mask to train what is under."""
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
    recipe, directory, trial, level
        Which.
    classes
        Of the task.
    """

    recipe: Recipe
    directory: StudyDirectory
    trial: int
    level: int
    classes: int

    @property
    def seed(self) -> int:
        """Of the trial."""
        return self.recipe.seed + self.trial

    @property
    def removes_filters(self) -> bool:
        """Whether networks become smaller."""
        return self.recipe.pruning.scope == "filters"

    def at(self, level: int) -> Level:
        """Another level of the same trial."""
        return replace(self, level=level)

    def dense(self, seed: int | None = None) -> nn.Module:
        """Build a network of dense shape: the trial's own, or one of another seed."""
        return build_network(self.recipe.network, classes=self.classes, seed=self.seed if seed is None else seed)

    def left(self) -> Left:
        """Read what this level, trained already, has left."""
        mask, filters = (path(self.trial, self.level) for path in (self.directory.mask, self.directory.filters))
        return Left(Mask.load(mask), Filters.load(filters) if self.removes_filters and self.level else None)

    def trained(self) -> nn.Module:
        """Build this level's network with its trained weights."""
        model = self.dense()
        path = self.directory.weights(self.trial, self.level)
        filters = self.left().filters
        if filters is not None:
            shrink(model, filters, self.recipe.data.size)
        fit_weights(model, read_tensors(path), path)
        return model

    def trained_in_dense_shape(self) -> nn.Module:
        """Build a network of dense shape with this level's trained weights; what was pruned is zero."""
        model = self.dense()
        path = self.directory.weights(self.trial, self.level)
        tensors, filters = read_tensors(path), self.left().filters
        fit_weights(model, tensors if filters is None else _in_dense_shape(model, filters, tensors), path)
        return model


def _in_dense_shape(dense: nn.Module, filters: Filters, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put the tensors of a shrunk network back to where they are in the dense one."""
    weights = filters.mask(dense)
    placed = {}
    for name, whole in dense.state_dict().items():
        tensor = tensors.get(name, whole)
        if tensor.shape != whole.shape:
            # What is left of a tensor is a slice of it, in its order.
            where = weights[name] if name in weights else filters.outputs[name.rpartition(".")[0]]
            tensor = whole.new_zeros(whole.shape).masked_scatter(where, tensor)
        placed[name] = tensor
    return placed
