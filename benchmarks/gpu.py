"""Run all tests and benchmarks that need a GPU and write the results to benchmarks/results/GPU-NAME.md.

    make gpu
    python benchmarks/gpu.py [--out FOLDER]

The tests marked `gpu` run first. The benchmarks run after them, even if a test has failed. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
STEPS = {
    "Tests": ["-m", "pytest", "-m", "gpu", str(HERE.parent / "tests" / "gpu"), "-p", "no:cacheprovider"],
    "Dissection": [str(HERE / "dissection.py"), "--gpu"],
    "Training step": [str(HERE / "training.py"), "--gpu", "--rounds", "10"],
    "Input pipeline": [str(HERE / "pipeline.py"), "--gpu"],
}


def main() -> int:
    """Run the steps and return the exit code: 1 if a step failed, 2 if there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("this machine has no GPU that PyTorch can use; `make test` checks what needs none", file=sys.stderr)
        return 2
    name = torch.cuda.get_device_name()
    parts = [
        f"# {name}",
        f"`make gpu`, {time.strftime('%Y-%m-%d')}: Python {platform.python_version()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} processor cores.",
    ]
    failed = []
    for title, arguments in STEPS.items():
        print(f"{title} ...", flush=True)
        began = time.monotonic()
        ran = subprocess.run(
            [sys.executable, *arguments], cwd=HERE.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False,
        )  # fmt: skip
        print(ran.stdout, flush=True)
        if ran.returncode:
            failed.append(title)
        said = ran.stdout.strip() if title != "Tests" or ran.returncode else ran.stdout.strip().splitlines()[-1]
        took = f"{time.monotonic() - began:.0f} s" + (f", failed with {ran.returncode}" if ran.returncode else "")
        parts.append(f"## {title}\n\n{took}\n\n```\n{said}\n```")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-')}.md"
    file.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    print(f"written to {file}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
