"""Watch how a network uses its weights, by following them through its operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

# The ATen operations that compute sums of products of their operands.
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


@dataclass
class WeightUse:
    """How the weights were used in one run.

    Attributes
    ----------
    used
        The names of the weights that an operation used.
    broken
        The names of the weights whose zeros were overwritten in the parameter itself.
    computed
        For each tensor that an operation used and that was computed from weights, a bool tensor that is True where it
        is not zero. The key consists of the names of these weights and the number of earlier such tensors with the
        same names.
    unregistered
        The shape of each parameter that an operation used although the network does not have it, by its storage.
    """

    used: set[str]
    broken: set[str]
    computed: dict[tuple[frozenset[str], int], Tensor]
    unregistered: dict[StorageWeakRef | None, tuple[int, ...]]


class WatchingWeights(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follow weights through the operations that compute something from them, up to those that also involve images.

    Tensors are identified by their storage, so that views and in-place operations are followed too.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], gone: Mapping[str, Tensor], images: Tensor, values: Iterable[Tensor]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = WeightUse(set(), set(), {}, {})
        self._registered_or_made = {_storage(value) for value in values}
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
        """Run an operation and record how it uses the weights."""
        named = named or {}
        tensors = list(_tensors((*arguments, *named.values())))
        storages = [_storage(tensor) for tensor in tensors]
        sources = [self._computed.get(storage, frozenset()) for storage in storages]
        with_images = any(storage in self._of_images for storage in storages)
        namespace, _, name = function.name().partition("::")
        operation = name.partition(".")[0]
        for tensor, storage in zip(tensors, storages, strict=True):
            if isinstance(tensor, nn.Parameter) and storage not in self._registered_or_made:
                self.seen.unregistered.setdefault(storage, tuple(tensor.shape))
        names: frozenset[str] = frozenset().union(*sources)
        contracts = namespace != "aten" or operation in _CONTRACTIONS
        if names and contracts and not with_images:
            # A layer may be applied to a constant input, such as the relative positions in a window; its output is not
            # followed. A product of a weight with a constant matrix is a computed weight, and is followed.
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
            if storage not in self.seen.unregistered:
                self._registered_or_made.add(storage)
            if with_images:
                self._of_images.add(storage)
                if storage not in self._own:
                    self._computed.pop(storage, None)
            elif names:
                self._computed[storage] = self._computed.get(storage, frozenset()) | names
        return result

    def _look(self, tensor: Tensor, source: frozenset[str]) -> None:
        """Record where a weight, or a tensor computed from weights, is not zero when an operation uses it."""
        if not source:
            return
        self.seen.used |= source
        if (own := self._own.get(_storage(tensor))) is not None and source == {own}:
            if ((self._weights[own] != 0) & self._gone[own]).any():
                self.seen.broken.add(own)
            return
        # Values that are not finite arise where a filter has no weight left, as in a division by its norm.
        self.seen.computed[source, self._times[source]] = ((tensor != 0) & tensor.isfinite()).cpu()
        self._times[source] += 1


def _is_layer(operation: str, tensors: Sequence[Tensor], sources: Sequence[frozenset[str]]) -> bool:
    """Return whether an operation applies a layer: its weight is a convolution's second operand or a transposed matrix.

    In a matrix product, the weight of a layer is the last operand, and it is transposed.
    """
    if "conv" in operation or operation in ("linear", "mkldnn_linear"):
        return bool(sources[1])
    matrix = tensors[-1]
    if matrix.ndim < 2:
        return True
    return bool(sources[-1]) and (matrix.stride(-2) <= matrix.stride(-1) or 1 in matrix.shape[-2:])


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    """Yield the tensors in nested lists and tuples."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _storage(tensor: Tensor) -> StorageWeakRef | None:
    """Return a reference to a tensor's storage, or None for tensors without one, such as sparse tensors."""
    try:
        return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
    except (NotImplementedError, RuntimeError):
        return None
