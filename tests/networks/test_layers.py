from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from prunescope.errors import InputError
from prunescope.networks.layers import list_layers, units_axes
from prunescope.networks.observing import check_layers, observe
from prunescope.networks.running import evaluating
from prunescope.networks.source import build_network


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_the_list_has_each_layer_with_its_shape_and_units(network: nn.Module) -> None:
    table = list_layers(network, size=16)
    assert list(table.itertuples(index=False, name=None)) == [
        ("conv", "Conv2d", (4, 16, 16), 4, ""),
        ("bn", "BatchNorm2d", (4, 16, 16), 4, ""),
        ("body", "Sequential", (6, 8, 8), 6, ""),
        ("body.0", "Conv2d", (6, 16, 16), 6, ""),
        ("body.1", "MaxPool2d", (6, 8, 8), 6, ""),
        ("tokens", "Flatten", (6, 8, 8), 6, ""),
        ("fc", "Linear", (5,), 5, ""),
    ]


def test_listing_leaves_the_network_as_it_was(network: nn.Module) -> None:
    network.train()
    network.bn.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    list_layers(network, size=16)
    assert network.training
    assert not network.bn.training
    assert hooks(network) == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_every_listed_layer_can_be_observed_with_the_listed_shape() -> None:
    model = build_network("torchvision:resnet18", classes=4, seed=0).eval()
    table = list_layers(model, size=64)
    assert {"layer4", "layer4.1.bn2", "fc"} <= set(table.layer)
    axes = units_axes(model, list(table.layer), (64, 64))
    with observe(model, list(table.layer), axes) as outputs, torch.no_grad():
        model(torch.zeros(3, 3, 64, 64))
    assert {name: tuple(output.shape[1:]) for name, output in outputs.items()} == dict(
        zip(table.layer, table["shape"], strict=True)
    )


def test_a_size_that_the_network_cannot_take_is_an_input_error() -> None:
    model = build_network("torchvision:alexnet", classes=2, seed=0)
    with pytest.raises(InputError, match="AlexNet cannot take images of 8 x 8 pixels"):
        list_layers(model, size=8)
    assert hooks(model) == 0
    assert model.training


def test_a_misspelt_layer_names_the_nearest() -> None:
    model = build_network("torchvision:resnet18", classes=4, seed=0)
    with pytest.raises(InputError, match=r"ResNet has no layer 'layer5'; the nearest are: layer4"):
        check_layers(model, ["layer4", "layer5"])
    with pytest.raises(InputError, match=r"has no layer 'module.layer4'; the nearest are: .*layer4"):
        check_layers(model, ["module.layer4"])


@pytest.mark.parametrize(
    ("layers", "message"), [([], "no layer is given"), (["fc", "fc"], "given 2 times"), ("fc", r"a list, \['fc'\]")]
)
def test_no_layer_one_twice_or_a_bare_name_is_refused(network: nn.Module, layers: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_layers(network, layers)


def test_observing_gives_what_the_layer_put_out_even_if_it_is_overwritten_later(network: nn.Module) -> None:
    images = torch.randn(2, 3, 16, 16)
    with observe(network.eval(), ["bn", "fc"], {"bn": 1, "fc": 1}) as outputs:
        scores = network(images)
    assert torch.equal(outputs["fc"], scores)
    assert torch.equal(outputs["bn"], network.bn(network.conv(images)))
    assert outputs["bn"].min() < 0
    assert not outputs["bn"].requires_grad


def test_outputs_are_handed_over_as_they_are_before_later_layers_write_over_them(network: nn.Module) -> None:
    images, taken, copies = torch.randn(2, 3, 16, 16), {}, {}

    def take(layer: str, output: Tensor) -> None:
        taken[layer], copies[layer] = output, output.clone()

    with observe(network.eval(), ["bn", "fc"], {"bn": 1, "fc": 1}, take) as outputs:
        network(images)
    assert outputs == {}
    assert not taken["bn"].requires_grad
    assert torch.equal(copies["bn"], network.bn(network.conv(images)))
    assert taken["bn"].min() == 0


def test_a_layer_called_twice_is_handed_over_once_and_refused(network: nn.Module) -> None:
    taken: list[str] = []
    observing = observe(network, ["relu"], {"relu": 1}, lambda layer, _: taken.append(layer))
    with pytest.raises(InputError, match="'relu' is called 2 times"), observing:
        network(torch.zeros(2, 3, 16, 16))
    assert taken == ["relu"]


def test_each_forward_pass_replaces_the_outputs(network: nn.Module) -> None:
    with observe(network.eval(), ["conv"], {"conv": 1}) as outputs, torch.inference_mode():
        network(torch.zeros(4, 3, 16, 16))
        network(torch.ones(1, 3, 8, 8))
        assert outputs["conv"].shape == (1, 4, 8, 8)
    assert hooks(network) == 0


def test_nothing_is_left_behind_after_an_error(network: nn.Module) -> None:
    with pytest.raises(ZeroDivisionError), observe(network, ["conv", "body"], {"conv": 1, "body": 1}):
        raise ZeroDivisionError
    assert hooks(network) == 0
    with pytest.raises(RuntimeError, match="channels"), observe(network, ["conv"], {"conv": 1}):
        network(torch.zeros(1, 5, 8, 8))
    assert hooks(network) == 0


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("relu", r"'relu' is called 2 times in one forward pass"),
        ("spare", r"'spare' is not called when the network runs"),
    ],
)
def test_a_layer_that_has_no_units_is_refused(network: nn.Module, layer: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        units_axes(network, [layer, "conv"], (16, 16))
    observing = observe(network, [layer, "conv"], {layer: 1, "conv": 1})
    with pytest.raises(InputError, match=message), observing:
        network(torch.zeros(2, 3, 16, 16))
    assert hooks(network) == 0


class Strange(nn.Module):
    def __init__(self, made: object) -> None:
        super().__init__()
        self.inner = nn.Identity()
        self.inner.forward = lambda x: made(x)  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        self.inner(x)
        return x


def test_a_layer_that_returns_no_maps_is_refused_with_the_shapes_and_not_listed() -> None:
    model = Strange(lambda x: {"a": x.flatten(), "more": (None, x[0])})
    with (
        pytest.raises(
            InputError, match=r"returns a dict of a \[384\], more\.1 \[3, 8, 8\] for images .* expected a ten"
        ),
        observe(model, ["inner"], {"inner": 1}),
    ):
        model(torch.zeros(2, 3, 8, 8))
    assert list_layers(model, size=8).empty


def test_a_layer_whose_output_does_not_begin_with_the_images_is_refused_and_not_listed() -> None:
    model = Strange(lambda x: x.reshape(-1, 3, 4, 4))
    with pytest.raises(InputError, match=r"shape \[8, 3, 4, 4\] for images"), observe(model, ["inner"], {}):
        model(torch.zeros(2, 3, 8, 8))
    assert list_layers(model, size=8).empty


def test_a_layer_that_keeps_its_units_last_is_listed_and_observed_with_its_units_first() -> None:
    model = Strange(lambda x: x.permute(0, 2, 3, 1))
    images = torch.randn(2, 3, 8, 8)
    with observe(model, ["inner"], units_axes(model, ["inner"], (8, 8))) as outputs:
        model(images)
    assert torch.equal(outputs["inner"], images)
    assert list(list_layers(model, size=8)["shape"]) == [(3, 8, 8)]


def test_images_may_be_given_by_name(network: nn.Module) -> None:
    with observe(network, ["conv"], {"conv": 1}) as outputs:
        network(x=torch.zeros(2, 3, 8, 8))
    assert outputs["conv"].shape == (2, 4, 8, 8)


def test_images_need_not_be_square(network: nn.Module) -> None:
    with observe(network, ["conv"], units_axes(network, ["conv"], (4, 8))) as outputs:
        network(torch.zeros(2, 3, 4, 8))
    assert outputs["conv"].shape == (2, 4, 4, 8)


def test_modes_come_back_module_by_module_even_after_an_error(network: nn.Module) -> None:
    network.train()
    network.body.eval()
    modes = []
    network.conv.register_forward_pre_hook(lambda *_: modes.append(network.training))
    with pytest.raises(RuntimeError, match="channels"), evaluating(network):
        network(torch.zeros(1, 5, 8, 8))
    assert modes == [False]
    assert network.training
    assert not network.body[0].training


def test_a_convolution_has_its_units_first_whatever_its_shape_looks_like() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, (1, 3), stride=(4, 1)))
    with observe(model, ["0"], units_axes(model, ["0"], (32, 32))) as outputs:
        model(torch.zeros(2, 3, 32, 32))
    assert outputs["0"].shape == (2, 8, 8, 30)
    assert list_layers(model, 32)["units"].tolist() == [8]


class _UsesValues(nn.Module):
    """A network that only real images can pass: a branch depends on values, and a table is kept between images."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 6)
        self.table: torch.Tensor | None = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = self.first(images)
        if self.table is None or self.table.shape != found.shape[2:]:
            self.table = torch.ones(found.shape[2:])
        found = found * self.table
        if float(found.detach().mean()) > 1e6:
            found = found / 2
        return self.second(found.permute(0, 2, 3, 1)).mean((1, 2))


def test_axes_of_a_network_that_uses_the_values_of_its_images():
    model = _UsesValues().eval()

    assert units_axes(model, ["first", "second"], (8, 12)) == {"first": 1, "second": 3}
    assert model.table is not None
    assert model.table.device.type == "cpu"
    assert model(torch.rand(2, 3, 8, 12)).shape == (2, 6)
