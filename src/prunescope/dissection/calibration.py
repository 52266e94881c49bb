"""Estimate the statistics of normalisation layers on the labelled images that a network will be dissected on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.arrays import Array
from prunescope.concepts.protocol import Concepts
from prunescope.networks.preprocessing import Normaliser, Preprocessing
from prunescope.networks.statistics import estimate_statistics
from prunescope.randomness import seed_of

# Statistics are estimated on at most this many images, in batches of about this size.
CALIBRATED, CALIBRATION_BATCH = 2048, 64
_CALIBRATION = 102  # a purpose in the keys of random seeds


def calibrate(
    model: nn.Module, concepts: Concepts, preprocessing: Preprocessing, device: str | torch.device, seed: int
) -> int:
    """Estimate the statistics of the normalisation layers of a network on labelled images, in place.

    Parameters
    ----------
    model
        The network, on the device.
    concepts
        The labelled images, of which at most 2,048 are used.
    preprocessing
        How the images become the input of the network.
    device
        The device that the network is on.
    seed
        The seed that chooses the images and their order.

    Returns
    -------
    int
        The number of images used; 0 if the network has no normalisation layers with statistics.

    Raises
    ------
    InputError
        As `estimate_statistics` does.
    """
    chosen = calibration_images(len(concepts), seed)
    normalise = Normaliser(preprocessing, torch.device(device))

    def batches() -> Iterator[Tensor]:
        for part in np.array_split(chosen, max(1, round(len(chosen) / CALIBRATION_BATCH))):
            yield normalise(torch.from_numpy(np.stack([concepts.image(int(i)) for i in part])).to(device))

    return len(chosen) if estimate_statistics(model, batches()) else 0


def calibration_images(count: int, seed: int) -> Array:
    """Return the indices of the images on which statistics are estimated, in a random order that the seed fixes."""
    generator = np.random.default_rng(seed_of(seed, _CALIBRATION))
    return generator.permutation(count)[:CALIBRATED]
