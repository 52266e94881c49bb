"""Networks get the channels they take, or a message with a wrapper that works."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from prunescope.errors import InputError
from prunescope.networks import list_layers
from prunescope.networks.checks import explain_failures
from prunescope.networks.geometry import receptive_fields
from prunescope.networks.running import image_channels
from prunescope.networks.wrappers import images_only


def gray(channels: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


class Late(nn.Module):
    """Its modules are registered in another order than that in which they are called."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.second, self.first = nn.Conv2d(1, 4, 1), nn.Conv2d(channels, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(images))


@pytest.mark.parametrize(
    ("model", "channels"),
    [(gray(), 1), (gray(3), 3), (gray(4), 3), (Late(3), 3), (Late(1), 1), (nn.Flatten(), 3), (gray().half(), 1)],
)
def test_the_channels_of_the_images_are_those_of_the_convolution_that_is_given_them(
    model: nn.Module, channels: int
) -> None:
    model.train()
    assert image_channels(model, (16, 16)) == channels
    assert all(module.training for module in model.modules())


def test_layers_and_receptive_fields_of_a_network_for_gray_images_are_found() -> None:
    assert list_layers(gray(), 16)["shape"].tolist()[0] == (8, 14, 14)
    assert receptive_fields(gray(), ["0"], (16, 24))["0"].stride == (1, 1)
    fully_connected = nn.Sequential(nn.Flatten(2), nn.Linear(256, 4), nn.Flatten())
    assert list_layers(fully_connected, 16, channels=1)["units"].tolist()[-1] == 4


def code_of(said: str) -> str:
    """Return the Python code in a message."""
    lines = said.splitlines()
    start = next(i for i, line in enumerate(lines) if line.strip().startswith("class "))
    return "import torch\n" + "\n".join(line[4:] for line in lines[start:])


@pytest.mark.parametrize("channels", [1, 2, 4, 6, 13])
def test_the_wrapper_for_other_channels_works(channels: int) -> None:
    model, images = gray(channels), torch.rand(2, 3, 16, 16)
    said = rf"takes {channels} channels?, and images have 3; wrap it"
    with pytest.raises(InputError, match=said) as error, explain_failures(model, images):
        model(images)
    names: dict[str, type[nn.Module]] = {}
    exec(code_of(str(error.value)), names)
    wrapped = names["FromRGB"](model)
    assert wrapped(images).shape == (2, 3)
    assert "network.0" in list_layers(wrapped, 16)["layer"].tolist()


class Several(nn.Module):
    """A network that takes a question and, by name, a mask with its images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, question: Tensor, images: Tensor, *, mask: Tensor, temperature: float = 1.0) -> Tensor:
        return self.conv(images * mask) / temperature + question.view(-1, 1, 1, 1)


def test_the_wrapper_for_several_inputs_works() -> None:
    model, images = Several(), torch.rand(2, 3, 16, 16)
    with (
        pytest.raises(InputError, match=r"its forward needs 3 inputs; .*Wrap it") as error,
        explain_failures(model, images),
    ):
        model(images)
    names = {"QUESTION": torch.ones(1), "MASK": torch.ones(1, 1, 16, 16)}
    exec(code_of(str(error.value)), names)  # type: ignore[arg-type]
    wrapped = names["ImagesOnly"](model)
    assert torch.equal(wrapped(images), model(torch.ones(1), images, mask=torch.ones(1)))
    assert "network.conv" in list_layers(wrapped, 16)["layer"].tolist()
    assert "self.network(QUESTION, images, mask=MASK)" in images_only(model)
