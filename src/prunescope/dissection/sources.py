"""Where activation maps come from: networks that run on the images, or arrays that were computed elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from prunescope.arrays import Array
from prunescope.concepts.protocol import Concepts
from prunescope.dissection.basis import Basis
from prunescope.dissection.batches import Batch, batches
from prunescope.dissection.forward import ForwardPasses, Key, Take


class Source(Protocol):
    """Provides the activation maps of all layers to be dissected, for one batch of images after another.

    A key, the names of a network and of one of its layers, identifies the maps of one layer. A source may add further
    keys, for example those of another network or of the same maps in another basis.
    """

    @property
    def images(self) -> range:
        """The indices of the images in the data set, which are consecutive."""

    def batches(self, take: Take, only: Collection[Key] | None = None) -> Iterator[Batch]:
        """Go through the images in order, and pass the outputs of all layers for each batch to a function.

        Outputs are passed on, instead of being returned, because a later layer may overwrite them in place. It can be
        called more than once, and each time gives the same outputs.

        Parameters
        ----------
        take
            A function that is called with the key of each layer, the layer's output [n, units, h, w] or [n, units] and
            the batch of images. It must not keep the output. It may be called after the batch has been yielded, but for
            each key in the order of the batches.
        only
            The keys of the layers whose outputs are wanted; all layers by default.

        Yields
        ------
        Batch
            Each batch of images with its labels.
        """


@dataclass(frozen=True)
class NetworkMaps:
    """The outputs of layers of networks, which run on the images of a data set.

    Attributes
    ----------
    forward
        Runs the networks.
    keys
        The layers, as pairs of network name and layer name.
    concepts
        The data set.
    blocks
        int64 [images of the data set]: the block of images that each image belongs to.
    images
        The indices of the images.
    batch_size
        The number of images in a batch.
    """

    forward: ForwardPasses
    keys: tuple[Key, ...]
    concepts: Concepts
    blocks: Array
    images: range
    batch_size: int

    def batches(self, take: Take, only: Collection[Key] | None = None) -> Iterator[Batch]:
        """Run the networks; see `Source.batches`. With `only`, they run no further than the last wanted layer."""
        wanted = self.keys if only is None else [key for key in self.keys if key in only]
        for batch in batches(self.concepts, self.batch_size, self.images, self.blocks, pinned=self.forward.on_gpu):
            self.forward.run(batch, wanted, take, to_the_end=only is None)
            yield batch
        self.forward.finish()


@dataclass(frozen=True)
class ArrayMaps:
    """Activation maps of one layer that were computed elsewhere.

    Attributes
    ----------
    key
        The key of the maps.
    features
        The maps of all images of the data set, [images, units, h, w] or [images, units], of any real type.
    concepts
        The data set.
    blocks
        int64 [images]: the block of images that each image belongs to.
    batch_size
        The number of images in a batch.
    """

    key: Key
    features: Array
    concepts: Concepts
    blocks: Array
    batch_size: int = 64

    @property
    def images(self) -> range:
        """The indices of all images of the data set."""
        return range(len(self.concepts))

    def batches(self, take: Take, only: Collection[Key] | None = None) -> Iterator[Batch]:
        """Pass on the maps as float32; see `Source.batches`."""
        del only  # There is one layer.
        for batch in batches(self.concepts, self.batch_size, self.images, self.blocks, with_images=False):
            part = np.array(self.features[batch.first : batch.first + len(batch.names)], np.float32)
            take(self.key, torch.from_numpy(part), batch)
            yield batch


@dataclass(frozen=True)
class MapsInBases:
    """The maps of a source, and the same maps in other bases.

    Attributes
    ----------
    source
        Provides the maps of the units.
    bases
        For the key of a layer, its name and further keys for its maps in other bases.
    """

    source: Source
    bases: Mapping[Key, tuple[str, Mapping[Key, Basis]]]
    _matrices: dict[tuple[Basis, str, int], Tensor] = field(default_factory=dict)

    @property
    def images(self) -> range:
        """The indices of the images in the data set."""
        return self.source.images

    def batches(self, take: Take, only: Collection[Key] | None = None) -> Iterator[Batch]:
        """Pass on the maps of the units, and those in other bases; see `Source.batches`."""

        def wanted(key: Key) -> bool:
            return only is None or key in only

        def take_all(key: Key, output: Tensor, batch: Batch) -> None:
            if wanted(key):
                take(key, output, batch)
            layer, further = self.bases.get(key, ("", {}))
            for other, basis in further.items():
                if wanted(other):
                    take(other, in_basis(output, self._matrix(basis, layer, output)), batch)

        needed = only
        if only is not None:
            needed = {*only, *(key for key, (_, further) in self.bases.items() if only & further.keys())}
        yield from self.source.batches(take_all, needed)

    def _matrix(self, basis: Basis, layer: str, output: Tensor) -> Tensor:
        # Networks of one pass have the same rotation, which takes a while to draw for many units.
        key = basis, "" if basis.seed is not None else layer, output.shape[1]
        if key not in self._matrices:
            matrix = torch.from_numpy(basis.matrix(layer, output.shape[1]))
            self._matrices[key] = matrix.to(output.device)
        return self._matrices[key]


def in_basis(output: Tensor, matrix: Tensor) -> Tensor:
    """Return activation maps in another basis.

    Parameters
    ----------
    output
        [n, units, h, w] or [n, units]: the maps of a layer's units.
    matrix
        float64 [directions, units], on the same device.

    Returns
    -------
    Tensor
        float32 [n, directions, h, w] or [n, directions].
    """
    units = output.shape[1]
    # The sums are of double precision and one image at a time, so that they do not depend on the size of the batch.
    turned = [(matrix @ one.reshape(units, -1).double()).float() for one in output]
    return torch.stack(turned).reshape(len(output), len(matrix), *output.shape[2:])
