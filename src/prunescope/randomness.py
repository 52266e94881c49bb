"""Random generators that are determined by a seed and the purpose they are used for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

ORDER, AUGMENTATION, LAYERS = 0, 1, 2  # the purposes that random numbers are used for


def seed_of(*key: int) -> int:
    """Return a seed for a generator that depends on the whole key, for example (seed, purpose, epoch, image)."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))


def generator_for(*key: int) -> torch.Generator:
    """Return a generator that depends only on the whole key, for example (seed, purpose, epoch, image)."""
    return torch.Generator().manual_seed(seed_of(*key))


def seed_layers(device: torch.device, *key: int) -> None:
    """Seed the global generators that dropout and other random layers use, so that they depend only on the key."""
    for generator in _generators(device):
        generator.manual_seed(seed_of(key[0], LAYERS, *key[1:]))


@contextmanager
def leaving_generators(device: torch.device) -> Iterator[None]:
    """Restore the global generators that random layers use to their previous state after the block."""
    generators = _generators(device)
    states = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _generators(device: torch.device) -> list[torch.Generator]:
    generators = [torch.default_generator]
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
        number = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[number])
    return generators
