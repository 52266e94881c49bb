from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunescope.errors import InputError
from prunescope.networks import build_network, receptive_fields
from prunescope.networks.geometry import Geometry
from tests.reference.geometry import Window, fields

HALF = Fraction(1, 2)

ALEXNET = [Window(11, 4, 2), Window(3, 2), Window(5, 1, 2), Window(3, 2), *[Window(3, 1, 1)] * 3]
VGG16 = [
    window for convolutions in (2, 2, 3, 3, 3) for window in [*[Window(3, 1, 1)] * convolutions, Window(2, 2)]
]  # fmt: skip
RESNET18 = [
    Window(7, 2, 3), Window(3, 2, 1), *[Window(3, 1, 1)] * 4,
    *[Window(3, 2, 1), *[Window(3, 1, 1)] * 3] * 3,
]  # fmt: skip


def square(windows: list[Window]) -> Geometry:
    stride, offset = fields(windows)
    return Geometry((stride, stride), (offset, offset))


def convolution(down: Window, along: Window, before: int, after: int) -> nn.Module:
    return nn.Conv2d(before, after, *zip(down, along, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("network", "layer", "windows"),
    [
        ("torchvision:alexnet", "features.11", ALEXNET),
        ("torchvision:alexnet", "features.12", [*ALEXNET, Window(3, 2)]),
        ("torchvision:vgg16", "features.22", VGG16[:13]),
        ("torchvision:resnet18", "layer4", RESNET18),
        ("torchvision:resnet18", "layer2.0.conv1", RESNET18[:7]),
    ],
)
def test_fields_of_known_networks_follow_from_their_kernels(network: str, layer: str, windows: list[Window]) -> None:
    model = build_network(network, seed=0)
    assert receptive_fields(model, [layer], (224, 224))[layer] == square(windows)


def test_layer4_of_a_resnet50_looks_around_every_32nd_pixel() -> None:
    model = build_network("torchvision:resnet50", seed=0)
    found = receptive_fields(model, ["layer1", "layer4"], (224, 224))
    assert found["layer1"] == Geometry((Fraction(4), Fraction(4)), (HALF, HALF))
    assert found["layer4"] == Geometry((Fraction(32), Fraction(32)), (HALF, HALF))


windows = st.builds(Window, st.integers(1, 5), st.integers(1, 3), st.integers(0, 3), st.integers(1, 2))
ONE = Window(1)
# Strided 1 x 1 and dilated windows leave holes: pixels in the middle of a field that nobody looks at.
STRIDED_ONE = [Window(1, 2), Window(2, 2, 0, 2), Window(2, 1, 1, 2)]
WIDE_STRIDES = [Window(2, 3), Window(1, 3), Window(2, 2, 2, 2), Window(4, 1, 3, 2)]
# A map of one position, past which the last window looks on either side.
PAST_THE_MAP = [Window(1, 3), Window(1, 3), Window(5, 3, 0, 2), Window(2, 1, 1, 2)]
# At the borders, positions that look at padding alone.
WIDE_PADDING = [Window(1, 2, 3), Window(2, 3, 3), Window(3, 1, 3)]
# Fields that take most of an image, which must not be measured on a shorter one: not where the other axis is shorter.
WIDE_FIELDS = [Window(2, 3, 1, 2), Window(3, 3, 0, 2), Window(1, 2), Window(4, 2, 0, 2)]
SMALL_FIELDS = [Window(2, 1, 1), Window(5, 2, 2, 2), Window(5, 1, 1, 2), Window(5, 2, 3, 2)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(windows, windows), min_size=1, max_size=4), st.tuples(*[st.integers(90, 130)] * 2))
@example([(window, ONE) for window in STRIDED_ONE], (90, 90))
@example([(ONE, window) for window in STRIDED_ONE], (91, 117))
@example([(window, window) for window in STRIDED_ONE], (90, 90))
@example([(window, window) for window in WIDE_STRIDES], (97, 90))
@example([(window, window) for window in PAST_THE_MAP], (90, 90))
@example([(window, ONE) for window in PAST_THE_MAP], (90, 90))
@example([(window, window) for window in WIDE_PADDING], (90, 128))
@example(list(zip(SMALL_FIELDS, WIDE_FIELDS, strict=True)), (119, 128))
def test_any_chain_of_convolutions_is_measured_exactly(
    chain: list[tuple[Window, Window]], image_size: tuple[int, int]
) -> None:
    # More units than the images have pixels: then it is plain that they do not come last, however uneven the strides.
    units = [3, *[2] * (len(chain) - 1), 140]
    stages = [
        nn.Sequential(convolution(down, along, before, after), nn.BatchNorm2d(after), nn.ReLU())
        for (down, along), (before, after) in zip(chain, pairwise(units), strict=True)
    ]
    model = nn.Sequential(*stages)
    (rows, top), (columns, left) = (fields([pair[axis] for pair in chain]) for axis in (0, 1))
    try:
        model.eval()(torch.zeros(1, 3, *image_size))
    except RuntimeError:
        with pytest.raises(InputError, match="cannot take images"):
            receptive_fields(model, ["0"], image_size)
        return
    last = str(len(chain) - 1)
    assert receptive_fields(model, [last], image_size)[last] == Geometry((rows, columns), (top, left))


@pytest.mark.parametrize(
    "between",
    [
        nn.ReLU(inplace=True), nn.ReLU6(), nn.Hardswish(), nn.Hardsigmoid(), nn.Hardtanh(), nn.SiLU(), nn.GELU(),
        nn.ELU(), nn.Softplus(), nn.PReLU(), nn.Threshold(0.5, 0), nn.Dropout(), nn.LocalResponseNorm(2),
        nn.Softmax2d(), nn.MaxPool2d(1), nn.Upsample(scale_factor=1),
    ],
    ids=lambda module: type(module).__name__,
)  # fmt: skip
def test_what_stands_between_convolutions_hides_no_part_of_a_field(between: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 4, 2), between, nn.Conv2d(4, 4, 3, 2, 1))
    assert receptive_fields(model, ["2"], (32, 40))["2"] == square([Window(4, 2), Window(3, 2, 1)])


@pytest.mark.parametrize(
    ("pool", "window"),
    [
        (nn.MaxPool2d(3, 2, 1, dilation=3), Window(3, 2, 1, 3)),
        (nn.MaxPool2d(2, 1, 1, dilation=2), Window(2, 1, 1, 2)),
        (nn.MaxPool2d(2, 5, 1, dilation=4), Window(2, 5, 1, 4)),
        (nn.AvgPool2d(2, 5), Window(2, 5)),
    ],
)
def test_a_pool_that_leaves_pixels_out_looks_from_its_first_to_its_last(pool: nn.Module, window: Window) -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1, stride=4), pool, nn.Conv2d(2, 2, 2, dilation=3, padding=1))
    assert receptive_fields(model, ["2"], (64, 80))["2"] == square([Window(1, 4), window, Window(2, 1, 1, 3)])


def test_pruned_weights_leave_the_fields_as_they_are() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 5, 2), nn.ReLU(), nn.Conv2d(4, 4, 3))
    with torch.no_grad():
        for weights in model.parameters():
            weights.zero_()
    assert receptive_fields(model, ["2"], (32, 32))["2"] == square([Window(5, 2), Window(3)])


def test_padding_that_depends_on_the_images_size_is_measured_for_that_size() -> None:
    class SamePadding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 2, 3, 2)

        def forward(self, images: Tensor) -> Tensor:
            top, left = (size % 2 for size in images.shape[2:])
            output: Tensor = self.convolution(nn.functional.pad(images, (left, 1, top, 1)))
            return output

    found = receptive_fields(SamePadding(), ["convolution"], (32, 33))["convolution"]
    assert found == Geometry((Fraction(2), Fraction(2)), (Fraction(3, 2), HALF))


class Arranged(nn.Module):
    def __init__(self, tokens: bool) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, maps: Tensor) -> Tensor:
        return maps.flatten(2).transpose(1, 2) if self.tokens else maps.permute(0, 2, 3, 1)


@pytest.mark.parametrize("tokens", [False, True], ids=["units last", "tokens"])
def test_units_that_are_last_look_where_they_would_if_they_came_first(tokens: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), Arranged(tokens))
    assert receptive_fields(model, ["2"], (64, 64))["2"] == square([Window(4, 4)])


def test_tokens_look_where_their_patches_are_behind_as_many_others_as_the_network_tells() -> None:
    class Tokens(nn.Module):
        num_prefix_tokens = 4

        def __init__(self) -> None:
            super().__init__()
            self.patches, self.norm = nn.Conv2d(3, 6, 4, 4), nn.LayerNorm(6)

        def forward(self, images: Tensor) -> Tensor:
            tokens = self.patches(images).flatten(2).transpose(1, 2)
            output: Tensor = self.norm(torch.cat([tokens.new_zeros(len(images), 4, 6), tokens], dim=1))
            return output.mean(dim=1)

    assert receptive_fields(Tokens(), ["norm"], (64, 64))["norm"] == square([Window(4, 4)])


def test_a_head_for_one_size_of_image_does_not_matter() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3, 2, 1), nn.Flatten(), nn.Linear(2 * 16 * 16, 5))
    assert receptive_fields(model, ["0"], (32, 32))["0"] == square([Window(3, 2, 1)])


def test_images_of_one_pixel_are_measured_too() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1))
    assert receptive_fields(model, ["0"], (1, 1))["0"] == square([Window(3, 1, 1)])


def test_the_network_is_left_as_it_was() -> None:
    model = build_network("prunescope:resnet14x8", seed=0)
    model.train()
    next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    layer = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)][-1]
    backends = torch.backends.cudnn.enabled
    receptive_fields(model, [layer], (64, 64))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(weights.grad is None for weights in model.parameters())
    assert torch.backends.cudnn.enabled == backends
    assert torch.isfinite(model.eval()(torch.zeros(1, 3, 64, 64))).all()


class Squeeze(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps * maps.mean((2, 3), keepdim=True)


class Constant(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return torch.ones_like(maps)


class FixedSize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 2, 8, 8)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[2:] != (32, 32):
            raise ValueError("only 32 x 32")
        output: Tensor = self.patches(images)
        return output


class OnlyInSquares(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.relu = nn.Conv2d(3, 2, 3), nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.convolution(images)
        return self.relu(maps) if maps.shape[2] == maps.shape[3] else maps


@pytest.mark.parametrize(
    ("model", "layer", "message"),
    [
        (OnlyInSquares(), "relu", "layer 'relu' does not return maps"),
        (nn.Sequential(nn.Conv2d(3, 2, 3), Squeeze()), "1", "layer '1': its units depend on the whole image"),
        (nn.Sequential(nn.Conv2d(3, 2, 3), Constant()), "1", "layer '1': its units do not depend on the image"),
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1)), "1", "has 1 positions"),
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(7)), "1", "adaptive pooling"),
        (nn.Sequential(nn.Conv2d(3, 2, 3, 2, 1), nn.Upsample(scale_factor=2)), "1", "layer '1': .* not evenly spread"),
        (
            nn.Sequential(nn.Conv2d(3, 2, 1, 2), nn.Conv2d(2, 2, 3, dilation=2), nn.Upsample(scale_factor=2)),
            "2",
            "layer '2': .* not evenly spread",
        ),
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()), "1", "not maps"),
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()), "l", "has no layer 'l'"),
        (FixedSize(), "patches", "only 32 x 32"),
    ],
)
def test_layers_without_centres_are_refused(model: nn.Module, layer: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        receptive_fields(model, [layer], (32, 32))


def test_weights_that_are_not_numbers_are_said_to_be_so() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    nn.init.constant_(model[0].bias, torch.nan)
    with pytest.raises(InputError, match="layer '1' returns NaN"):
        receptive_fields(model, ["1"], (32, 32))
