"""What a recipe decides for a level: the numbers that the forecast and the checks use are those of pruning itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from prunescope.pruning import Mask, prune
from prunescope.store import read_recipe
from prunescope.study.schedule import level_steps, pruned_together, weights_kept
from prunescope.training import StepRange
from tests.study.small import write_recipe


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("schedule", ["iterative", "one-shot"])
@pytest.mark.parametrize("how_much", ["levels: 4, fraction: 0.3", "remaining: [0.77, 0.51, 0.13]"])
def test_every_level_keeps_as_many_weights_as_foreseen(
    tmp_path: Path, scope: str, schedule: str, how_much: str
) -> None:
    changes = [f"pruning={{{how_much}, scope: {scope}, schedule: {schedule}}}"]
    settings = read_recipe(write_recipe(tmp_path / "small.yaml", "task", "concepts"), changes).pruning
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(20, 7))
    dense = Mask.dense(model)
    foreseen = weights_kept(settings, pruned_together(dense, settings))
    mask = dense
    for level in range(1, settings.levels + 1):
        if settings.remaining is not None:
            before = mask if schedule == "iterative" else dense
            mask = prune(model, before, remaining=settings.remaining[level - 1], scope=settings.scope)
        else:
            # The weights are not retrained here, so that iterative and one-shot pruning give the same masks.
            mask = prune(model, mask, fraction=0.3, scope=settings.scope)
        kept = [mask.kept] if scope == "global" else [int(tensor.sum()) for tensor in mask.values()]
        assert foreseen[level] == kept


@pytest.mark.parametrize(
    ("change", "steps"),
    [
        ("retraining: rewind", StepRange(4, 6)),
        ("retraining: learning-rate", StepRange(4, 6)),
        ("retraining: reinitialise", StepRange(0, 6)),
        ("retraining: fine-tune, fine_tune: 1ep", StepRange(6, 9, rate=0.005)),
    ],
)
def test_the_steps_of_a_level_follow_from_how_it_is_retrained(tmp_path: Path, change: str, steps: StepRange) -> None:
    path = write_recipe(tmp_path / "small.yaml", "task", "concepts")
    recipe = read_recipe(path, [f"pruning={{levels: 2, rewind_to: 1ep1it, {change}}}"])
    assert level_steps(recipe, 0, 3) == StepRange(0, 6)
    for level in (1, 2):
        found = level_steps(recipe, level, 3)
        assert (found.start, found.stop) == (steps.start, steps.stop)
        assert found.rate == pytest.approx(steps.rate)
