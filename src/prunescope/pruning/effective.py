"""Whether a pruned weight is zero in what the network computes with, too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode

from prunescope.errors import InputError
from prunescope.networks.layers import evaluating

# Operations of ATen that add up products of their operands.
_CONTRACTIONS = frozenset(
    [
        *("convolution", "_convolution", "mkldnn_convolution", "cudnn_convolution", "linear", "mkldnn_linear"),
        *("mm", "addmm", "_addmm_activation", "bmm", "baddbmm", "addbmm", "mv", "addmv", "addr", "dot", "vdot"),
        *("matmul", "_trilinear", "_cdist_forward", "_native_multi_head_attention", "_transformer_encoder_layer_fwd"),
        *("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention"),
        *("_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention"),
    ]
)
_PRODUCTS = frozenset(("mul", "mul_", "div", "div_", "addcmul", "addcmul_"))
_SHOWN = 6


def check_effective(model: nn.Module, names: Collection[str], images: Tensor) -> tuple[str, ...]:
    """Check that a weight which is set to zero is zero in the operation that it is for.

    A network may compute the weight of a convolution from its parameter: it may subtract the mean (weight
    standardisation), add something or take a softmax. A mask's zeros are then no zeros in the convolution, and every
    number of weights remaining would be wrong. The network runs twice, with half of each weight set to zero and then
    with the other half, once in training and once in evaluation mode. An entry of a weight that is a prunable weight
    times something is zero in one of the two runs, wherever it has been moved; one that is not zero in either depends
    on something else as well.

    Parameters
    ----------
    model
        The network; it is left as it was.
    names
        Those of the parameters that are to be pruned.
    images
        A batch that the network takes, of at least two images.

    Returns
    -------
    tuple of str
        Those of the weights that no operation used.

    Raises
    ------
    InputError
        A zero does not stay zero: all such weights are named, with the modules that hold them.
    """
    # A weight that several modules share has several names, and the values are given by the first of them.
    first_names = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    weights = {first_names[id(parameters[name])]: name for name in names}
    generator = torch.Generator().manual_seed(0)
    values = _nowhere_zero(model, generator)
    gone = {
        name: torch.empty(values[name].shape, dtype=torch.bool).random_(generator=generator).to(values[name].device)
        for name in weights
    }
    first = _run(model, values, gone, images, training=True)
    second = _run(model, values, {name: ~half for name, half in gone.items()}, images, training=False)
    found = _not_masked(first, second)
    _refuse(model, [name for first_name, name in weights.items() if first_name in found])
    return tuple(name for first_name, name in weights.items() if first_name not in first.used | second.used)


def check_own_forward(model: nn.Module, weights: Collection[str]) -> None:
    """Check the same of each convolution and linear module by itself, for which no size of images is needed.

    What a network does with a weight outside the module that holds it is not seen. PyTorch's own modules compute with
    their weights as they are; only those of other classes run, on an input made up for them.

    Parameters
    ----------
    model
        The network; it is left as it was.
    weights
        Names of the parameters that are to be pruned.

    Raises
    ------
    InputError
        As in `check_effective`.
    """
    found = []
    for name, module in model.named_modules():
        full = f"{name}.weight" if name else "weight"
        if full not in weights or type(module).__module__.startswith("torch.nn."):
            continue
        given = _made_up(module)
        # A module that asks for more than its kind does is seen when the whole network runs.
        with suppress(Exception):
            try:
                check_effective(module, ["weight"], given)
            except InputError:
                found.append(full)
    _refuse(model, found)


@dataclass
class _Seen:
    """What was seen of the weights in one run.

    Attributes
    ----------
    used
        Names of the weights that reached an operation.
    broken
        Names of those whose own zeros were overwritten.
    computed
        By the weights that a tensor was computed from and how many of the like were before it: where it is not zero.
    """

    used: set[str]
    broken: set[str]
    computed: dict[tuple[frozenset[str], int], Tensor]


def _not_masked(first: _Seen, second: _Seen) -> set[str]:
    """Name the weights of which a place is not zero though it is set to zero."""
    found = first.broken | second.broken
    for key in first.computed.keys() | second.computed.keys():
        pair = [seen.computed[key] for seen in (first, second) if key in seen.computed]
        if len(pair) == 2 and pair[0].shape == pair[1].shape:
            if (pair[0] & pair[1]).any():
                found |= key[0]
            continue
        # Used in one of the modes alone: half of the places are zero, as far as chance allows.
        for filled in pair:
            if filled.float().mean() > 0.5 + 2.5 / filled.numel() ** 0.5:
                found |= key[0]
    return found


def _refuse(model: nn.Module, named: Sequence[str]) -> None:
    if not named:
        return
    modules = dict(model.named_modules(remove_duplicate=False))
    shown = [f"{name} ({type(modules[name.rpartition('.')[0]]).__name__})" for name in named[:_SHOWN]]
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    raise InputError(
        f"the network {type(model).__name__} computes with something else than its weights as they are, in which a "
        f"pruned weight is not zero, as with weight standardisation: {', '.join(shown)}{more}. Exclude these weights "
        "(`pruning.exclude` in a recipe, `exclude=` in Python), or take a network whose modules use their weights "
        "directly"
    )


def _nowhere_zero(model: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """Give parameters and buffers; parameters get small numbers for zeros, which would hide what is added later on."""
    values: dict[str, Tensor] = {name: buffer.detach() for name, buffer in model.named_buffers()}
    for name, parameter in model.named_parameters():
        value = parameter.detach()
        zeros = value == 0
        if value.is_floating_point() and zeros.any():
            noise = 0.01 * (1 + torch.rand(value.shape, generator=generator))
            value = torch.where(zeros, noise.to(value), value)
        values[name] = value
    return values


def _run(
    model: nn.Module, values: Mapping[str, Tensor], gone: Mapping[str, Tensor], images: Tensor, *, training: bool
) -> _Seen:
    """Run a network without some of its weights, and see where each of those that are left is used."""
    parameters = {name for name, _ in model.named_parameters()}
    given = {}
    for name, value in values.items():
        own = value.masked_fill(gone[name], 0) if name in gone else value.clone()
        given[name] = nn.Parameter(own, requires_grad=False) if name in parameters else own
    watching = _Watching({name: given[name] for name in gone}, gone, images)
    with evaluating(model), torch.random.fork_rng(devices=[]), torch.no_grad():
        model.train(training)
        with watching:
            functional_call(model, given, (images,))
    return watching.seen


class _Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows weights through the operations that compute something from them, up to those that images take part in.

    What is followed is told by its storage, of which views and changes in place are a part.
    """

    def __init__(self, weights: Mapping[str, Tensor], gone: Mapping[str, Tensor], images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = _Seen(set(), set(), {})
        self._weights, self._gone = weights, gone
        self._own = {_storage(weight): name for name, weight in weights.items()}
        self._computed: dict[StorageWeakRef | None, frozenset[str]] = {
            storage: frozenset([name]) for storage, name in self._own.items()
        }
        self._of_images: set[StorageWeakRef | None] = {_storage(images)}
        self._times: Counter[frozenset[str]] = Counter()

    def __torch_dispatch__(
        self, function: Any, _types: Any, arguments: Sequence[Any] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation, and note what it does with the weights."""
        named = named or {}
        tensors = list(_tensors((*arguments, *named.values())))
        storages = [_storage(tensor) for tensor in tensors]
        sources = [self._computed.get(storage, frozenset()) for storage in storages]
        with_images = any(storage in self._of_images for storage in storages)
        namespace, _, name = function.name().partition("::")
        operation = name.partition(".")[0]
        names: frozenset[str] = frozenset().union(*sources)
        contracts = namespace != "aten" or operation in _CONTRACTIONS
        if names and contracts and not with_images:
            # Of a layer on a constant, such as the places of a window, nothing is followed further; a weight that is
            # multiplied by a constant matrix is another weight.
            contracts = len([source for source in sources if source]) > 1 or _is_layer(operation, tensors, sources)
        if names and contracts:
            for tensor, source in zip(tensors, sources, strict=True):
                self._look(tensor, source)
            names = frozenset()
        elif names and with_images and operation in _PRODUCTS:
            for tensor, source in zip(tensors, sources, strict=True):
                if source and tensor.numel() >= sum(self._weights[weight].numel() for weight in source):
                    self._look(tensor, source)
        result = function(*arguments, **named)
        for tensor in _tensors([result]):
            storage = _storage(tensor)
            if with_images:
                self._of_images.add(storage)
                if storage not in self._own:
                    self._computed.pop(storage, None)
            elif names:
                self._computed[storage] = self._computed.get(storage, frozenset()) | names
        return result

    def _look(self, tensor: Tensor, source: frozenset[str]) -> None:
        """See where a weight that takes part in an operation is zero."""
        if not source:
            return
        self.seen.used |= source
        if (own := self._own.get(_storage(tensor))) is not None and source == {own}:
            if ((self._weights[own] != 0) & self._gone[own]).any():
                self.seen.broken.add(own)
            return
        # What is not finite comes from a filter without any weight.
        self.seen.computed[source, self._times[source]] = ((tensor != 0) & tensor.isfinite()).cpu()
        self._times[source] += 1


def _is_layer(operation: str, tensors: Sequence[Tensor], sources: Sequence[frozenset[str]]) -> bool:
    """Say whether the weight is where a layer has it: a convolution's second tensor, a transposed second matrix."""
    if "conv" in operation or operation in ("linear", "mkldnn_linear"):
        return bool(sources[1])
    matrix = tensors[-1]
    if matrix.ndim < 2:
        return True
    return bool(sources[-1]) and (matrix.stride(-2) <= matrix.stride(-1) or 1 in matrix.shape[-2:])


def _made_up(module: nn.Module) -> Tensor:
    """Make an input for a convolution or linear module."""
    like = module.get_parameter("weight")
    if isinstance(module, _ConvNd):
        sizes = [max(8, 2 * reach * (kernel - 1) + 1) for kernel, reach in zip(*_kernel(module), strict=True)]
        shape = [2, module.in_channels, *sizes]
    else:
        shape = [2, int(like.shape[-1])]
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(like)


def _kernel(module: _ConvNd) -> tuple[Sequence[int], Sequence[int]]:
    return module.kernel_size, module.dilation


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    """Go through the tensors of nested lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _storage(tensor: Tensor) -> StorageWeakRef | None:
    """Tell what a tensor's values lie in; nothing for kinds that have no storage, such as sparse ones."""
    try:
        return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
    except (NotImplementedError, RuntimeError):
        return None
