"""Where networks run."""

from __future__ import annotations

import os

import torch

from prunescope.errors import InputError


def choose_device(name: str, rank: int = 0) -> str:
    """Return the device called `name`; `auto` is a GPU where there is one.

    Parameters
    ----------
    name
        As torch names devices, or `auto`. `cuda` without a number, and `auto`, are the GPU of this process's number on
        its machine.
    rank
        That number, where `torchrun` did not say it (`LOCAL_RANK`).

    Raises
    ------
    InputError
        There is no such device.
    """
    if name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{int(os.environ.get('LOCAL_RANK', rank)) % torch.cuda.device_count()}"
    if name == "auto":
        return "cpu"
    try:
        torch.zeros((), device=name).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {name!r} cannot be used ({reason}); give cpu, cuda or auto") from error
    return name
