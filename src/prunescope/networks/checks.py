"""Check that a network can be used, and explain why it fails on a batch of images."""

from __future__ import annotations

import inspect
import math
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from prunescope.bounds import shown
from prunescope.errors import InputError
from prunescope.networks.wrappers import from_rgb, images_only

_ONE_BATCH = "prunescope calls a network with one batch of images, [n, 3, h, w]"
_SHARING = ("DistributedDataParallel", "FullyShardedDataParallel")


def check_network(model: object) -> None:
    """Check that an object is a network with layers that can be observed.

    Parameters
    ----------
    model
        The object to check.

    Raises
    ------
    InputError
        If it is not an `nn.Module` (a network's name, for example), or is a scripted or exported module, or is wrapped
        for several devices.
    """
    if not isinstance(model, nn.Module):
        name = repr(model) if isinstance(model, str) else "NAME"
        raise InputError(
            f"the network is {shown(model)}, expected a torch.nn.Module; prunescope.build_network({name}) builds one"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            "the network is a torch.jit.ScriptModule, whose layers cannot be observed; give the torch.nn.Module that "
            "was scripted or traced"
        )
    if any(kind.__module__.startswith("torch.export.") for kind in type(model).__mro__):
        raise InputError(
            "the network is an exported program, which has one mode and no layers; give the torch.nn.Module that was "
            "exported"
        )
    several = isinstance(model, nn.DataParallel) and len(model.device_ids) > 1
    if several or type(model).__name__ in _SHARING:
        raise InputError(
            f"the network is wrapped in {type(model).__name__}; give the network inside (`.module`): prunescope shares "
            "the work among processes itself"
        )


def check_ready(model: nn.Module) -> None:
    """Check that every parameter and buffer of a network has a shape and values.

    Parameters
    ----------
    model
        The network.

    Raises
    ------
    InputError
        If `check_network` refuses the network, or if a tensor belongs to a lazy module that has not run yet or is on
        the meta device. The message names the tensor.
    """
    check_network(model)
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if is_lazy(tensor):
            raise InputError(f"weight {name!r} has no shape yet; run the network once, or give its modules their sizes")
        refuse_meta(name, tensor)


def refuse_quantised(model: nn.Module) -> None:
    """Raise if a network has quantised modules.

    The weights of such modules are not parameters, so that they can be neither trained nor pruned.

    Parameters
    ----------
    model
        The network.

    Raises
    ------
    InputError
        If a module is quantised. The message names the first one.
    """
    for name, module in model.named_modules():
        if type(module).__module__.startswith("torch.ao.nn.") and ".quantized." in f"{type(module).__module__}.":
            raise InputError(
                f"module {name!r} of the network is quantised ({type(module).__module__}.{type(module).__name__}) and "
                "can be neither trained nor pruned; give the network from before its quantisation"
            )


def refuse_meta(name: str, tensor: Tensor) -> None:
    """Raise if a tensor is on the meta device, where it has a shape but no values.

    Parameters
    ----------
    name
        The tensor's name, for the message.
    tensor
        The tensor.

    Raises
    ------
    InputError
        If the tensor is on the meta device.
    """
    if tensor.is_meta:
        raise InputError(
            f"weight {name!r} is on the meta device and has no values; build the network on the CPU, or load its "
            "weights first"
        )


def uncompiled(model: nn.Module) -> nn.Module:
    """Undo `torch.compile` in a network.

    A compiled network hides its layers and cannot be copied.

    Parameters
    ----------
    model
        The network. It is changed in place.

    Returns
    -------
    nn.Module
        The network, or the original network if `torch.compile` wrapped it.
    """
    model = without_wrapper(model)
    for module in model.modules():
        for name, child in module.named_children():
            if child is not (inside := without_wrapper(child)):
                module.add_module(name, inside)
        module._compiled_call_impl = None
        own = module.__dict__.get("forward")
        if own is not None and hasattr(own, "_torchdynamo_orig_callable"):
            original = inspect.unwrap(own)
            if getattr(original, "__func__", None) is type(module).forward:
                del module.forward
    return model


def without_wrapper(model: nn.Module) -> nn.Module:
    """Return the network inside a `torch.compile` wrapper; return any other network unchanged."""
    while type(model).__name__ == "OptimizedModule":
        model = model.get_submodule("_orig_mod")
    return model


@contextmanager
def running_eagerly(model: nn.Module) -> Iterator[None]:
    """Run a compiled network without compilation within the context; other networks are not affected."""
    compiled = any(
        module._compiled_call_impl is not None
        or type(module).__name__ == "OptimizedModule"
        or hasattr(module.__dict__.get("forward"), "_torchdynamo_orig_callable")
        for module in model.modules()
    )
    if not compiled:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def explain_failures(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Turn errors of a network's forward pass into an `InputError` that explains why it cannot take the images.

    Parameters
    ----------
    model
        The network.
    images
        The images that it runs on, [n, 3, h, w].

    Raises
    ------
    InputError
        If the code within the context raises an exception. An `InputError` is passed on unchanged.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        network = f"the network {type(model).__name__} cannot take images"
        reason = _reason(model, images, error)
        if reason is not None:
            raise InputError(f"{network}: {reason}") from error
        raise InputError(
            f"{network} of {images.shape[2]} x {images.shape[3]} pixels "
            f"({type(error).__name__}: {(str(error).splitlines() or [''])[0]}); give another size"
        ) from error


def _reason(model: nn.Module, images: Tensor, error: Exception) -> str | None:
    """Find a reason for a failed forward pass other than the size of the images; return None if there is none."""
    said = str(error)
    needed = _needed(model)
    if needed != 1:
        return (
            f"its forward needs {needed} inputs; {_ONE_BATCH}. Wrap it in a module that takes only images, where names "
            "in capitals stand for the other inputs for a batch, and name its layers network.LAYER:\n"
            f"{images_only(model)}"
        )
    if isinstance(error, IndexError | TypeError) and re.search(r"""\[["']\w+["']\]""", _last_line(error)):
        return f"it accesses parts of its input by name, as in a dictionary; {_ONE_BATCH}"
    if isinstance(error, AttributeError) and said.startswith("'Tensor' object has no attribute"):
        return f"it uses its input as something other than a tensor ({said}); {_ONE_BATCH}"
    if isinstance(error, ValueError) and said.startswith(("not enough values to unpack", "too many values to unpack")):
        return f"it uses its input as a tensor of another number of dimensions ({said}); {_ONE_BATCH}"
    devices = sorted({str(parameter.device) for parameter in model.parameters()})
    if len(devices) > 1 and "device" in said:
        return f"its parameters are on several devices ({', '.join(devices)}); move it to one, `model.to('cpu')`"
    if "type" in said:
        for name, weight in model.named_parameters():
            if weight.is_floating_point() and weight.dtype != images.dtype:
                return (
                    f"these are {images.dtype}, and its weight {name!r} is {weight.dtype}; let its function return "
                    "`model.float()`"
                )
    return _reason_of_module(model, images, error)


def _reason_of_module(model: nn.Module, images: Tensor, error: Exception) -> str | None:
    """Find the module that failed, and return why it cannot take its input; return None if no reason is found."""
    found = failed_module(error)
    if found is None:
        return None
    module, given = found
    name = next((name for name, other in model.named_modules() if other is module), "")
    what = f"its module {name!r} is a {type(module).__name__}"
    as_they_are = given.shape == images.shape
    if isinstance(module, _ConvNd) and as_they_are:
        if len(module.kernel_size) != 2:
            return (
                f"{what}, which takes {'series' if len(module.kernel_size) == 1 else 'videos or volumes'}; {_ONE_BATCH}"
            )
        if module.in_channels != images.shape[1]:
            count = f"{module.in_channels} channel{'s' if module.in_channels > 1 else ''}"
            return (
                f"its first convolution, {name!r}, takes {count}, and images have {images.shape[1]}; "
                f"{_other_channels(module.in_channels, images.shape[1])}"
            )
    if isinstance(module, nn.Embedding) and as_they_are:
        return f"{what}, which takes indices of tokens; {_ONE_BATCH}"
    if isinstance(module, nn.Linear):
        features = module.in_features
        if as_they_are:
            return f"{what} of {features} features, but is called with the images unchanged; flatten them first"
        if given.shape[1:] == (images[0].numel(),):
            for channels in (3, 1, 4):
                side = math.isqrt(features // channels)
                if channels * side * side == features:
                    least = f"{channels} channel{'s' if channels > 1 else ''}"
                    return f"{what} of {features} features, which fits an image of {least} and {side} x {side} pixels"
    return None


def _other_channels(taken: int, given: int) -> str:
    """Return what to do about a network that takes another number of channels than the images have."""
    if taken == 3 and given == 1:
        return "leave out the number of channels, or give 3"
    return (
        "wrap it in a module that makes its channels from an RGB image, and name its layers network.LAYER. This one "
        f"{'takes their mean' if taken == 1 else 'repeats red, green and blue'}:\n{from_rgb(taken)}"
    )


def _last_line(error: Exception) -> str:
    """Return the source line that raised an error."""
    frames = traceback.extract_tb(error.__traceback__)
    return (frames[-1].line or "") if frames else ""


def _needed(model: nn.Module) -> int:
    """Return the number of inputs that a network's forward method requires."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return 1
    kinds = inspect.Parameter
    if any(given.kind is kinds.VAR_POSITIONAL for given in parameters):
        return 1
    positional = [given for given in parameters if given.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    needed = sum(given.default is kinds.empty for given in positional)
    by_name = sum(given.kind is kinds.KEYWORD_ONLY and given.default is kinds.empty for given in parameters)
    return by_name + (max(1, needed) if positional else 0)


def failed_module(error: Exception) -> tuple[nn.Module, Tensor] | None:
    """Find the module in which a forward pass failed.

    Parameters
    ----------
    error
        The error that the forward pass raised.

    Returns
    -------
    tuple of nn.Module and Tensor, or None
        The innermost module that was running when the error was raised, and its input; None if there is none.
    """
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        there = frame.f_locals
        module, given = there.get("self"), there.get("input")
        if isinstance(module, nn.Module) and isinstance(given, Tensor):
            found = module, given
    return found
