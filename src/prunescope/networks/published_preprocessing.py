"""Find the preprocessing that a network's weights were trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from prunescope.devices import import_torchvision
from prunescope.errors import InputError
from prunescope.networks.checks import without_wrapper
from prunescope.networks.hf_preprocessing import of_hf
from prunescope.networks.preprocessing import Preprocessing, colors

_REMEMBERED = "_prunescope_preprocessing"


def preprocessing_of(network: str | nn.Module) -> Preprocessing | None:
    """Find the preprocessing that a network's published weights were trained with.

    Parameters
    ----------
    network
        The name of a network, as `build_network` takes it, or a network. For names of torchvision and timm without
        published weights, the mean and standard deviation are those of the default weights of the same architecture.
        For `hf:` networks, the file `preprocessor_config.json` is read as JSON, and no code is run. A network may come
        from `build_network`, from timm (it then has an attribute `pretrained_cfg`) or from transformers.

    Returns
    -------
    Preprocessing or None
        The preprocessing; None if the network does not state it, as for your own networks.

    Raises
    ------
    InputError
        If the package that the name requires is not installed, or `preprocessor_config.json` cannot be used.

    Examples
    --------
    >>> preprocessing_of("torchvision:vit_b_16@IMAGENET1K_SWAG_E2E_V1").size
    (384, 384)
    """
    if isinstance(network, nn.Module):
        return _of_module(without_wrapper(network))
    kind, _, rest = network.partition(":")
    architecture, _, published = rest.partition("@")
    if kind == "torchvision":
        return _of_torchvision(architecture, published)
    if kind == "timm":
        return _of_timm_name(architecture, published)
    if kind == "hf":
        return of_hf(rest)
    return None


def remember_preprocessing(model: nn.Module, preprocessing: Preprocessing | None) -> None:
    """Store the preprocessing of a network with it, so that `preprocessing_of` finds it."""
    if preprocessing is not None:
        setattr(model, _REMEMBERED, preprocessing)


def _of_module(model: nn.Module) -> Preprocessing | None:
    remembered = vars(model).get(_REMEMBERED)
    if isinstance(remembered, Preprocessing):
        return remembered
    published = getattr(model, "pretrained_cfg", None)
    if isinstance(published, Mapping):
        return _of_timm(published, with_size=True)
    name = getattr(getattr(model, "config", None), "name_or_path", None)
    if isinstance(name, str) and name:
        return of_hf(name, download=False)
    return None


def _of_torchvision(architecture: str, published: str) -> Preprocessing | None:
    models = import_torchvision().models
    weights = models.get_model_weights(architecture)
    entry = weights[published or "DEFAULT"]
    transforms = entry.transforms()
    side = transforms.crop_size[0]
    name = f"torchvision:{architecture}@{entry.name}"
    return Preprocessing(
        tuple(transforms.mean),
        tuple(transforms.std),
        (side, side) if published else None,
        transforms.interpolation.value if published else None,
        f"weights.transforms() of {name}" if published else f"the default weights of the architecture, {name}",
    )


def _of_timm_name(architecture: str, tag: str) -> Preprocessing | None:
    import_torchvision()
    try:
        import timm
    except ImportError as error:
        raise InputError(
            f"timm:{architecture} needs timm, which is not installed: pip install 'prunescope[timm]'"
        ) from error
    name = f"{architecture}.{tag}" if tag not in ("", "DEFAULT") else architecture
    published = timm.models.get_pretrained_cfg(name)
    return None if published is None else _of_timm(vars(published), with_size=bool(tag))


def _of_timm(published: Mapping[str, Any], *, with_size: bool) -> Preprocessing | None:
    mean, std = colors(published.get("mean")), colors(published.get("std"))
    if mean is None or std is None:
        return None
    size, tag = published.get("input_size"), published.get("tag")
    name = f"timm:{published.get('architecture')}" + (f"@{tag}" if tag else "")
    known = with_size and isinstance(size, Sequence) and len(size) == 3
    return Preprocessing(
        mean,
        std,
        (int(size[1]), int(size[2])) if known and size is not None else None,
        published.get("interpolation") if with_size else None,
        f"pretrained_cfg of {name}" if with_size else f"the default weights of the architecture, {name}",
    )
