"""Build timm's classifiers by name, with or without their published weights."""

from __future__ import annotations

from typing import Any

from torch import nn

from prunescope.devices import import_torchvision
from prunescope.errors import InputError, nearest
from prunescope.networks.weights import tensors_only


def check_timm(name: str) -> int | None:
    """Check the part of a network's name after `timm:`, without building it.

    Parameters
    ----------
    name
        The name, for example `resnet50`, `resnet50@a1_in1k` (with timm's tag of published weights) or
        `resnet50@DEFAULT`.

    Returns
    -------
    int or None
        The number of classes of the published weights in the name; None if the name contains no weights.

    Raises
    ------
    InputError
        If timm is not installed, or has no such network or no such weights, or if the network's tokens are in an order
        that does not correspond to a map.
    """
    timm = _import_timm(name)
    architecture, at, tag = name.partition("@")
    known = timm.list_models()
    if architecture not in known:
        base, dot, published = architecture.partition(".")
        if dot and base in known:
            raise InputError(f"timm:{name} uses timm's own notation for weights; write timm:{base}@{published}")
        raise InputError(f"timm has no network {architecture!r}; {nearest(architecture, known)}")
    if architecture.startswith("hiera"):
        raise InputError(f"timm:{name} does not keep its tokens in the order of the positions in the image")
    return int(_published(timm, architecture, tag).num_classes) if at else None


def build_timm(name: str, classes: int | None) -> nn.Module:
    """Build one of timm's classifiers.

    Parameters
    ----------
    name
        The name, as `check_timm` accepts it. timm downloads published weights into its cache. Only safetensors files,
        or the tensors of files written by `torch.save`, are read, and no code in them is run.
    classes
        The number of outputs. None means timm's default.

    Returns
    -------
    nn.Module
        The network in training mode, on the CPU.

    Raises
    ------
    InputError
        If published weights cannot be downloaded or read.
    """
    timm = _import_timm(name)
    architecture, at, tag = name.partition("@")
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if not at:
        model: nn.Module = timm.create_model(architecture, pretrained=False, **options)
        return model
    published = _published(timm, architecture, tag)
    try:
        with tensors_only():
            model = timm.create_model(architecture, pretrained=True, pretrained_cfg=published, **options)
    # Downloads and the readers of other packages can raise exceptions of many types.
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"the published weights of timm:{name} cannot be downloaded or read ({type(error).__name__}: {reason}); "
            f"fetch {published.hf_hub_id or published.url} by other means, then give timm:{architecture} with "
            "--weights FILE (weights=FILE in Python)"
        ) from error
    return model


def _published(timm: Any, architecture: str, tag: str) -> Any:
    found = timm.models.get_arch_pretrained_cfgs(architecture).values()
    known = {published.tag: published for published in found if published.has_weights}
    if tag == "DEFAULT" and known:
        return timm.models.get_pretrained_cfg(architecture)
    if tag not in known:
        raise InputError(f"timm:{architecture} has no published weights {tag!r}; {nearest(tag, known)}")
    return known[tag]


def _import_timm(name: str) -> Any:
    import_torchvision()
    try:
        import timm
    except ImportError as error:
        raise InputError(f"timm:{name} needs timm, which is not installed: pip install 'prunescope[timm]'") from error
    return timm
