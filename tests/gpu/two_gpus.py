"""What two processes do on two GPUs, as torchrun starts them: TASK OUT."""

from __future__ import annotations

import sys
from pathlib import Path

from prunescope.files import write_table
from prunescope.processes import join_processes
from prunescope.training import StepRange, train
from tests.training.small import half_mask, network, opened, recipe

if __name__ == "__main__":
    with join_processes("cuda") as processes:
        model = network()
        rows = train(
            model,
            opened(Path(sys.argv[1])),
            recipe(batch_size=8, synchronise_statistics=True),
            seed=3,
            mask=half_mask(model),
            course=StepRange(0, 9),
            device="cuda",
        )
        if processes.is_main:
            write_table(Path(sys.argv[2]) / "rows.csv", rows)
