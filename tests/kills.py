"""Kill commands at random moments, and see that the same commands then end as if nothing had happened.

    python -m tests.kills [--kills 100] [--seed 0] [--only study,pack]

Each trial starts one of the commands in a new folder, sends SIGKILL to it after a random part of the time that it
takes, and runs it again. Then the files must have the bytes of an undisturbed run, no process of the killed command may
be left, and neither may a file that was half written. Commands under torchrun are killed with all their processes, as a
scheduler does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import prunescope
from tests.cli.commands import COMMAND, PLAIN, leftovers
from tests.contents import contents
from tests.study.small import write_recipe

NETWORK = "prunescope:resnet8x4"
TORCHRUN = (
    sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "prunescope",
)  # fmt: skip
VARYING = (".cache", ".lock")  # what depends on the times of files, and locks, which stay for the next run
GONE_WITHIN = 20.0  # seconds in which the processes of a killed command have to end


@dataclass(frozen=True)
class Job:
    """A command that writes to a folder `out`, which stands for {out} in its words."""

    name: str
    words: tuple[str, ...]
    processes: int = 1
    begins_with: Path | None = None  # a folder that is copied to `out` before the command runs

    def start(self, out: Path, mark: str) -> subprocess.Popen[bytes]:
        """Start the command in a session of its own. All its processes have `mark` in their environment."""
        given = [word.format(out=out) for word in self.words]
        start = COMMAND if self.processes == 1 else TORCHRUN
        return subprocess.Popen(
            [*start, *given], env=PLAIN | {"PRUNESCOPE_KILLED": mark}, start_new_session=True, cwd=out.parent,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def prepare(self, out: Path) -> None:
        """Make what the command begins with."""
        if self.begins_with is not None:
            shutil.copytree(self.begins_with, out)


@dataclass(frozen=True)
class Whole:
    """An undisturbed run: the seconds that it took, and its files."""

    seconds: float
    files: dict[str, str]


def jobs(folder: Path) -> list[Job]:
    """Draw what the commands need, and return them."""
    concepts = prunescope.make_miniature(folder / "concepts", 32, seed=2, size=32)
    plain = folder / "plain"
    shutil.copytree(concepts, plain)
    prunescope.pack_concepts(concepts)
    task = prunescope.make_miniature(folder / "task", 64, seed=1, size=32)
    recipe = write_recipe(folder / "small.yaml", str(task / "classification"), str(concepts))
    network = prunescope.build_network(NETWORK, seed=0)
    torch.save(network.state_dict(), folder / "dense.pt")
    prunescope.prune(network, fraction=0.5).apply(network)
    torch.save(network.state_dict(), folder / "half.pt")
    for index in range(40):
        pixels = np.random.default_rng(index).integers(0, 256, (2, 32, 32), dtype=np.uint8)
        for name, values in (("photos", pixels[0]), ("masks", pixels[1] % 3)):
            (folder / name).mkdir(exist_ok=True)
            Image.fromarray(values).convert("RGB").save(folder / name / f"{index}.png")
    (folder / "names.csv").write_text("number,name\n1,dog\n2,cat\n")
    study = (
        "study",
        str(recipe),
        "--device",
        "cpu",
        "--out",
        "{out}",
        "--set",
        "trials=1",
        "--set",
        "pruning.levels=1",
    )
    study += ("--set", "training.length=12it", "--set", "training.schedule=[6it]", "--set", "pruning.rewind_to=2it")
    study += ("--set", "training.checkpoint_every=3it", "--set", "dissection.layers=[stage3]")
    dissect = ("dissect", NETWORK, "--weights", str(folder / "dense.pt"), "--layer", "stage3", "--device", "cpu")
    dissect += ("--concepts", str(concepts), "--batch-size", "1", "--out", "{out}")
    series = ("series", NETWORK, "--weights", str(folder / "dense.pt"), "--weights", str(folder / "half.pt"))
    series += ("--layer", "stage3", "--device", "cpu", "--concepts", str(concepts), "--out", "{out}")
    imported = ("concepts", "import", "masks", str(folder / "photos"), str(folder / "masks"), "--workers", "2")
    imported += ("--names", str(folder / "names.csv"), "--out", "{out}")
    finished = folder / "finished"
    subprocess.run(
        [*COMMAND, *(word.format(out=finished) for word in series)], env=PLAIN, check=True, capture_output=True
    )
    return [
        Job("study", study),
        Job("study in two processes", study, 2),
        Job("series", series),
        Job("dissect", dissect),
        Job("dissect in two processes", dissect, 2),
        Job("pack", ("concepts", "pack", "{out}"), begins_with=plain),
        Job("make", ("concepts", "make", "miniature", "{out}", "--images", "64", "--size", "32")),
        Job("report", ("report", "{out}"), begins_with=finished),
        Job("import", imported),
    ]


def run(job: Job, folder: Path) -> Whole:
    """Run a command undisturbed."""
    out = folder / "out"
    job.prepare(out)
    began = time.monotonic()
    finish(job, out)
    whole = Whole(time.monotonic() - began, contents(out, VARYING))
    shutil.rmtree(out)
    return whole


def kill(job: Job, whole: Whole, moment: float, folder: Path) -> list[str]:
    """Kill a command at a moment from 0 to 1 of the time it takes, run it again, and return what is wrong."""
    out, mark = folder / "out", f"{os.getpid()}-{time.monotonic_ns()}"
    job.prepare(out)
    running = job.start(out, mark)
    time.sleep(moment * whole.seconds)
    if job.processes == 1:
        os.kill(running.pid, signal.SIGKILL)
    else:
        os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    problems = [f"process {process} is left" for process in left_of(mark)]
    finish(job, out)
    found = contents(out, VARYING)
    problems += [
        f"{name} differs"
        if name in found and name in whole.files
        else f"{name} is {'more' if name in found else 'missing'}"
        for name in sorted(found.keys() | whole.files.keys())
        if found.get(name) != whole.files.get(name)
    ]
    problems += [f"{name} is left" for name in leftovers(folder)]
    shutil.rmtree(out)
    return problems


def finish(job: Job, out: Path) -> None:
    """Run a command to its end."""
    running = job.start(out, "")
    _, said = running.communicate(timeout=300)
    # A data set that is complete already may be refused, which changes nothing.
    if running.returncode and b"contains files already" not in said:
        raise AssertionError(f"{job.name}: exit code {running.returncode}: {said.decode()[-2000:]}")


def left_of(mark: str) -> list[int]:
    """Return the processes that are left of a killed command, once they had time to end."""
    until = time.monotonic() + GONE_WITHIN
    while (found := _marked(mark)) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def _marked(mark: str) -> list[int]:
    wanted, found = f"PRUNESCOPE_KILLED={mark}".encode(), []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and wanted in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue  # it has ended, or belongs to somebody else
    return found


def trials(
    kills: int, seed: int, folder: Path, only: Sequence[str] = (), wholes: dict[str, Whole] | None = None
) -> list[str]:
    """Kill commands in turn at random moments; return what was wrong, with the command and the moment."""
    random = np.random.default_rng(seed)
    chosen = [job for job in jobs(folder / "given") if not only or job.name in only]
    known = {} if wholes is None else wholes
    problems = []
    for number in range(kills):
        job, moment = chosen[number % len(chosen)], float(random.uniform(0, 1.05))
        place = folder / "trial"  # the same one each time, since some files name it
        place.mkdir(exist_ok=True)
        if job.name not in known:
            known[job.name] = run(job, place)
        found = [f"{job.name}, killed at {moment:.3f}: {one}" for one in kill(job, known[job.name], moment, place)]
        problems += found
        print(f"{number + 1}/{kills} {job.name} at {moment:.3f}: {len(found)} problems", flush=True)
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="names of commands, separated by commas")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = trials(options.kills, options.seed, Path(folder), [name for name in options.only.split(",") if name])
    for one in found:
        print(one)
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
