"""A training in a process of its own, killed at a given moment: ROOT OUT NETWORK MOMENT."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunescope.files import write_table
from prunescope.networks.weights import save_weights
from prunescope.training import StepRange, train
from tests.training.small import half_mask, network, opened, plain_network, recipe

COURSE = StepRange(2, 13)
SNAPSHOT = 5


def build(name: str) -> nn.Module:
    return plain_network(dropout=0.3) if name == "dropout" else network()


def run(root: Path, out: Path, name: str, checkpoints: Path | None, progress: Callable[[int, int], None]) -> None:
    model = build(name)
    training = recipe("4ep", schedule="cosine", measure_every="2it", checkpoint_every="2it")
    rows = train(
        model, opened(root), training, seed=7, mask=half_mask(model), course=COURSE, checkpoints=checkpoints,
        at_step={SNAPSHOT: lambda: save_weights(model, out / "snapshot.safetensors")}, progress=progress,
    )  # fmt: skip
    save_weights(model, out / "weights.safetensors")
    write_table(out / "rows.csv", rows)


def kill_at(call: Callable[..., Any], name: str, count: int) -> Callable[..., Any]:
    """Wrap one of Path's methods: kill this process at the call number `count` for a file whose name begins so."""
    left = [count]

    def wrapped(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.name.startswith(name):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return call(self, *args, **kwargs)

    return wrapped


def main() -> None:
    torch.set_num_threads(1)
    root, out, name, moment = sys.argv[1:]
    what, _, count = moment.partition(":")
    if what == "rename":
        Path.replace = kill_at(Path.replace, ".step-", int(count))  # type: ignore[method-assign]
    if what == "unlink":
        Path.unlink = kill_at(Path.unlink, "step-", int(count))  # type: ignore[method-assign]

    def progress(done: int, _total: int) -> None:
        print(done, flush=True)
        if what == "step" and done == int(count):
            os.kill(os.getpid(), signal.SIGKILL)

    run(Path(root), Path(out), name, Path(out) / "checkpoints", progress)


if __name__ == "__main__":
    main()
