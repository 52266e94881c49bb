"""Where networks run."""

from __future__ import annotations

import torch

from prunescope.errors import InputError


def choose_device(name: str, rank: int = 0) -> str:
    """Return the device called `name`; `auto` is a GPU where there is one, the one of this process's rank.

    Raises
    ------
    InputError
        There is no such device.
    """
    if name == "auto":
        return f"cuda:{rank % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {name!r} cannot be used ({reason}); give cpu, cuda or auto") from error
    return name
