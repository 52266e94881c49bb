"""Import torchvision even if its compiled operators cannot be loaded; all of prunescope imports it through this."""

from __future__ import annotations

from types import ModuleType

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


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
