from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import pad

from prunescope.networks.tokens import as_maps, has_proportions

sizes = st.integers(2, 9)
patches = st.integers(3, 8)
before = st.sampled_from([0, 1, 2, 5])


def drawn(*shape: int) -> Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


def tokens_of(maps: Tensor, prefix: int) -> Tensor:
    """[n, units, h, w] -> [n, prefix + h * w, units], slowly."""
    n, units, h, w = maps.shape
    tokens = torch.full((n, prefix + h * w, units), torch.nan)
    for y in range(h):
        for x in range(w):
            tokens[:, prefix + y * w + x] = maps[:, :, y, x]
    return tokens


@given(sizes, sizes, patches, before, st.integers(1, 5))
def test_each_patchs_token_becomes_its_place_in_the_map(h: int, w: int, patch: int, prefix: int, units: int) -> None:
    maps = drawn(2, units, h, w)
    found = as_maps(tokens_of(maps, prefix), (2, 3, h * patch, w * patch), prefix, -1)
    # A few small numbers of tokens are several grids at once, such as 4 + 5 and 9.
    assert found is None or torch.equal(found, maps)


@pytest.mark.parametrize(
    ("tokens", "size", "grid"),
    [
        (196, (224, 224), (14, 14)),
        (197, (224, 224), (14, 14)),
        (198, (224, 224), (14, 14)),
        (201, (224, 224), (14, 14)),
        (257, (224, 224), (16, 16)),
        (3136, (224, 224), (56, 56)),
        (5, (32, 32), (2, 2)),
        (1 + 14 * 20, (224, 320), (14, 20)),
        (5 + 20 * 14, (320, 224), (20, 14)),
        (1 + 14 * 14, (230, 230), (14, 14)),
        (1 + 14 * 19, (230, 310), (14, 19)),
        (13 * 13, (100, 100), (13, 13)),
    ],
)
def test_tokens_before_the_grid_are_counted(tokens: int, size: tuple[int, int], grid: tuple[int, int]) -> None:
    found = as_maps(torch.zeros(2, tokens, 8), (2, 3, *size), None, 2)
    assert found is not None
    assert found.shape == (2, 8, *grid)


@pytest.mark.parametrize(
    ("shape", "prefix"),
    [
        ((2, 199, 8), None),
        ((2, 195, 8), None),
        ((2, 200, 8), None),
        ((2, 201, 8), 1),
        ((2, 1, 8), None),
        ((2, 2, 8), None),
        ((2, 6, 8), None),
        ((3, 197, 8), None),
        ((2, 3, 197, 32), 1),
        ((2, 3, 197, 197), 1),
        ((2, 8, 14, 14, 3), None),
        ((2,), None),
    ],
)
def test_what_forms_no_grid_or_several_is_not_taken(shape: tuple[int, ...], prefix: int | None) -> None:
    assert as_maps(torch.zeros(shape), (2, 3, 224, 224), prefix, 1 if len(shape) == 4 else 2) is None


def test_a_number_of_tokens_that_the_network_tells_need_not_be_a_usual_one() -> None:
    found = as_maps(torch.zeros(2, 4 + 196, 8), (2, 3, 224, 224), 4, -1)
    assert found is not None
    assert found.shape == (2, 8, 14, 14)


@given(sizes, sizes, patches, st.integers(96, 128))
def test_units_are_put_first_from_whichever_axis_holds_them(h: int, w: int, patch: int, units: int) -> None:
    images = (2, 3, h * patch, w * patch)
    first, between, last = drawn(2, units, h, w), drawn(2, h, units, w), drawn(2, h, w, units)
    assert torch.equal(as_maps(first, images, None, 1), first)  # type: ignore[arg-type]
    assert torch.equal(as_maps(between, images, None, 2), between.permute(0, 2, 1, 3))  # type: ignore[arg-type]
    assert torch.equal(as_maps(last, images, None, -1), last.permute(0, 3, 1, 2))  # type: ignore[arg-type]


@given(st.integers(20, 400), st.integers(20, 400), st.integers(2, 11), st.integers(1, 4))
def test_maps_of_convolutions_have_the_images_proportions_whatever_is_lost_at_the_borders(
    ih: int, iw: int, kernel: int, stride: int
) -> None:
    size = [(pixels - kernel) // stride + 1 for pixels in (ih, iw)]
    assert has_proportions(size, (1, 3, ih, iw))


def test_the_patches_of_a_vision_transformer_lie_where_its_embedding_saw_them() -> None:
    projection = nn.Conv2d(3, 7, 8, 8)
    images = torch.randn(2, 3, 32, 48)
    maps = projection(images)
    tokens = pad(maps.flatten(2).transpose(1, 2), (0, 0, 1, 0))
    assert torch.equal(as_maps(tokens, images.shape, None, 2), maps)  # type: ignore[arg-type]


IMAGES = (2, 3, 32, 32)
TOKENS = torch.zeros(2, 17, 8)
MAPS = torch.zeros(2, 8, 4, 4)
POOLED = torch.zeros(2, 8)


@pytest.mark.parametrize(
    ("output", "units_axis", "shape"),
    [
        ((TOKENS, None), 2, (2, 8, 4, 4)),
        ([None, MAPS], 1, (2, 8, 4, 4)),
        ({"hidden": TOKENS, "attentions": None, "more": (TOKENS,)}, -1, (2, 8, 4, 4)),
        ({"hidden": MAPS, "pooled": POOLED}, 1, (2, 8, 4, 4)),
        ({"hidden": MAPS, "pooled": POOLED[:, :, None, None]}, 1, (2, 8, 4, 4)),
        ((POOLED, 3), 1, (2, 8)),
        ((POOLED, {"maps": [MAPS, MAPS[:, :4]]}), 1, (2, 8, 4, 4)),
    ],
)
def test_the_first_tensor_with_units_is_taken_out_of_a_structure(
    output: Any, units_axis: int, shape: tuple[int, ...]
) -> None:
    found = as_maps(output, IMAGES, None, units_axis)
    assert found is not None
    assert found.shape == shape


@pytest.mark.parametrize("output", [{}, (), None, "maps", (torch.zeros(()), None)])
def test_nothing_is_taken_where_there_is_none(output: Any) -> None:
    assert all(as_maps(output, IMAGES, None, axis) is None for axis in (1, 2, -1))
