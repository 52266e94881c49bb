"""transformers' image classifiers, from a folder or from the Hugging Face hub."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.errors import InputError
from prunescope.files import expanded
from prunescope.networks.torchvision_shim import import_torchvision

_SAFE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def read_config(name: str, classes: int | None, *, own_weights: bool) -> Any:
    """Read what describes a network, and check that it can be built. No code that lies beside it is run.

    Parameters
    ----------
    name
        A folder with a `config.json`, or a name on the hub such as `google/vit-base-patch16-224`: then transformers
        downloads it into its cache.
    classes
        The number of outputs; with weights of its own None or theirs.
    own_weights
        Whether the weights that lie beside the configuration are wanted.

    Returns
    -------
    transformers.PreTrainedConfig
        For `build_hf`.

    Raises
    ------
    InputError
        If transformers is not installed, there is no such configuration, it is of no classifier of images that
        transformers knows, its weights are for another number of classes, or in files that would have to be unpickled.
    """
    transformers = _import_transformers(name)
    folder = _folder(name)
    try:
        config = transformers.AutoConfig.from_pretrained(folder or name, trust_remote_code=False)
    # Damaged files and the hub raise anything.
    except Exception as error:
        raise _unreadable(f"hf:{name} cannot be read", error, folder) from error
    classifiers = transformers.AutoModelForImageClassification._model_mapping
    if type(config) not in classifiers:
        raise InputError(
            f"hf:{name} is a {config.model_type}, no classifier of images that transformers knows: give one "
            "(a ...ForImageClassification)"
        )
    found = classifiers[type(config)]
    classifier = found[0] if isinstance(found, tuple) else found
    if classifier.main_input_name != "pixel_values":
        takes = classifier.main_input_name
        raise InputError(f"hf:{name} is a {config.model_type}, which takes {takes} and not images; give another")
    if config.model_type == "hiera":
        raise InputError(f"hf:{name} is a hiera: its tokens are in an order of their own, which is no map's")
    # Where there are several classifiers (DeiT), transformers looks for the one that is meant here.
    config.architectures = config.architectures or [classifier.__name__]
    has_weights = own_weights and (folder is None or _has_weights(folder))
    if has_weights and classes is not None and classes != config.num_labels:
        raise InputError(
            f"the weights of hf:{name} are for {config.num_labels} classes, not {classes}: leave out the classes, or "
            "give a folder with its config.json alone, which begins with random weights"
        )
    return config


def has_weights(name: str) -> bool:
    """Say whether weights lie beside a network's configuration; a name on the hub always has them."""
    folder = _folder(name)
    return folder is None or _has_weights(folder)


def build_hf(name: str, config: Any, classes: int | None, *, own_weights: bool) -> nn.Module:
    """Build one of transformers' image classifiers; it puts out logits [n, classes], not a structure that holds them.

    Parameters
    ----------
    name
        As `read_config` accepts it.
    config
        What that returned.
    classes
        The number of outputs; None is the configuration's.
    own_weights
        Load the weights that lie beside the configuration, if there are any; they are read as safetensors only. False
        initialises at random.

    Returns
    -------
    nn.Module
        transformers' own network with its own names of layers and weights, float32, in training mode, on the CPU.

    Raises
    ------
    InputError
        If the network cannot be built so, or its weights cannot be downloaded or read, or do not fit it.
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
    # Configurations that contradict themselves, damaged files and the hub raise anything.
    except Exception as error:
        raise _unreadable(f"hf:{name} cannot be built", error, folder) from error
    if missing:
        raise InputError(
            f"the weights of hf:{name} do not fit it: {len(missing)} tensors are missing ({', '.join(missing[:10])}); "
            "they may be of a network without a classifier"
        )
    model.register_forward_hook(_logits)
    return model.train()


def _logits(_module: nn.Module, _arguments: Any, output: Any) -> Tensor:
    logits: Tensor = output.logits
    return logits


def _folder(name: str) -> Path | None:
    """Tell a folder from a name on the hub, which is NAME or OWNER/NAME."""
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
            f"hf:{folder} holds its weights as {pickled[0]}, which would have to be unpickled; prunescope reads "
            "safetensors only. If you trust where it is from, load it in transformers and write it again with "
            "save_pretrained"
        )
    return False


def _unreadable(what: str, error: Exception, folder: Path | None) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    instead = "" if folder else "; without access to the hub, give a folder that holds its files (hf:FOLDER)"
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
