from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from prunescope.dissection.examples import read_examples
from prunescope.dissection.masks import stretch
from prunescope.dissection.outlines import EDGE, LINE, outlined
from prunescope.errors import InputError


def plain_stretch(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear with half-pixel centres, position by position."""
    h, w = values.shape
    out = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            sy = min(max((y + 0.5) * h / height - 0.5, 0), h - 1)
            sx = min(max((x + 0.5) * w / width - 0.5, 0), w - 1)
            y0, x0 = int(sy), int(sx)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            fy, fx = sy - y0, sx - x0
            top = values[y0, x0] * (1 - fx) + values[y0, x1] * fx
            bottom = values[y1, x0] * (1 - fx) + values[y1, x1] * fx
            out[y, x] = top * (1 - fy) + bottom * fy
    return out


sizes = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 15), st.integers(1, 15))


@given(sizes, st.integers(0, 99))
def test_maps_are_stretched_with_half_pixel_centres(size: tuple[int, int, int, int], seed: int) -> None:
    h, w, height, width = size
    maps = np.random.default_rng(seed).normal(size=(2, 4, h, w)).astype(np.float32)
    stretched = stretch(maps, (height, width))
    assert stretched.shape == (2, 4, height, width)
    np.testing.assert_allclose(stretched[1, 2], plain_stretch(maps[1, 2], height, width), atol=1e-5)


def test_a_mask_is_outlined_inside_and_out_and_the_rest_is_dimmed() -> None:
    image = np.full((1, 9, 9, 3), 200, np.uint8)
    mask = np.zeros((1, 9, 9), bool)
    mask[0, 2:7, 2:7] = True
    (drawn,) = outlined(image, mask)
    expected = np.full((9, 9, 3), 124)  # outside: 0.62 x 200
    expected[1:8, 1:8] = EDGE
    expected[2:7, 2:7] = LINE
    expected[3:6, 3:6] = 200
    np.testing.assert_array_equal(drawn, expected)


def test_an_image_without_a_mask_stays_as_it_is() -> None:
    images = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3)).astype(np.uint8)
    masks = np.stack([np.zeros((8, 8), bool), np.ones((8, 8), bool)])
    np.testing.assert_array_equal(outlined(images, masks), images)


def test_examples_come_in_the_order_of_the_units_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "examples.safetensors"
    images = np.arange(12, dtype=np.int64).reshape(3, 4) % 6
    maps = np.arange(3 * 4 * 4, dtype=np.float32).reshape(3, 4, 2, 2)
    save_file({"images": images, "maps": maps, "units": np.array([2, 5, 9])}, path)
    found = read_examples(path, np.array([9, 2, 5]), 6)
    assert found is not None
    np.testing.assert_array_equal(found.images, images[[2, 0, 1]])
    np.testing.assert_array_equal(found.maps, maps[[2, 0, 1]])
    with pytest.raises(InputError, match="do not fit 3 units"):
        read_examples(path, np.arange(3), 6)


def test_absent_examples_are_none_and_damaged_ones_are_named(tmp_path: Path) -> None:
    path = tmp_path / "examples.safetensors"
    two = np.arange(2)
    assert read_examples(path, two, 6) is None
    maps = np.zeros((2, 4, 3, 3), np.float32)
    images = np.zeros((2, 4), np.int64)
    save_file({"images": images, "maps": maps}, path)
    assert read_examples(path, two, 6) is not None
    with pytest.raises(InputError, match="do not fit 3 units"):
        read_examples(path, np.arange(3), 6)
    save_file({"images": images + 6, "maps": maps}, path)
    with pytest.raises(InputError, match="names image 6, but the data set of concepts contains 6 images"):
        read_examples(path, two, 6)
    save_file({"images": images}, path)
    with pytest.raises(InputError, match="maps"):
        read_examples(path, two, 6)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match=r"examples\.safetensors"):
        read_examples(path, two, 6)
