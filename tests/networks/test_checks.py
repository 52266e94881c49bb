"""Networks that were wrapped or compiled, and why one cannot take images, from Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from prunescope.errors import InputError
from prunescope.networks import list_layers
from prunescope.networks.checks import check_network, explain_failures, uncompiled


class Plain(nn.Sequential):
    """PyTorch does not compile what a container of its own does."""

    def forward(self, images: Tensor) -> Tensor:
        for module in self:
            images = module(images)
        return images


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return Plain(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_compiler")
def test_layers_of_a_compiled_network_are_those_of_the_network_inside_and_it_stays_compiled() -> None:
    listed = list_layers(plain(), 16)
    runs: list[int] = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., object]:
        def run(*inputs: Tensor) -> object:
            runs.append(1)
            return graph(*inputs)

        return run

    wrapped = torch.compile(plain(), backend=backend)
    in_place = plain()
    in_place.compile(backend=backend)
    for network in (wrapped, in_place):
        assert list_layers(network, 16).equals(listed)
        assert not runs
        network(torch.zeros(1, 3, 16, 16))
        assert runs
        runs.clear()


@pytest.mark.usefixtures("fresh_compiler")
def test_what_was_compiled_within_a_network_is_undone() -> None:
    network = plain()
    images = torch.rand(2, 3, 16, 16)
    expected = network(images)
    network[0] = torch.compile(network[0], backend="eager")
    network[4].compile(backend="eager")
    network.forward = torch.compile(network.forward, backend="eager")  # type: ignore[method-assign]
    found = uncompiled(torch.compile(network, backend="eager"))
    assert found is network
    assert [type(module).__name__ for module in found.children()] == [type(module).__name__ for module in plain()]
    assert "forward" not in vars(found)
    assert torch.equal(found(images), expected)


def test_a_wrapper_for_several_devices_is_refused_and_one_for_none_is_not() -> None:
    network = nn.DataParallel(plain())
    check_network(network)
    network.device_ids = [0, 1]
    with pytest.raises(InputError, match=r"wrapped in DataParallel; give the network inside \(`\.module`\)"):
        check_network(network)


def test_scripted_modules_within_a_network_are_left_out_of_the_list() -> None:
    network = plain()
    network[1] = torch.jit.script(network[1])
    assert list_layers(network, 16)["layer"].tolist() == ["0", "2", "3", "4"]


class Network(nn.Module):
    def __init__(self, call: Callable[[nn.Module, Tensor], object]) -> None:
        super().__init__()
        self.call = call
        self.conv, self.series, self.words = nn.Conv2d(3, 4, 3), nn.Conv1d(3, 4, 3), nn.Embedding(9, 4)
        self.fc = nn.Linear(32, 3)

    def forward(self, images: Tensor) -> object:
        return self.call(self, images)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda net, x: net.series(x), "its module 'series' is a Conv1d, which takes series"),
        (lambda net, x: net.words(x), "its module 'words' is a Embedding, which takes indices of tokens"),
        (lambda net, x: net.fc(x.flatten(2)), r"of 16 x 16 pixels \(RuntimeError: .*give another size"),
        (lambda _, x: nn.Linear(30, 3)(x), "30 features, but is called with the images unchanged"),
        (lambda _, x: x.pixel_values, r"uses its input as something other than a tensor \('Tensor' object has no"),
        (lambda _, x: x @ torch.zeros(16, 2, dtype=torch.float64), r"of 16 x 16 pixels \(RuntimeError"),
        (lambda net, x: net.fc(net.conv(x).flatten(1)), r"of 16 x 16 pixels \(RuntimeError: .*give another size"),
    ],
)
def test_the_message_says_what_is_wrong_and_advises_another_size_only_where_nothing_else_is_known(
    call: Callable[[nn.Module, Tensor], object], said: str
) -> None:
    network, images = Network(call), torch.rand(2, 3, 16, 16)
    with pytest.raises(InputError, match=said), explain_failures(network, images):
        network(images)
