"""Run networks on batches of images, and pass the outputs of their layers on as they are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.devices import is_out_of_memory
from prunescope.dissection.batches import Batch
from prunescope.dissection.settings import Precision
from prunescope.errors import InputError
from prunescope.networks.checks import explain_failures
from prunescope.networks.observing import observe
from prunescope.networks.preprocessing import Normaliser, Preprocessing

Key = tuple[str, str]  # network, layer
Take = Callable[[Key, Tensor, Batch], None]


class ForwardPasses:
    """Runs networks on batches of images, and passes the outputs of their layers to a callback.

    On a GPU, three streams overlap: while the outputs for the previous images are still being processed, the next
    images are copied to the GPU and the networks run on them. The callback may therefore wait for the GPU without
    delaying the forward passes.

    Parameters
    ----------
    models
        The networks by name.
    axes
        For each network name and layer name, the axis of the layer's output that holds the units.
    device
        The device that the networks are on.
    preprocessing
        For each network name, how pixels are turned into its input.
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        axes: Mapping[str, Mapping[str, int]],
        device: torch.device,
        preprocessing: Mapping[str, Preprocessing],
    ) -> None:
        self._models, self._axes, self.device = models, axes, device
        self._preprocessing = preprocessing
        self._normalisers = {one.numbers: Normaliser(one, device) for one in preprocessing.values()}
        self.on_gpu = device.type == "cuda"
        self._waiting: Callable[[], None] = _nothing
        if self.on_gpu:
            self._networks, self._copies = _new_stream(device), _new_stream(device)
            self._networks.wait_stream(torch.cuda.current_stream(device))
        self._types = dict.fromkeys(models, torch.float32)

    def check(self, image_size: tuple[int, int], *, ran: bool = False) -> None:
        """Raise if a network cannot process images, and choose the type of each network's images.

        A network that does not accept float32 images gets images of the type of its own weights.

        Parameters
        ----------
        image_size
            The height and width of the images in pixels.
        ran
            Whether the networks have already run on images of this size, of the type of their own weights and in the
            same precision; those with float32 weights are not run again then.

        Raises
        ------
        InputError
            If a network cannot process images of this size in either type. The message gives the reason.
        """
        generator = torch.Generator().manual_seed(0)
        most = max(one.channels for one in self._preprocessing.values())
        channels = torch.rand(2, most, *image_size, generator=generator).to(self.device)
        for name, model in self._models.items():
            random = channels[:, : self._preprocessing[name].channels].contiguous()
            own = next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), torch.float32)
            if ran and own == torch.float32:
                continue
            try:
                with explain_failures(model, random):
                    model(random)
            except InputError:
                if own == torch.float32:
                    raise
                images = random.to(own)
                with explain_failures(model, images):
                    model(images)
                self._types[name] = own

    def dtype(self, name: str) -> str:
        """Return the dtype of the images that a network is run on, such as `float32` or `float16`."""
        return str(self._types[name]).removeprefix("torch.")

    def stream(self) -> AbstractContextManager[object]:
        """Return a context manager for the code that processes outputs.

        On a GPU, operations in its ``with`` block run in a separate stream, concurrently with the networks.
        """
        return _stream(self.device) if self.on_gpu else nullcontext()

    def run(self, batch: Batch, wanted: Sequence[Key], take: Take, *, to_the_end: bool = True) -> None:
        """Run every network that has wanted layers on a batch, and pass the outputs of these layers to `take`.

        Parameters
        ----------
        batch
            The batch, which must include its images.
        wanted
            The wanted layers, as pairs of network name and layer name.
        take
            A function that is called with the pair of network name and layer name, the layer's output and the batch. On
            a GPU it is called during the next call of `run` or of `finish`.
        to_the_end
            Whether each network runs to its end, even after all its wanted layers have been computed. If so, a layer
            that is called a second time is detected.
        """
        assert batch.images is not None
        if not self.on_gpu:
            self._forward(batch.images, wanted, partial(_hand_on, take, batch), to_the_end)
            return
        with torch.cuda.stream(self._copies):
            pixels = batch.images.to(self.device, non_blocking=True)
        self._networks.wait_stream(self._copies)
        taken: list[tuple[Key, Tensor]] = []
        with torch.cuda.stream(self._networks):
            pixels.record_stream(self._networks)
            # Outputs are cloned because later layers may overwrite them, and the next batch will. Each map is made
            # contiguous so that single maps can be copied fast.
            self._forward(
                pixels,
                wanted,
                lambda key, output: taken.append((key, output.clone(memory_format=torch.contiguous_format))),
                to_the_end,
            )
            ready = self._networks.record_event()
        self.finish()
        self._waiting = partial(self._take, taken, ready, take, batch)

    def finish(self) -> None:
        """Pass on the outputs of the last batch that have not been passed on yet."""
        waiting, self._waiting = self._waiting, _nothing
        waiting()

    def _forward(
        self, pixels: Tensor, wanted: Sequence[Key], take: Callable[[Key, Tensor], None], to_the_end: bool
    ) -> None:
        normalised: dict[Any, Tensor] = {}  # networks with the same preprocessing share one tensor
        for name, model in self._models.items():
            left = [layer for other, layer in wanted if other == name]
            if left:
                own = self._preprocessing[name].numbers
                if own not in normalised:
                    normalised[own] = self._normalisers[own](pixels)
                hand = _handing(name, left, take, to_the_end)
                with (
                    _naming_the_batch(len(pixels)),
                    observe(model, left, self._axes[name], hand),
                    suppress(_SeenEnoughError),
                ):
                    model(normalised[own].to(self._types[name]))

    def _take(self, taken: list[tuple[Key, Tensor]], ready: torch.cuda.Event, take: Take, batch: Batch) -> None:
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(ready)
        for key, output in taken:
            output.record_stream(stream)
            take(key, output, batch)


@contextmanager
def arithmetic(precision: Precision, device: torch.device) -> Iterator[None]:
    """Compute the forward passes of the ``with`` block in this precision; restore the previous settings afterwards."""
    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolution


class _SeenEnoughError(Exception):
    """Stops a forward pass when all wanted layers have been computed and the rest of the network is not needed."""


def _nothing() -> None:
    """Do nothing: no outputs are pending."""


def _hand_on(take: Take, batch: Batch, key: Key, output: Tensor) -> None:
    take(key, output, batch)


@contextmanager
def _naming_the_batch(images: int) -> Iterator[None]:
    """Turn an error about a lack of memory into one that says to give a smaller batch size."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            f"{images} images at a time do not fit in the device's memory; give a smaller batch_size (--batch-size)"
        ) from error


def _new_stream(device: torch.device, priority: int = 0) -> torch.cuda.Stream:
    return torch.cuda.Stream(device, priority=priority)  # type: ignore[no-untyped-call]


@contextmanager
def _stream(device: torch.device) -> Iterator[None]:
    """Run the operations of the ``with`` block in a stream of their own.

    They start after the operations already queued in the current stream, which in turn waits for them at the end.
    """
    before = torch.cuda.current_stream(device)
    # High priority, so that the short operations of this stream do not wait for the long ones of the networks.
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
