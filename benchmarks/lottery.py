"""Compare the lottery ticket with its controls on small digits (Frankle and Carbin 2019, figures 3 and 4).

The benchmark checks that a known result is reproduced. For every seed, one network is trained, pruned level by level by
magnitude, and rewound. At every level, two controls are trained besides the ticket. The first uses the same weights
with the ticket's mask permuted within each layer. The second uses the ticket's mask with new random weights and is
trained from the first step. All of them see the same images in the same order.

    python benchmarks/lottery.py
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.datasets import load_digits
from torch import Tensor, nn

from prunescope.pruning import Mask, prune, shuffle
from prunescope.tasks import Task
from prunescope.tasks.order import Plan
from prunescope.tasks.source import Source
from prunescope.training import Training, train
from prunescope.training.recipe import StepRange
from prunescope.training.steps import Step

WAYS = ("ticket", "shuffled", "reinitialised")


class Perceptron(nn.Module):
    """A perceptron with two hidden layers for digits of 64 pixels, with the proportions of LeNet-300-100."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 150), nn.ReLU(), nn.Linear(150, 50), nn.ReLU(), nn.Linear(50, 10)
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Return class scores [n, 10] of images [n, 3, 8, 8], which have three identical channels."""
        scores: Tensor = self.layers(images[:, 0].flatten(1))
        return scores


def network(seed: int) -> nn.Module:
    """Build a network with random initial weights drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Perceptron()


def digits() -> Task:
    """Return scikit-learn's digits as a task: 1,797 images of 8 x 8 pixels, every fourth of them for validation."""
    found = load_digits()
    pixels = torch.from_numpy((found.images * 255 / 16).round().astype(np.uint8))
    pixels = pixels[:, None].expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
    held = np.arange(len(pixels)) % 4 == 3
    names = tuple(str(name) for name in found.target_names)
    sources = [Source(names, found.target[part].astype(np.int64), pixels=pixels[part]) for part in (~held, held)]
    # Most pixels are black. The mean and the standard deviation are those of the whole data set.
    return Task("digits", 8, "none", (0.305,) * 3, (0.376,) * 3, 0, *sources)


def one_seed(task: Task, training: Training, seed: int, levels: int, fraction: float, rewind: int) -> list[dict]:
    """Train all levels of one ticket, and both controls at each level."""
    per_epoch = Plan(len(task.train), training.batch_size, seed).steps_per_epoch
    end = training.length.iterations(per_epoch)
    point: dict[str, Tensor] = {}
    model = network(seed)
    mask = Mask.dense(model)

    def accuracy(model: nn.Module, mask: Mask, start: int, **options: object) -> float:
        rows = train(model, task, training, seed=seed, mask=mask, course=StepRange(start, end), **options)
        return float(rows["top1"].iloc[-1])

    def keep() -> None:
        point.update({name: tensor.detach().clone() for name, tensor in model.state_dict().items()})

    def rewound() -> nn.Module:
        again = network(seed)
        again.load_state_dict(point)
        return again

    dense = accuracy(model, mask, 0, at_step={rewind: keep})
    rows = [{"seed": seed, "level": 0, "kept": 1.0} | dict.fromkeys(WAYS, dense)]
    for level in range(1, levels + 1):
        mask = prune(model, mask, fraction=fraction)
        model = rewound()
        found = {
            "ticket": accuracy(model, mask, rewind),
            "shuffled": accuracy(rewound(), shuffle(mask, seed * 1000 + level), rewind),
            "reinitialised": accuracy(network(10_000 + seed * 100 + level), mask, 0),
        }
        rows.append({"seed": seed, "level": level, "kept": mask.weights_remaining} | found)
    return rows


def interval(values: pd.Series) -> tuple[float, float]:
    """Return the mean and the half-width of its 95 % confidence interval (Student's t)."""
    if values.std() == 0:
        return float(values.mean()), 0.0
    low, high = stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
    return float(values.mean()), float(high - low) / 2


def main() -> None:
    """Print accuracies and paired differences with 95 % confidence intervals over seeds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--levels", type=int, default=7)
    parser.add_argument("--fraction", type=float, default=0.5, help="of the kept weights, a level")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rewind", type=int, default=0, help="the step to rewind to")
    given = parser.parse_args()
    task = digits()
    training = Training(length=Step(given.epochs), batch_size=32, learning_rate=0.05, weight_decay=0.0)
    began = time.perf_counter()
    rows = []
    for seed in range(given.seeds):
        rows += one_seed(task, training, seed, given.levels, given.fraction, given.rewind)
    table = pd.DataFrame(rows)
    print(f"{given.seeds} seeds, {given.epochs} epochs a level, rewound to step {given.rewind}; accuracy in %, 95 %")
    print("intervals over seeds; differences are paired\n")
    print("  kept   " + "   ".join(f"{way:>14}" for way in WAYS) + "   ticket - shuffled   ticket - reinitialised")
    above, below = [], []
    for _, level in table.groupby("level"):
        cells = [interval(level[way] * 100) for way in WAYS]
        differences = [interval((level["ticket"] - level[way]) * 100) for way in WAYS[1:]]
        kept = level["kept"].iloc[0]
        print(
            f"{kept:6.1%}   " + "   ".join(f"{mean:6.2f} +- {half:4.2f}" for mean, half in cells)
            + "".join(f"   {mean:+14.2f} +- {half:4.2f}" for mean, half in differences)
        )  # fmt: skip
        if all(mean - half > 0 for mean, half in differences):
            above.append(f"{kept:.1%}")
        if any(mean + half < 0 for mean, half in differences):
            below.append(f"{kept:.1%}")
    print(f"\nthe ticket is above both controls, their intervals apart from zero, at: {', '.join(above) or 'no level'}")
    print(f"it is below one of them at: {', '.join(below) or 'no level'}")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
