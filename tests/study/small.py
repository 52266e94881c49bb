"""A study of seconds: a miniature of 128 images of 32 pixels, three steps an epoch."""

from __future__ import annotations

from pathlib import Path

RECIPE = """\
name: small
network: prunescope:resnet8x4
trials: 2
seed: 5
data:
  task: {task}
  size: 32
  augmentation: flip
  in_memory: true
training:
  length: 2ep
  batch_size: 32
  learning_rate: 0.05
  warmup: 1it
  schedule: [1ep]
pruning:
  levels: 2
  fraction: 0.5
  rewind_to: 1ep1it
dissection:
  layers: [stage3, stage1]
  concepts: {concepts}
"""


def write_recipe(path: Path, task: str, concepts: str) -> Path:
    path.write_text(RECIPE.format(task=task, concepts=concepts))
    return path
