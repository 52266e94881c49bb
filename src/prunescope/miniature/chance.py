"""Random numbers that are the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Chance:
    """A stream of random numbers for one image of one seed.

    NumPy guarantees the raw bits of the Philox generator, but not the distributions derived from them. All numbers are
    therefore computed here from the raw bits, with operations that IEEE arithmetic rounds in the same way everywhere.

    Parameters
    ----------
    seed, index
        The seed of the data set and the index of the image, both non-negative and below 2 ** 64.
    stream
        The number of the stream. The streams of an image are independent of one another.
    """

    def __init__(self, seed: int, index: int, stream: int = 0) -> None:
        start = np.array([0, 0, 0, stream], np.uint64)
        self._bits = np.random.Philox(key=np.array([seed, index], np.uint64), counter=start)
        self._drawn: list[int] = []

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Draw a number from the uniform distribution between `low` and `high`."""
        if not self._drawn:
            self._drawn = self._bits.random_raw(256).tolist()
        return low + (high - low) * ((self._drawn.pop() >> 11) * 2.0**-53)

    def coin(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self.uniform() < probability

    def pick(self, options: Sequence[T]) -> T:
        """Draw one of the options with equal probabilities."""
        return options[int(self.uniform() * len(options))]

    def noise(self, *shape: int) -> np.ndarray:
        """Draw a float32 array of numbers from -1 to 1 with a triangular distribution (the sum of two bytes)."""
        count = 1
        for side in shape:
            count *= side
        raw = self._bits.random_raw((2 * count + 7) // 8).astype("<u8").view(np.uint8)[: 2 * count]
        pairs = raw.astype(np.int16).reshape(2, *shape)
        noise: np.ndarray = (pairs[0] + pairs[1] - 255).astype(np.float32) * np.float32(1 / 256)
        return noise
