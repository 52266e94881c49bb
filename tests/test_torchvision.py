from __future__ import annotations

import subprocess
import sys

import torch

from prunescope.devices import import_torchvision


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_torchvision_is_imported_in_a_fresh_process_and_again_without_harm() -> None:
    program = (
        "from prunescope.devices import import_torchvision as get\n"
        "first = get()\n"
        "import torchvision\n"
        "print(first is get() is torchvision, torchvision.models.squeezenet1_1(num_classes=3).num_classes)"
    )
    assert run(program) == "True 3"


def test_an_import_of_torchvision_that_failed_before_does_no_harm() -> None:
    program = (
        "try:\n    import torchvision\n"
        "except RuntimeError:\n    pass\n"
        "from prunescope.devices import import_torchvision\n"
        "print(import_torchvision().transforms.Resize.__name__)"
    )
    assert run(program) == "Resize"


def test_the_operators_are_known_after_the_import() -> None:
    torchvision = import_torchvision()
    assert hasattr(torch.ops.torchvision, "nms")
    # Versions of torchvision before 0.28 do not have the quantised operator.
    recent = tuple(map(int, torchvision.__version__.split(".")[:2])) >= (0, 28)
    assert hasattr(torch.ops.torchvision, "qnms") or not recent
