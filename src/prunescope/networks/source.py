"""Build networks by name: from torchvision, timm, transformers, prunescope itself or a function in a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from prunescope.bounds import MOST_CLASSES, MOST_SEED, is_whole, shown
from prunescope.devices import is_out_of_memory
from prunescope.errors import InputError
from prunescope.files import expanded
from prunescope.networks.checkpoint_keys import read_checkpoint
from prunescope.networks.checks import uncompiled
from prunescope.networks.classifiers import build_classifier, check_classifier
from prunescope.networks.hf_classifiers import build_hf, has_weights, read_config
from prunescope.networks.published_preprocessing import preprocessing_of, remember_preprocessing
from prunescope.networks.random_weights import remember_random
from prunescope.networks.timm_classifiers import build_timm, check_timm
from prunescope.networks.weights import classes_in, fit_weights
from prunescope.user_code import call_function, import_function

_DEFAULT_CLASSES = 10

# The limits of `prunescope:` networks. Beyond them, building the network takes minutes or exhausts the memory.
_OF_WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".safetensors")
_MOST_DEPTH = 1202  # the deepest network of He et al. (2016)
_MOST_WIDTH = 1024
_MOST_WEIGHTS = 500_000_000

# The layers of published dissections. Caffe applies activation functions in place, so that a convolution was dissected
# after its activation function.
_PUBLISHED_LAYERS = {
    "alexnet": ("features.1", "features.4", "features.7", "features.9", "features.11"),  # conv1 ... conv5
    "vgg16": ("features.29",),  # conv5_3
    "googlenet": ("inception5b",),
    "densenet161": ("features",),
    "resnet18": ("layer4",),
    "resnet50": ("layer4",),
    "resnet152": ("layer4",),
}


def build_network(
    name: str,
    *,
    classes: int | None = None,
    seed: int | None = None,
    weights: str | Path | None = None,
    key: str | None = None,
    masks: str | Path | None = None,
) -> nn.Module:
    """Build a network by its name.

    Parameters
    ----------
    name
        The name of the network, in one of these forms:

        - `torchvision:resnet50`, or any other classifier of torchvision;
        - `torchvision:resnet50@IMAGENET1K_V2`, the same with published weights;
        - `prunescope:resnet14x32`, a residual network for small images of depth 6 n + 2 (here 14, at most 1,202) and
          width 32 (at most 1,024), with at most 500 million weights in total;
        - `path/to/file.py:function`, a function that returns a network; it is called with `classes=...` if it has that
          parameter;
        - `timm:resnet50`, or `timm:resnet50@a1_in1k` with published weights by timm's tag (with the extra `timm`);
        - `hf:FOLDER`, or `hf:OWNER/NAME` on the Hugging Face hub: an image classifier of transformers with the weights
          stored there (safetensors only), or random ones if there is only a `config.json` (with the extra
          `transformers`).
    classes
        The number of outputs. By default, it is the number of classes of the file `weights`, if one is given and the
        network can be built with that number, and otherwise the network's default: 1000 for torchvision, 10 for
        prunescope, and the number in the configuration for transformers.
    seed
        The seed of the initialisation; PyTorch's global generator is left unchanged. With None, the weights are drawn
        from that generator.
    weights
        A file of weights to load, as `load_weights` reads it. It cannot be combined with published weights, and it
        replaces the weights in a folder of transformers. Files that transformers wrote have other names of weights and
        can only be used in such a folder.
    key, masks
        The key of the weights within the file, and a file of masks to apply to them, as `load_weights` takes them. They
        can only be given together with `weights`.

    Returns
    -------
    nn.Module
        The network in training mode, on the CPU unless the function of a file moves it to another device.

    Raises
    ------
    InputError
        If the name, the classes or the weights cannot be used.

    Examples
    --------
    >>> model = build_network("torchvision:squeezenet1_1", classes=16, seed=0)
    >>> model(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 16])
    """
    if classes is not None and (not is_whole(classes) or not 1 <= classes <= MOST_CLASSES):
        raise InputError(f"a network cannot have {shown(classes)} classes; give at least 1, at most {MOST_CLASSES:,}")
    if seed is not None and (not is_whole(seed) or not 0 <= seed <= MOST_SEED):
        raise InputError(f"seed {shown(seed)} cannot be used; give a whole number from 0 to 2^63 - 1")
    if weights is None and not (key is None and masks is None):
        raise InputError(
            "a key of weights (--weights-key) and masks (--masks) belong to a file of weights; give it with --weights "
            "(weights=FILE in Python)"
        )
    make = _maker(name, classes, own_weights=weights is None)
    if weights is None:
        model = _initialised(make, classes, seed)
        remember_preprocessing(model, preprocessing_of(name))
        if not _may_load_weights(name):
            remember_random(model, seed)
        return model
    if name.startswith(("torchvision:", "timm:")) and "@" in name:
        raise InputError(
            f"{name} names published weights, but {weights} is given too; give {name.partition('@')[0]} "
            "with the file, or leave out the file"
        )
    checkpoint = read_checkpoint(weights, key=key, masks=masks)
    model = _initialised(make, classes, seed)
    trained_for = classes_in(model, checkpoint.tensors, weights) if classes is None else None
    if trained_for is not None:
        model = _initialised(make, trained_for, seed)
    fit_weights(model, checkpoint.tensors, weights, checkpoint.masks)
    remember_preprocessing(model, preprocessing_of(name))
    return model


def build_untrained(name: str, *, classes: int | None = None, seed: int | None = None) -> nn.Module:
    """Build the network that a name denotes with random weights, without the published weights that the name includes.

    Parameters
    ----------
    name, classes, seed
        As in `build_network`. A function in a file is called as it is, so that the network has the weights that the
        function gives it.

    Returns
    -------
    nn.Module
        The network in training mode. It is not marked as having random weights by accident.

    Raises
    ------
    InputError
        If the name or the classes cannot be used.

    Examples
    --------
    >>> type(build_untrained("torchvision:squeezenet1_1@DEFAULT", seed=0)).__name__
    'SqueezeNet'
    """
    if name.startswith(("torchvision:", "timm:")):
        name = name.partition("@")[0]
    return _initialised(_maker(name, classes, own_weights=False), classes, seed)


def default_layers(name: str) -> tuple[str, ...]:
    """Return the layers of a network that are dissected by default.

    These are the layers for which dissections have been published (Bau et al. 2017, section 3, and its published
    tables; Zhou et al. 2018 for DenseNet-161 and ResNet-18; Bau et al. 2020 for VGG-16): the last layer with spatial
    maps, and for AlexNet all five convolutions. The layers of AlexNet and VGG-16 are taken after the activation
    function, as in the publications, because Caffe applies it in place. A ResNet's block and GoogLeNet's module end in
    an activation function. DenseNet-161's `features` end in a normalisation, as published.

    Parameters
    ----------
    name
        The network's name, as `build_network` takes it.

    Returns
    -------
    tuple of str
        The names of the layers. For `prunescope:` networks, this is the last stage.

    Raises
    ------
    InputError
        If no layers were published for the network, so that layers must be given.

    Examples
    --------
    >>> default_layers("torchvision:resnet50@IMAGENET1K_V2")
    ('layer4',)
    """
    kind, _, rest = name.partition(":")
    if kind == "prunescope":
        _depth_and_width(rest)
        return ("stage3",)
    layers = _PUBLISHED_LAYERS.get(rest.partition("@")[0]) if kind == "torchvision" else None
    if layers is None:
        raise InputError(
            f"no layers of {name} are dissected by default; give some (`prunescope layers {name}` lists them)"
        )
    return layers


def _may_load_weights(name: str) -> bool:
    """Return whether building a network may load weights; this is assumed of every function of the user."""
    kind, _, rest = name.partition(":")
    if kind in ("torchvision", "timm"):
        return "@" in rest
    return has_weights(rest) if kind == "hf" else kind != "prunescope"


def _maker(name: str, classes: int | None, *, own_weights: bool) -> Callable[[int | None], nn.Module]:
    """Check a network's name, and return a function that builds the network for a number of classes."""
    kind, _, rest = name.partition(":")
    if kind == "torchvision":
        _check_classes(name, classes, check_classifier(rest))
        return lambda classes: build_classifier(rest, classes)
    if kind == "timm":
        _check_classes(name, classes, check_timm(rest))
        return lambda classes: build_timm(rest, classes)
    if kind == "hf":
        config = read_config(rest, classes, own_weights=own_weights)
        return lambda classes: build_hf(rest, config, classes, own_weights=own_weights)
    if kind == "prunescope":
        depth, width = _depth_and_width(rest)
        return lambda classes: _small_resnet(depth, width, classes)
    file, _, function = name.rpartition(":") if ".py:" in name else (name, "", "")
    if file.endswith(".py"):
        path = expanded(file)
        found = import_function(path, function)
        return lambda classes: uncompiled(call_function(path, found, classes))
    if Path(name).suffix in _OF_WEIGHTS:
        raise InputError(
            f"{name!r} is not the name of a network but looks like a file of weights; give the network's name, and the "
            f"file as its weights (--weights {name})"
        )
    raise InputError(
        f"{name!r} is not the name of a network; expected torchvision:resnet50, torchvision:resnet50@IMAGENET1K_V2, "
        "prunescope:resnet14x32, timm:resnet50, hf:OWNER/NAME, hf:FOLDER or path/to/file.py:function"
    )


def _check_classes(name: str, classes: int | None, published: int | None) -> None:
    if None not in (classes, published) and classes != published:
        raise InputError(
            f"{name} is published for {published} classes, not {classes}: leave out the classes, or the weights "
            f"({name.partition('@')[0]})"
        )


def _depth_and_width(name: str) -> tuple[int, int]:
    match = re.fullmatch(r"resnet(\d{1,9})x(\d{1,9})", name, flags=re.ASCII)
    if match is None:
        raise InputError(
            f"prunescope has no network {name!r}; expected resnet, its depth and its width, "
            "such as prunescope:resnet14x32"
        )
    depth, width = int(match[1]), int(match[2])
    if depth < 8 or (depth - 2) % 6:
        below = max(8, depth - (depth - 2) % 6)
        raise InputError(
            f"prunescope:{name} has depth {depth}, but the depth must be 6n + 2 and at least 8 (three stages of n "
            "blocks with two convolutions each, the stem and the classifier); "
            f"the nearest are resnet{below}x{width} and resnet{below + 6}x{width}"
        )
    if width < 1:
        raise InputError(
            f"prunescope:{name} has width {width}, but the width, the number of units of the first stage, must be at "
            "least 1"
        )
    # Each of the n blocks per stage has two 3 x 3 convolutions, and the stages have 1, 2 and 4 times `width` units.
    weights = (depth - 2) // 6 * 2 * 9 * (1 + 4 + 16) * width**2
    if depth > _MOST_DEPTH or width > _MOST_WIDTH or weights > _MOST_WEIGHTS:
        raise InputError(
            f"prunescope:{name} is too large (depth {depth}, width {width}, about {weights:,} weights): the depth can "
            f"be at most {_MOST_DEPTH:,}, the width at most {_MOST_WIDTH:,} and the number of weights at most "
            f"{_MOST_WEIGHTS:,}; give a smaller depth or width, or a network of your own as path/to/file.py:function"
        )
    return depth, width


def _small_resnet(depth: int, width: int, classes: int | None) -> nn.Module:
    from prunescope.networks.resnet import SmallResNet

    return SmallResNet(depth, width, _DEFAULT_CLASSES if classes is None else classes)


def _initialised(make: Callable[[int | None], nn.Module], classes: int | None, seed: int | None) -> nn.Module:
    with _generator(seed):
        try:
            return make(classes)
        except (MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise InputError("the network's weights do not fit into memory; give a smaller network") from error
            raise


@contextmanager
def _generator(seed: int | None) -> Iterator[None]:
    """Create tensors on the CPU within the context, where a seed gives the same random numbers on every machine."""
    with torch.device("cpu"):
        if seed is None:
            yield
            return
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            yield
