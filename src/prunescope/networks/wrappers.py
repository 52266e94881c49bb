"""Write the Python code of a module that turns one batch of RGB images into what a network takes, for messages."""

from __future__ import annotations

import inspect

from torch import nn

_WRAPPER = """\
    class {name}(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network
        def forward(self, images):  # [n, 3, h, w]
            return self.network({arguments})"""

_IMAGES = ("images", "image", "pixel_values", "img", "imgs", "pixels", "x", "input", "inputs")


def images_only(model: nn.Module) -> str:
    """Return the code of a wrapper for a network that needs more inputs than images.

    Parameters
    ----------
    model
        A network whose forward method requires several inputs.

    Returns
    -------
    str
        The code of a class `ImagesOnly`. The other inputs are given by their names in capitals, which the user defines.
    """
    kinds = inspect.Parameter
    given = [
        parameter
        for parameter in inspect.signature(model.forward).parameters.values()
        if parameter.kind is not kinds.VAR_KEYWORD and parameter.default is kinds.empty
    ]
    names = [parameter.name for parameter in given]
    images = next((name for name in _IMAGES if name in names), names[0])
    arguments = []
    for parameter in given:
        value = "images" if parameter.name == images else parameter.name.upper()
        by_name = parameter.kind is kinds.KEYWORD_ONLY
        arguments.append(f"{parameter.name}={value}" if by_name else value)
    return _WRAPPER.format(name="ImagesOnly", arguments=", ".join(arguments))


def from_rgb(channels: int) -> str:
    """Return the code of a wrapper for a network that takes another number of channels than 3.

    Parameters
    ----------
    channels
        The number of channels that the network takes.

    Returns
    -------
    str
        The code of a class `FromRGB`, which makes each channel a copy of red, green or blue, or, for one channel, takes
        their mean.
    """
    if channels == 1:
        return _WRAPPER.format(name="FromRGB", arguments="images.mean(1, keepdim=True)")
    sources = [channel % 3 for channel in range(channels)] if channels <= 12 else f"torch.arange({channels}) % 3"
    return _WRAPPER.format(name="FromRGB", arguments=f"images[:, {sources}]")
