"""Choose the device that networks run on."""

from __future__ import annotations

import os

import torch

from prunescope.errors import InputError


def choose_device(name: str, rank: int = 0) -> str:
    """Return the name of the device to run on, after checking that it can be used.

    Parameters
    ----------
    name
        A device name as PyTorch spells it, or `auto`, which means a GPU if there is one and otherwise the CPU. If there
        are GPUs, `auto` and `cuda` without a number choose the GPU with this process's local rank.
    rank
        The local rank to use if the environment variable `LOCAL_RANK`, which `torchrun` sets, is missing. Ranks beyond
        the number of GPUs wrap around.

    Returns
    -------
    str
        The device's name as PyTorch spells it.

    Raises
    ------
    InputError
        If the device cannot be used.
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
