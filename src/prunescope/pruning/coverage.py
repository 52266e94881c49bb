"""Measure what share of a network's parameters can be pruned, and list those that cannot."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from prunescope.pruning.mask import Mask, all_prunable

MOST = 0.9  # if at least this share of the parameters is prunable, the others need not be reported
_SHOWN = 4
_NORMALISATION = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Coverage:
    """The numbers of parameters that a mask covers and does not cover.

    Attributes
    ----------
    prunable
        The number of weights in the mask, kept or pruned.
    parameters
        The number of parameters of the network.
    outside
        The numbers of values, by name, of the parameters that look like weights but are never pruned because they do
        not belong to a supported module (a matrix in a module that the user has written, for example).
    excluded
        The number of weights that could be pruned but are excluded.
    """

    prunable: int
    parameters: int
    outside: dict[str, int]
    excluded: int

    @classmethod
    def of(cls, model: nn.Module, mask: Mask) -> Coverage:
        """Count the parameters of a network that a mask covers.

        Parameters
        ----------
        model
            The dense network.
        mask
            The mask of the weights to prune.
        """
        able = {id(weight) for weight in all_prunable(model).values()}
        pruned = {id(weight) for weight in mask.parameters(model).values()}
        # Parameters of lazy modules have no shape yet and cannot be counted.
        parameters = {name: value for name, value in model.named_parameters() if not is_lazy(value)}
        spared = _normalisation(model)
        outside = {
            name: value.numel()
            for name, value in parameters.items()
            if id(value) not in able | pruned and name not in spared and _is_like_a_weight(name, value)
        }
        excluded = sum(value.numel() for value in parameters.values() if id(value) in able - pruned)
        return cls(mask.prunable, sum(value.numel() for value in parameters.values()), outside, excluded)

    def note(self) -> str:
        """Return a sentence that says which parameters weights remaining are counted over, and which are never pruned.

        It is empty if at least 90 % of the parameters are prunable and no others look like weights.

        Examples
        --------
        >>> print(Coverage(96, 5136, {"0.weight": 432, "2.weight": 4608}, 0).note())
        weights remaining are counted over 96 convolution and linear weights, 1.9 % of the network's 5,136 parameters; \
never pruned: 0.weight (432), 2.weight (4,608)
        """
        if not self.outside and self.prunable >= MOST * self.parameters:
            return ""
        others = [f"{name} ({count:,})" for name, count in self.outside.items()]
        if len(others) > _SHOWN:
            rest = sum(list(self.outside.values())[_SHOWN:])
            others = [*others[:_SHOWN], f"{len(others) - _SHOWN} more parameters like these ({rest:,})"]
        if self.excluded:
            others.append(f"excluded weights ({self.excluded:,})")
        if small := self.parameters - self.prunable - self.excluded - sum(self.outside.values()):
            others.append(f"biases, normalisation and the like ({small:,})")
        return (
            f"weights remaining are counted over {self.prunable:,} convolution and linear weights, "
            f"{100 * self.prunable / self.parameters:.1f} % of the network's {self.parameters:,} parameters; "
            f"never pruned: {', '.join(others)}"
        )


def _is_like_a_weight(name: str, value: Tensor) -> bool:
    """Return whether a parameter is a matrix or a kernel: no bias, and with two or more axes longer than 1."""
    return sum(size > 1 for size in value.shape) > 1 and "bias" not in name.rpartition(".")[2]


def _normalisation(model: nn.Module) -> set[str]:
    """Return the names of the parameters of normalisation layers."""
    return {
        f"{name}.{own}" if name else own
        for name, module in model.named_modules()
        if isinstance(module, _NORMALISATION)
        for own, _ in module.named_parameters(recurse=False)
    }
