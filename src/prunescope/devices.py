"""Choose the device that networks run on, and import torchvision on machines without a GPU as well."""

from __future__ import annotations

import os
from types import ModuleType

import torch

from prunescope.errors import InputError

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


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


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory could not be allocated, on a GPU or in the computer's own memory.

    On a CPU, PyTorch raises a plain `RuntimeError`, which only its message distinguishes.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes differ"))
    (True, False)
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def import_torchvision() -> ModuleType:
    """Import torchvision, even if its compiled operators cannot be loaded.

    The CUDA build of torchvision, the only one on PyPI, cannot load its operators together with a CPU build of PyTorch.
    The import then fails because torchvision registers properties of two of these operators (`nms` and `qnms`, for
    object detection), which do not exist. This function declares the two operators, so that models, transforms and
    data sets work; calling the operators still raises an error. If torchvision can be imported without this, nothing
    is declared.

    Returns
    -------
    ModuleType
        The module `torchvision`. After the first call, `import torchvision` works anywhere in the process.

    Examples
    --------
    >>> import_torchvision().__name__
    'torchvision'
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for operator in ("nms", "qnms"):
            torch.library.define(f"torchvision::{operator}", _SCHEMA)
        import torchvision
    module: ModuleType = torchvision
    return module
