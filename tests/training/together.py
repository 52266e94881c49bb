"""What several processes do together, as torchrun starts them: ROOT OUT."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from prunescope.errors import InputError
from prunescope.files import write_json, write_table
from prunescope.networks.weights import save_weights
from prunescope.processes import join_processes
from prunescope.training import StepRange, measure_images, train
from tests.training.small import half_mask, network, opened, plain_network, recipe

COURSE = StepRange(1, 7)


def train_plain(root: Path, out: Path, **changes: object) -> None:
    """Train a network without batch statistics; only the main process writes and tells."""
    with join_processes("cpu") as processes:
        model = plain_network()
        told: list[int] = []
        # Nine images are not shared evenly by two processes.
        training = recipe(batch_size=9, measure_every="2it", checkpoint_every="2it", **changes)
        rows = train(
            model, opened(root), training, seed=3, mask=half_mask(model), course=COURSE,
            progress=lambda done, _total: told.append(done), at_step={COURSE.stop: lambda: told.append(0)},
            checkpoints=out / "checkpoints",
        )  # fmt: skip
        assert bool(told) == processes.is_main
        if processes.is_main:
            save_weights(model, out / "weights.safetensors")
            write_table(out / "rows.csv", rows)
            write_json(out / "told.json", {"told": told})
        processes.wait()


def train_all(root: Path, out: Path) -> None:
    """Train whole, in pieces, and on from a checkpoint that one process finds; then a network with statistics."""
    with join_processes("cpu") as processes:
        train_plain(root, out / "whole")
        train_plain(root, out / "pieces", device_batch_size=2)
        if processes.is_main:
            (out / "resumed").mkdir()
            found = min((out / "whole" / "checkpoints").iterdir())
            (out / "resumed" / "checkpoints").mkdir()
            found.rename(out / "resumed" / "checkpoints" / found.name)
        train_plain(root, out / "resumed")

        model, task = network(), opened(root)
        train(model, task, recipe(batch_size=9), seed=3, mask=half_mask(model), course=COURSE)
        (shared, shared_table), (alone, alone_table) = (
            measure_images(model, task, 4, "cpu", sharing) for sharing in (processes, None)
        )
        write_table(out / f"shared-{processes.rank}.parquet", shared_table)
        write_table(out / f"alone-{processes.rank}.parquet", alone_table)
        weights = torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])
        same = bool(torch.equal(processes.sum(weights), weights * processes.count))
        errors = [
            error_of(lambda: train(model, task, recipe(**changes), seed=0, mask=half_mask(model), course=COURSE))  # noqa: B023
            for changes in ({"batch_size": 1}, {"synchronise_statistics": True})
        ]
        stopped = [
            error_of(lambda: train_plain(root, out / "whole", momentum=0.5)),
            error_of(lambda: fail_to_act(root)),
        ]
        write_json(out / f"errors-{processes.rank}.json", {"errors": stopped})
        if processes.is_main:
            told = {"processes": processes.count, "shared": shared, "alone": alone, "same": same, "errors": errors}
            write_json(out / "told.json", told)
        if not processes.is_main:
            raise InputError("this process alone has found what it cannot read")
        processes.wait()


def fail_to_act(root: Path) -> None:
    def fail() -> None:
        raise OSError("no space left")

    model = plain_network()
    train(model, opened(root), recipe(batch_size=9), seed=3, mask=half_mask(model), course=COURSE, at_step={2: fail})


def error_of(action: Callable[[], object]) -> str:
    try:
        action()
    except (InputError, OSError) as error:
        return str(error)
    return "none"


if __name__ == "__main__":
    torch.set_num_threads(1)
    root, out = map(Path, sys.argv[1:])
    ended = error_of(lambda: train_all(root, out))
    (out / f"ended-{os.environ['RANK']}.txt").write_text(ended)
