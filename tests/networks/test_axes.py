from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from prunescope.errors import InputError
from prunescope.networks.geometry import receptive_fields
from prunescope.networks.layers import list_layers, units_axes
from prunescope.networks.observing import observe

SIZE = 32


class Block(nn.Module):
    """Puts out whatever a function makes of maps [n, units, h, w], and leaves no hint but that."""

    def __init__(self, make: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.make = make

    def forward(self, maps: Tensor) -> Any:
        return self.make(maps)


class Network(nn.Module):
    """Convolves without a module that puts out maps, so that no neighbour of the block gives its axes away.

    Parameters
    ----------
    units, stride
        Of the convolution.
    make
        What the block makes of its maps.
    one_size
        Whether the network takes images of 32 x 32 pixels only.
    """

    def __init__(
        self, units: int, stride: tuple[int, int], make: Callable[[Tensor], Any], *, one_size: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(units, 3, 3, 3))
        self.place = nn.Parameter(torch.zeros(3, SIZE, SIZE)) if one_size else None
        self.stride, self.block = stride, Block(make)

    def maps(self, images: Tensor) -> Tensor:
        images = images if self.place is None else images + self.place
        return torch.conv2d(images, self.weight, padding=1, stride=self.stride)

    def forward(self, images: Tensor) -> Any:
        return self.block(self.maps(images))


def first(maps: Tensor) -> Tensor:
    return maps.contiguous()


def last(maps: Tensor) -> Tensor:
    return maps.permute(0, 2, 3, 1).contiguous()


def between(maps: Tensor) -> Tensor:
    return maps.permute(0, 2, 1, 3).contiguous()


def tokens_first(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2).contiguous()


def tokens_last(maps: Tensor) -> Tensor:
    return maps.flatten(2)


def blocks_maps(model: nn.Module, **given: Any) -> Tensor:
    images = torch.randn(2, 3, SIZE, SIZE)
    axes = units_axes(model, ["block"], (SIZE, SIZE), **given)
    with torch.no_grad(), observe(model.eval(), ["block"], axes) as outputs:
        model(images)
    return outputs["block"]


def row(table: pd.DataFrame, layer: str = "block") -> dict[str, Any]:
    return table.set_index("layer").loc[layer].to_dict()


@pytest.mark.parametrize("make", [first, last, between, tokens_first, tokens_last], ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    ("units", "stride"),
    [(32, (1, 2)), (32, (2, 1)), (16, (1, 2)), (16, (2, 1)), (16, (2, 2)), (64, (4, 4)), (8, (4, 4)), (1, (2, 2))],
)
def test_units_are_those_of_the_convolution_whatever_else_is_as_long(
    units: int, stride: tuple[int, int], make: Callable[[Tensor], Tensor]
) -> None:
    model = Network(units, stride, make)
    images = torch.randn(2, 3, SIZE, SIZE)
    # Tokens have to form a grid of the image's proportions.
    if stride[0] != stride[1] and make in (tokens_first, tokens_last):
        pytest.skip("no grid")
    axes = units_axes(model, ["block"], (SIZE, SIZE))
    with torch.no_grad(), observe(model, ["block"], axes) as outputs:
        model(images)
        assert torch.equal(outputs["block"], model.maps(images))
    listed = row(list_layers(model, SIZE))
    assert (listed["shape"], listed["units"], listed["note"]) == (tuple(outputs["block"].shape[1:]), units, "")


@pytest.mark.parametrize(
    "make",
    [
        lambda maps: (last(maps), 3),
        lambda maps: [None, last(maps)],
        lambda maps: {"maps": last(maps), "pooled": maps.mean((2, 3))},
    ],
)
def test_units_are_found_in_a_structure_too(make: Callable[[Tensor], Any]) -> None:
    model = Network(32, (1, 2), make)
    assert blocks_maps(model).shape == (2, 32, 32, 16)
    assert row(list_layers(model, SIZE))["units"] == 32


def test_a_pooled_axis_is_told_from_the_units() -> None:
    model = Network(8, (1, 2), lambda maps: maps.mean(2, keepdim=True).permute(0, 2, 3, 1).contiguous())
    assert blocks_maps(model).shape == (2, 8, 1, 16)


@pytest.mark.parametrize("permute", [(0, 1, 2, 3), (0, 2, 3, 1)])
def test_a_network_that_needs_square_images_is_measured_with_larger_ones(permute: tuple[int, ...]) -> None:
    def square_only(maps: Tensor) -> Tensor:
        if maps.shape[2] != 2 * maps.shape[3]:
            raise ValueError("square images only")
        return maps.permute(permute).contiguous()

    assert blocks_maps(Network(32, (1, 2), square_only)).shape == (2, 32, 32, 16)


def test_layers_before_a_head_that_takes_one_size_are_measured() -> None:
    body = Network(32, (1, 2), first)
    model = nn.Sequential(body, nn.Flatten(), nn.Linear(32 * 32 * 16, 3))
    assert row(list_layers(model, SIZE), "0.block")["shape"] == (32, 32, 16)


def test_one_position_has_all_axes_but_the_units_of_one_cell() -> None:
    for make in (first, last):
        model = Network(16, (1, 1), lambda maps, make=make: make(maps.mean((2, 3), keepdim=True)), one_size=True)
        assert blocks_maps(model).shape == (2, 16, 1, 1)


@pytest.mark.parametrize(
    ("units", "stride", "make"),
    [
        (32, (1, 2), first),
        (16, (2, 1), last),
        (16, (2, 2), first),
        (16, (2, 2), last),
        (64, (4, 4), last),
        (64, (4, 4), tokens_first),
        (64, (4, 4), tokens_last),
        (16, (4, 4), tokens_first),
        (16, (4, 4), tokens_last),
    ],
)
def test_axes_that_leave_no_trace_are_refused_until_they_are_given(
    units: int, stride: tuple[int, int], make: Callable[[Tensor], Tensor]
) -> None:
    model = Network(units, stride, make, one_size=True)
    message = r"'block' returns \[n, .* 32 x 32.* images of this size only; give --units-axis block=1 .*block=-1"
    with pytest.raises(InputError, match=message):
        units_axes(model, ["block"], (SIZE, SIZE))
    listed = row(list_layers(model, SIZE))
    assert pd.isna(listed["units"])
    assert "--units-axis block=1" in listed["note"]
    axis = 1 if make in (first, tokens_last) else -1
    for given in (axis, {"block": axis}):
        assert blocks_maps(model, units_axis=given).shape[1] == units
        assert row(list_layers(model, SIZE, units_axis={"block": axis}))["units"] == units


def test_without_a_trace_maps_of_the_images_proportions_have_their_units_first() -> None:
    model = Network(64, (4, 4), first, one_size=True)
    assert units_axes(model, ["block"], (SIZE, SIZE)) == {"block": 1}


def test_an_axis_that_is_given_for_one_layer_leaves_the_others_measured() -> None:
    model = nn.ModuleDict({"a": Network(32, (1, 2), first, one_size=True), "b": Network(32, (1, 2), last)})
    model.forward = lambda images: (model["b"](images), model["a"](images))  # type: ignore[method-assign]
    axes = units_axes(model, ["a.block", "b.block"], (SIZE, SIZE), {"a.block": 1})
    assert axes == {"a.block": 1, "b.block": 3}


@pytest.mark.parametrize("axis", [0, 4, -4, True, 1.0, "1", None])
def test_what_is_no_axis_is_refused(axis: Any) -> None:
    with pytest.raises(InputError, match=r"units_axis of layer 'block' is .*expected 1, 2 or 3"):
        units_axes(Network(8, (1, 1), first), ["block"], (SIZE, SIZE), {"block": axis})


def test_an_axis_of_an_unknown_layer_names_the_nearest() -> None:
    model = Network(8, (1, 1), first)
    with pytest.raises(InputError, match=r"units_axis names 'blok'.*nearest are: block"):
        units_axes(model, ["block"], (SIZE, SIZE), {"blok": 1})
    with pytest.raises(InputError, match=r"units_axis names 'blok'.*nearest are: block"):
        list_layers(model, SIZE, units_axis={"blok": 1})


def test_an_axis_that_the_output_does_not_have_is_refused() -> None:
    model = Network(8, (4, 4), tokens_first)
    with pytest.raises(InputError, match=r"shape \[2, 64, 8\] .* with its units on axis 3"):
        blocks_maps(model, units_axis=3)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [("norm", (16, 16, 16)), ("norm.1", (16, 16, 16)), ("mlp", (16, 16, 16)), ("mlp.1", (16, 16, 16))],
)
def test_neighbours_tell_the_axes_of_a_network_that_takes_one_size(layer: str, shape: tuple[int, ...]) -> None:
    parts: dict[str, nn.Module] = {
        "norm": nn.Sequential(nn.BatchNorm2d(16), nn.Identity()),
        "mlp": nn.Sequential(nn.Linear(16, 16), nn.Identity()),
    }
    kept = parts["norm" if layer.startswith("norm") else "mlp"]
    make = first if layer.startswith("norm") else last
    model = nn.Sequential(Network(16, (2, 2), make, one_size=True), kept)
    name = layer.replace("norm", "1").replace("mlp", "1")
    assert row(list_layers(model, SIZE), name)["shape"] == shape


def test_neighbours_of_one_shape_with_units_on_different_axes_tell_nothing() -> None:
    body = Network(16, (2, 2), first, one_size=True)
    model = nn.Sequential(body, nn.BatchNorm2d(16), Block(last), nn.Linear(16, 16), nn.Identity())
    with pytest.raises(InputError, match=r"'4' .*the same shape with their units on different axes"):
        units_axes(model, ["4"], (SIZE, SIZE))
    assert units_axes(model, ["1", "3"], (SIZE, SIZE)) == {"1": 1, "3": 3}


@pytest.mark.parametrize(("size", "patch"), [(32, 4), (32, 8)])
def test_where_linear_modules_mix_tokens_too_the_axes_are_asked_for(size: int, patch: int) -> None:
    tokens = (size // patch) ** 2
    units = 4 if tokens == 64 else 64

    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = Network(units, (patch, patch), tokens_first, one_size=True)
            self.norm = nn.LayerNorm(units)
            self.mix = nn.Linear(tokens, tokens)

        def forward(self, images: Tensor) -> Tensor:
            return self.mix(self.norm(self.embed(images)).transpose(1, 2).contiguous())

    with pytest.raises(InputError, match="linear modules mix both axes"):
        units_axes(Mixer(), ["mix"], (size, size))


def test_the_order_in_memory_tells_what_was_turned_around() -> None:
    seen = Network(16, (2, 2), lambda maps: maps.permute(0, 2, 3, 1), one_size=True)
    back = Network(16, (2, 2), lambda maps: last(maps).permute(0, 3, 1, 2), one_size=True)
    assert units_axes(seen, ["block"], (SIZE, SIZE)) == {"block": 3}
    assert units_axes(back, ["block"], (SIZE, SIZE)) == {"block": 1}


def test_maps_whose_rows_and_columns_are_swapped_are_refused() -> None:
    model = Network(8, (1, 2), lambda maps: maps.transpose(2, 3))
    with pytest.raises(InputError, match=r"rows run along the images' width .* let it return \[n, units, h, w\]"):
        units_axes(model, ["block"], (SIZE, SIZE))


@pytest.mark.parametrize(
    "make",
    [
        lambda maps: tokens_first(maps) @ tokens_last(maps),
        lambda maps: tokens_first(maps).unflatten(2, (2, -1)).transpose(1, 2),
        lambda maps: maps.unfold(2, 2, 2).unfold(3, 2, 2).permute(2, 3, 0, 1, 4, 5).flatten(0, 2),
    ],
    ids=["attention", "heads", "windows"],
)
def test_what_has_no_axis_of_units_is_not_listed(make: Callable[[Tensor], Tensor]) -> None:
    assert list_layers(Network(8, (4, 4), make), SIZE).empty


def test_a_measurement_leaves_random_numbers_and_the_network_alone() -> None:
    model = Network(8, (1, 2), lambda maps: nn.functional.dropout(maps, training=True)).train()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    units_axes(model, ["block"], (SIZE, SIZE))
    assert torch.equal(torch.rand(3), expected)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_receptive_fields_are_measured_with_the_axis_that_was_found() -> None:
    found = [receptive_fields(Network(32, (1, 2), make), ["block"], (SIZE, SIZE)) for make in (first, last, between)]
    assert found[0] == found[1] == found[2]
    assert found[0]["block"].stride == (1, 2)
