"""Networks look at images: what their layers put out is handed on while it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial

import torch
from torch import Tensor, nn

from prunescope.dissection.batches import Batch
from prunescope.dissection.settings import Precision
from prunescope.errors import InputError
from prunescope.networks.checks import taking
from prunescope.networks.layers import observe

Key = tuple[str, str]  # network, layer
_Take = Callable[[Key, Tensor, Batch], None]


class Look:
    """Shows batches of images to networks, and hands on what their layers put out.

    On a GPU three streams overlap: the next images are copied to it and the networks run on them while what they put
    out for the last images is still being worked on. Whoever takes the outputs may then wait for the GPU without
    keeping it from the forward passes.

    Parameters
    ----------
    models
        Networks by name.
    axes
        By network and layer, which axis of the layer's output holds the units.
    device
        Where they are.
    mean, std
        Of each color channel.
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        axes: Mapping[str, Mapping[str, int]],
        device: torch.device,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self._models, self._axes, self.device = models, axes, device
        self._mean = torch.tensor(mean, dtype=torch.float32, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, dtype=torch.float32, device=device).view(1, 3, 1, 1)
        self.on_gpu = device.type == "cuda"
        self._waiting: Callable[[], None] = _nothing
        if self.on_gpu:
            self._networks, self._copies = _new_stream(device), _new_stream(device)
            self._networks.wait_stream(torch.cuda.current_stream(device))
        self._types = dict.fromkeys(models, torch.float32)

    def check(self, image_size: tuple[int, int]) -> None:
        """See that every network takes images, in its own precision where it does not take float32.

        Parameters
        ----------
        image_size
            Height and width in pixels.

        Raises
        ------
        InputError
            A network cannot take them; the message says why.
        """
        random = torch.rand(2, 3, *image_size, generator=torch.Generator().manual_seed(0)).to(self.device)
        for name, model in self._models.items():
            own = next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), torch.float32)
            try:
                with taking(model, random):
                    model(random)
            except InputError:
                if own == torch.float32:
                    raise
                images = random.to(own)
                with taking(model, images):
                    model(images)
                self._types[name] = own

    def stream(self) -> AbstractContextManager[object]:
        """Let the block's work on outputs run beside the networks: on a GPU, in a stream of its own."""
        return _stream(self.device) if self.on_gpu else nullcontext()

    def at(self, batch: Batch, wanted: Sequence[Key], take: _Take, *, to_the_end: bool = True) -> None:
        """Show a batch to every network that has wanted layers.

        Parameters
        ----------
        batch
            With images.
        wanted
            Network and layer.
        take
            Called with network and layer, the layer's output, and the batch; on a GPU during the next call or `finish`.
        to_the_end
            Whether a network runs on when its wanted layers have put out: if so, a layer that is called once more is
            noticed.
        """
        assert batch.images is not None
        if not self.on_gpu:
            self._run(self._normalised(batch.images), wanted, partial(_hand_on, take, batch), to_the_end)
            return
        with torch.cuda.stream(self._copies):
            pixels = batch.images.to(self.device, non_blocking=True)
        self._networks.wait_stream(self._copies)
        taken: list[tuple[Key, Tensor]] = []
        with torch.cuda.stream(self._networks):
            pixels.record_stream(self._networks)
            # Copies, since later layers may write over an output, and the next batch will; each map in one piece, so
            # that single maps are copied fast.
            self._run(
                self._normalised(pixels),
                wanted,
                lambda key, output: taken.append((key, output.clone(memory_format=torch.contiguous_format))),
                to_the_end,
            )
            ready = self._networks.record_event()
        self.finish()
        self._waiting = partial(self._take, taken, ready, take, batch)

    def finish(self) -> None:
        """Hand on what is still to be handed on of the last batch."""
        waiting, self._waiting = self._waiting, _nothing
        waiting()

    def _normalised(self, pixels: Tensor) -> Tensor:
        return (pixels.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std

    def _run(
        self, images: Tensor, wanted: Sequence[Key], take: Callable[[Key, Tensor], None], to_the_end: bool
    ) -> None:
        for name, model in self._models.items():
            left = [layer for other, layer in wanted if other == name]
            if left:
                hand = _handing(name, left, take, to_the_end)
                with observe(model, left, self._axes[name], hand), suppress(_SeenEnoughError):
                    model(images.to(self._types[name]))

    def _take(self, taken: list[tuple[Key, Tensor]], ready: torch.cuda.Event, take: _Take, batch: Batch) -> None:
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(ready)
        for key, output in taken:
            output.record_stream(stream)
            take(key, output, batch)


@contextmanager
def arithmetic(precision: Precision, device: torch.device) -> Iterator[None]:
    """Let the forward pass compute in this precision, for as long as the block lasts."""
    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolution


class _SeenEnoughError(Exception):
    """All layers that are wanted have put out; the rest of the network need not run."""


def _nothing() -> None:
    """Hand on nothing."""


def _hand_on(take: _Take, batch: Batch, key: Key, output: Tensor) -> None:
    take(key, output, batch)


def _new_stream(device: torch.device, priority: int = 0) -> torch.cuda.Stream:
    return torch.cuda.Stream(device, priority=priority)  # type: ignore[no-untyped-call]


@contextmanager
def _stream(device: torch.device) -> Iterator[None]:
    """Run the block's work in a stream, after what was given to the current one, which waits for it in turn."""
    before = torch.cuda.current_stream(device)
    # Its short operations go before the long ones of the networks.
    stream = _new_stream(device, priority=-1)
    stream.wait_stream(before)
    with torch.cuda.stream(stream):
        yield
    before.wait_stream(stream)


def _handing(
    name: str, layers: Sequence[str], take: Callable[[Key, Tensor], None], to_the_end: bool
) -> Callable[[str, Tensor], None]:
    left = set(layers)

    def hand(layer: str, output: Tensor) -> None:
        take((name, layer), output)
        left.discard(layer)
        if not (left or to_the_end):
            raise _SeenEnoughError

    return hand
