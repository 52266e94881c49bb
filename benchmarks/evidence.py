"""Measure how often the verdict is right, on simulated studies whose truth is known.

    python benchmarks/evidence.py [--studies 100] [--seed 0]

Every study has ten pruned levels of 20 %. The dense networks have 46 interpretable units on average, with a standard
deviation of 6 between trials, as the miniature's have. The curves of the truth are

- flat (A): no change,
- rising (B): 25 % more, reached in equal steps at level 4,
- falling (C): 25 % fewer, reached in equal steps at level 4,
- mixed: 25 % more at levels 1 to 4 and 25 % fewer at levels 5 to 8.

Accuracy does not change down to level 8 and is 3 and 6 points lower at levels 9 and 10. Each level's number of units
deviates from the truth with a standard deviation of 3 and its accuracy with 0.5 points (noise 1, as in the miniature),
or with half or twice that. With autocorrelation, neighbouring levels' deviations have a correlation of 0.7.

With one trial, the deviations are those of the images, which bootstrap resamples repeat, and the verdict is compared
with the truth of this initialisation. In the rows "1, others", initialisations deviate as the trials above do,
resampled images by half of that, and the verdict is compared with the truth over all initialisations.
"""

from __future__ import annotations

import argparse
import gc
from collections import Counter

import numpy as np
import statsmodels.stats.multitest  # noqa: F401

from prunescope.evidence.decisions import decide_levels, decide_mean
from prunescope.evidence.differences import ResampledDifferences, TrialDifferences

LEVELS = 10
DENSE, DENSE_DEVIATION = 46.0, 6.0
UNITS_NOISE, ACCURACY_NOISE = 3.0, 0.005
RESAMPLES = 1000
ANSWERS = ("A", "B", "C", "mixed", "undecided")
RAMP = np.minimum(np.arange(LEVELS + 1) / 4, 1.0)
CURVES = {
    "flat": ("A", np.zeros(LEVELS + 1)),
    "rising": ("B", 0.25 * RAMP),
    "falling": ("C", -0.25 * RAMP),
    "mixed": ("mixed", 0.25 * np.array([0, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1])),
}
ACCURACY = 0.9 - 0.03 * np.maximum(np.arange(LEVELS + 1) - 8, 0)


def main() -> None:
    """Parse the options, simulate the studies and print the shares of the answers as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    gc.freeze()  # statsmodels collects garbage in every call, which would take most of the time
    print(
        "| truth | trials | autocorrelation | noise | " + " | ".join(ANSWERS) + " | wrong | false change at a level |"
    )
    print("| --- " * (len(ANSWERS) + 6) + "|")
    for name, (truth, _) in CURVES.items():
        for kind in ("1", "1, others", "3", "5", "10"):
            for correlation in (0.0, 0.7):
                for noise in (0.5, 1.0, 2.0):
                    random = np.random.default_rng([options.seed, *map(ord, f"{name}{kind}{correlation}{noise}")])
                    outcomes = [simulate(name, kind, correlation, noise, random) for _ in range(options.studies)]
                    answers = Counter(hypothesis for hypothesis, _ in outcomes)
                    levels = sum(false for _, false in outcomes) / options.studies
                    shares = [answers[answer] / options.studies for answer in ANSWERS]
                    wrong = 1 - sum(
                        share for answer, share in zip(ANSWERS, shares, strict=True) if answer in (truth, "undecided")
                    )
                    cells = [
                        name,
                        kind,
                        f"{correlation:g}",
                        f"{noise:g}",
                        *(f"{share:.0%}" for share in [*shares, wrong, levels]),
                    ]
                    print("| " + " | ".join(cells) + " |", flush=True)


def simulate(name, kind, correlation, noise, random):
    """Return the hypothesis on one simulated study, and whether a level is said to change that does not."""
    truth = CURVES[name][1]
    trials = int(kind.split(",")[0])
    images = {"1": 1.0, "1, others": 0.5}.get(kind, 0.0)
    networks = 0.0 if kind == "1" else 1.0
    scale = noise * np.array([UNITS_NOISE, ACCURACY_NOISE])[:, None, None]
    shape = (2, LEVELS + 1, trials)
    deviations = scale * (
        networks * autocorrelated(shape, correlation, random) + images * autocorrelated(shape, correlation, random)
    )
    dense = DENSE + DENSE_DEVIATION * random.standard_normal(trials)
    units = np.clip(dense + DENSE * truth[:, None] + deviations[0], 0, None).round()
    accuracy = np.clip(ACCURACY[:, None] + deviations[1], 0, 1)
    if trials > 1:
        differences = TrialDifferences(units[1:] - units[0])
        of_accuracy = TrialDifferences(accuracy[1:] - accuracy[0])
    else:
        shape = (2, LEVELS + 1, RESAMPLES)
        resampled = np.stack([units, accuracy]) + images * scale * autocorrelated(shape, correlation, random)
        differences, of_accuracy = (
            ResampledDifferences(observed[1:, 0] - observed[0, 0], part[1:] - part[0])
            for observed, part in zip((units, accuracy), (resampled[0].round(), resampled[1]), strict=True)
        )
    margin = 0.1 * units[0].mean()
    holds, falls = of_accuracy.p_above(-0.01) <= 0.05, of_accuracy.p_below(-0.01) <= 0.05
    hypothesis = decide_mean(differences, holds, falls, margin, 0.05).hypothesis if holds.any() else "undecided"
    levels = decide_levels(differences, margin, 0.05)
    true = truth[1:]
    false_change = ((levels == "more") & (true <= 0)) | ((levels == "fewer") & (true >= 0))
    return hypothesis, bool(false_change.any())


def autocorrelated(shape, correlation, random):
    """Return normal deviations of variance 1 that are a process of first order along the levels, axis 1."""
    deviations = random.standard_normal(shape)
    for level in range(1, shape[1]):
        deviations[:, level] *= (1 - correlation**2) ** 0.5
        deviations[:, level] += correlation * deviations[:, level - 1]
    return deviations


if __name__ == "__main__":
    main()
