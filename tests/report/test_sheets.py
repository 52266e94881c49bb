from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save_file

from prunescope.dissection.examples import Examples, read_examples
from prunescope.dissection.masks import stretch
from prunescope.dissection.outlines import EDGE, LINE, outlined
from prunescope.errors import InputError
from prunescope.report.sheets import GUTTER, PAPER, Tiles, draw_sheet, scaled


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


@pytest.mark.parametrize(
    ("size", "tile"),
    [((64, 64), (128, 128)), ((12, 16), (96, 128)), ((224, 224), (128, 128)), ((100, 400), (32, 128))],
)
def test_tiles_keep_the_images_proportions(size: tuple[int, int], tile: tuple[int, int]) -> None:
    assert (Tiles.fitting(size).height, Tiles.fitting(size).width) == tile


def test_a_sheet_shows_each_units_images_above_its_own_threshold(tmp_path: Path) -> None:
    maps = np.zeros((3, 4, 2, 2), np.float32)
    maps[2, :, :, 0] = 1.0  # unit 2 looks at the left half
    images = np.array([[0, 1, 2, 3], [-1, -1, -1, -1], [3, 2, -1, 0]])
    greys = [np.full((12, 16, 3), value, np.uint8) for value in (100, 140, 180, 220)]
    tile = Tiles.fitting((12, 16))
    path = tmp_path / "sheet.jpg"
    thresholds = np.array([0.0, 0.0, 0.5])
    shown = lambda i: scaled(greys[i], tile)  # noqa: E731
    draw_sheet(path, Examples(images, maps.max(axis=(2, 3)), maps), thresholds, [2, 0], (12, 16), shown)
    with Image.open(path) as opened:
        sheet = np.asarray(opened.convert("RGB")).astype(int)
    assert sheet.shape == (2 * 96 + GUTTER, 4 * 128 + 3 * GUTTER, 3)

    def at(row: int, column: int, y: float, x: float) -> np.ndarray:
        return sheet[int(row * (96 + GUTTER) + 96 * y), int(column * (128 + GUTTER) + 128 * x)]

    for column, grey in enumerate((100, 140, 180, 220)):  # unit 0 is nowhere strictly above its threshold of 0
        np.testing.assert_allclose(at(1, column, 0.5, 0.5), grey, atol=4)
    np.testing.assert_allclose(at(0, 0, 0.5, 0.2), 220, atol=4)
    np.testing.assert_allclose(at(0, 0, 0.5, 0.8), 220 * 0.62, atol=4)
    np.testing.assert_allclose(at(0, 2, 0.5, 0.5), PAPER, atol=4)
    border = sheet[48, 40:90]  # across the mask's edge in the middle of the first tile
    assert np.abs(border - LINE).sum(axis=1).min() < 60
    assert np.abs(border - EDGE).sum(axis=1).min() < 60


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
