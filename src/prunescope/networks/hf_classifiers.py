"""Build transformers' image classifiers from a folder or from the Hugging Face hub."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.devices import import_torchvision
from prunescope.errors import InputError
from prunescope.files import expanded

_SAFE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def read_config(name: str, classes: int | None, *, own_weights: bool) -> Any:
    """Read the configuration of a network and check that the network can be built.

    Python code that is stored with the configuration is not run.

    Parameters
    ----------
    name
        A folder with a `config.json`, or a name on the hub such as `google/vit-base-patch16-224`, which transformers
        downloads into its cache.
    classes
        The number of outputs, or None for that of the configuration. If the network's own weights are used, it must be
        None or their number of classes.
    own_weights
        Whether to use the weights that are stored with the configuration.

    Returns
    -------
    transformers.PreTrainedConfig
        The configuration, to be given to `build_hf`.

    Raises
    ------
    InputError
        If transformers is not installed; if the configuration cannot be read, or does not belong to a supported image
        classifier of transformers; or if the weights have another number of classes or would have to be unpickled.
    """
    transformers = _import_transformers(name)
    folder = _folder(name)
    try:
        config = transformers.AutoConfig.from_pretrained(folder or name, trust_remote_code=False)
    # Damaged files and errors of the hub can raise any exception.
    except Exception as error:
        raise _unreadable(f"hf:{name} cannot be read", error, folder) from error
    classifiers = transformers.AutoModelForImageClassification._model_mapping
    if type(config) not in classifiers:
        raise InputError(
            f"hf:{name} is a {config.model_type}, which is not an image classifier of transformers; give a network "
            "that has a ...ForImageClassification class"
        )
    found = classifiers[type(config)]
    classifier = found[0] if isinstance(found, tuple) else found
    if classifier.main_input_name != "pixel_values":
        takes = classifier.main_input_name
        raise InputError(
            f"hf:{name} is a {config.model_type}, which takes {takes} and not images; give another network"
        )
    if config.model_type == "hiera":
        raise InputError(f"hf:{name} is a hiera: its tokens are not in the order of the positions in the image")
    # For configurations with several classifiers (DeiT), transformers reads which one to build from `architectures`.
    config.architectures = config.architectures or [classifier.__name__]
    has_weights = own_weights and (folder is None or _has_weights(folder))
    if has_weights and classes is not None and classes != config.num_labels:
        raise InputError(
            f"the weights of hf:{name} are for {config.num_labels} classes, not {classes}: leave out the classes, or "
            "give a folder with only its config.json, which gives random weights"
        )
    return config


def has_weights(name: str) -> bool:
    """Return whether weights are stored with a network's configuration, which is assumed of networks on the hub."""
    folder = _folder(name)
    return folder is None or _has_weights(folder)


def build_hf(name: str, config: Any, classes: int | None, *, own_weights: bool) -> nn.Module:
    """Build one of transformers' image classifiers.

    Unlike transformers' own models, it returns logits [n, classes] instead of an output object that contains them.

    Parameters
    ----------
    name
        The folder or the name on the hub, as `read_config` accepts it.
    config
        The configuration that `read_config` returned.
    classes
        The number of outputs. None means that of the configuration.
    own_weights
        Whether to load the weights that are stored with the configuration, if there are any. Only safetensors files are
        read. Otherwise the weights are initialised at random.

    Returns
    -------
    nn.Module
        The network with transformers' names of layers and weights, in float32, in training mode, on the CPU.

    Raises
    ------
    InputError
        If the network cannot be built with these arguments, or its weights cannot be downloaded or read or do not fit.
    """
    transformers = _import_transformers(name)
    folder = _folder(name)
    config = copy.deepcopy(config)
    config.return_dict = True
    if classes is not None:
        config.num_labels = classes
    auto = transformers.AutoModelForImageClassification
    options = {"trust_remote_code": False, "dtype": torch.float32}
    missing: list[str] = []
    model: nn.Module
    try:
        if own_weights and (folder is None or _has_weights(folder)):
            model, loaded = auto.from_pretrained(
                folder or name, config=config, use_safetensors=True, output_loading_info=True, **options
            )
            missing = sorted(loaded["missing_keys"])
        else:
            model = auto.from_config(config, **options)
    # Inconsistent configurations, damaged files and errors of the hub can raise any exception.
    except Exception as error:
        raise _unreadable(f"hf:{name} cannot be built", error, folder) from error
    if missing:
        raise InputError(
            f"the weights of hf:{name} do not fit it: {len(missing)} tensors are missing ({', '.join(missing[:10])}); "
            "they may be those of a network without a classifier"
        )
    model.register_forward_hook(_logits)
    return model.train()


def _logits(_module: nn.Module, _arguments: Any, output: Any) -> Tensor:
    logits: Tensor = output.logits
    return logits


def _folder(name: str) -> Path | None:
    """Return the folder that a name refers to, or None if it is a name on the hub (NAME or OWNER/NAME)."""
    path = expanded(name)
    if name and path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"hf:{name}: the folder has no config.json; expected one as save_pretrained writes it")
        return path
    if not name or path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise InputError(f"hf:{name}: there is no such folder; expected hf:FOLDER or hf:OWNER/NAME on the hub")
    return None


def _has_weights(folder: Path) -> bool:
    if any((folder / file).is_file() for file in _SAFE_WEIGHTS):
        return True
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if pickled:
        raise InputError(
            f"hf:{folder} contains its weights as {pickled[0]}, which would have to be unpickled; prunescope "
            "reads safetensors only. If you trust its origin, load it in transformers and write it again with "
            "save_pretrained"
        )
    return False


def _unreadable(what: str, error: Exception, folder: Path | None) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    instead = "" if folder else "; without access to the hub, give a folder that contains its files (hf:FOLDER)"
    return InputError(f"{what} ({reason}){instead}")


def _import_transformers(name: str) -> Any:
    import_torchvision()
    try:
        import transformers
    except ImportError as error:
        raise InputError(
            f"hf:{name} needs transformers, which is not installed: pip install 'prunescope[transformers]'"
        ) from error
    return transformers
