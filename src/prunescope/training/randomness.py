"""Randomness as a function of a seed and of what it is for."""

from __future__ import annotations

import numpy as np
import torch

ORDER, AUGMENTATION = 0, 1  # what randomness is for


def generator_for(*key: int) -> torch.Generator:
    """Return a generator that depends on the whole key alone: (seed, purpose, epoch, image), say."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
