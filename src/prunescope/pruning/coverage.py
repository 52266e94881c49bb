"""How much of a network can be pruned, and what is left out."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from prunescope.pruning.mask import Mask, all_prunable

MOST = 0.9  # from this share of the parameters on, what is left out is not worth a word
_SHOWN = 4
_NORMALISATION = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Coverage:
    """How many of a network's parameters a mask speaks of.

    Attributes
    ----------
    prunable
        How many weights the mask speaks of.
    parameters
        How many parameters the network has.
    outside
        Names of those parameters that look like weights and belong to no module that is pruned, such as a matrix that
        a module of the user's own multiplies with -> how many values they hold.
    excluded
        How many weights could be pruned and are excluded.
    """

    prunable: int
    parameters: int
    outside: dict[str, int]
    excluded: int

    @classmethod
    def of(cls, model: nn.Module, mask: Mask) -> Coverage:
        """Compare a network with the mask of its prunable weights.

        Parameters
        ----------
        model
            The network, dense.
        mask
            Of the weights that are pruned.
        """
        able = {id(weight) for weight in all_prunable(model).values()}
        pruned = {id(weight) for weight in mask.parameters(model).values()}
        # What has no shape yet cannot be counted.
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
        """Say what the weights remaining are counted over; nothing where that is nearly all of the network.

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
    """Tell a matrix or kernel from a bias or a scale, which have one dimension, whatever they are stretched to."""
    return sum(size > 1 for size in value.shape) > 1 and "bias" not in name.rpartition(".")[2]


def _normalisation(model: nn.Module) -> set[str]:
    """Name the parameters of layers that normalise."""
    return {
        f"{name}.{own}" if name else own
        for name, module in model.named_modules()
        if isinstance(module, _NORMALISATION)
        for own, _ in module.named_parameters(recurse=False)
    }
