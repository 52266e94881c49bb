"""Build torchvision's classifiers by name, with or without their published weights."""

from __future__ import annotations

import pickle
import sys
from contextlib import redirect_stdout
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunescope.devices import import_torchvision
from prunescope.errors import InputError, nearest
from prunescope.networks.weights import tensors_only

# torchvision's subpackages of other models, and the reasons why these models cannot be used here.
_NOT_CLASSIFIERS = {
    "detection": "it finds objects in lists of images",
    "segmentation": "it labels pixels, not images",
    "video": "it takes videos, not images",
    "quantization": "its weights are integers that cannot be trained or pruned",
    "optical_flow": "it takes pairs of images",
}


def check_classifier(name: str) -> int | None:
    """Check the part of a network's name after `torchvision:`, without building it.

    Parameters
    ----------
    name
        The name, for example `resnet50` or `resnet50@IMAGENET1K_V2`.

    Returns
    -------
    int or None
        The number of classes of the published weights in the name; None if the name contains no weights.

    Raises
    ------
    InputError
        If torchvision has no such classifier, or no such weights for it.
    """
    models = import_torchvision().models
    architecture, at, published = name.partition("@")
    classifiers = models.list_models(module=models)
    if architecture not in classifiers:
        if architecture not in models.list_models():
            raise InputError(f"torchvision has no classifier {architecture!r}; {nearest(architecture, classifiers)}")
        kind = models.get_model_builder(architecture).__module__.split(".")[2]
        raise InputError(
            f"torchvision:{architecture} is not a classifier of images: {_NOT_CLASSIFIERS.get(kind, kind)}; "
            f"give the name of a classifier; {nearest(architecture.removeprefix('quantized_'), classifiers)}"
        )
    if not at:
        return None
    known = {entry.name: entry for entry in models.get_model_weights(architecture)}
    if published != "DEFAULT" and published not in known:
        raise InputError(
            f"torchvision:{architecture} has no published weights {published!r}; {nearest(published, known)}"
        )
    return len(_published(architecture, published).meta["categories"])


def build_classifier(name: str, classes: int | None) -> nn.Module:
    """Build one of torchvision's classifiers.

    GoogLeNet and Inception are built without their auxiliary classifiers for training.

    Parameters
    ----------
    name
        The name, as `check_classifier` accepts it. torchvision downloads published weights into torch's cache and
        verifies their checksum. Only tensors are read from the file, and no code in it is run.
    classes
        The number of outputs. None means torchvision's default.

    Returns
    -------
    nn.Module
        The network in training mode, on the CPU.

    Raises
    ------
    InputError
        If published weights cannot be downloaded or read.
    """
    models = import_torchvision().models
    architecture, _, published = name.partition("@")
    options: dict[str, Any] = {}
    if classes is not None:
        options["num_classes"] = classes
    if architecture in ("googlenet", "inception_v3"):
        options["aux_logits"] = False
        if not published:
            options["init_weights"] = True
    if not published:
        model: nn.Module = models.get_model(architecture, weights=None, **options)
        return model
    weights = _published(architecture, published)
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    try:
        with tensors_only(), redirect_stdout(sys.stderr):
            model = models.get_model(architecture, weights=weights, **options)
    except (OSError, HTTPException) as error:
        raise InputError(
            f"the published weights of torchvision:{name} cannot be downloaded from {weights.url} ({error}); "
            f"download that file by other means, then give torchvision:{architecture} with --weights FILE "
            f"(weights=FILE in Python), or save it as {file}"
        ) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise InputError(
            f"the published weights of torchvision:{name} are damaged ({str(error).splitlines()[0]}); "
            f"delete {file} if it exists, and try again"
        ) from error
    return model


def _published(architecture: str, published: str) -> Any:
    return import_torchvision().models.get_model_weights(architecture)[published]
