from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prunescope.dissection.masks import UpsampleAxis, anchored_axis, half_pixel_axis, stretch
from tests.reference.geometry import place

cells_ = st.integers(1, 30)
pixels_ = st.integers(1, 120)
strides = st.fractions(min_value=Fraction(1, 4), max_value=64, max_denominator=4)
offsets = st.fractions(min_value=-40, max_value=80, max_denominator=4)


def places(axis: UpsampleAxis) -> np.ndarray:
    """Where each pixel lies on the map."""
    return np.repeat(np.arange(len(axis.starts) - 1), np.diff(axis.starts)) + axis.weights


@given(cells_, pixels_, st.integers(1, 300), strides, offsets)
def test_every_pixel_lies_where_exact_fractions_put_it(
    cells: int, pixels: int, image_pixels: int, stride: Fraction, offset: Fraction
) -> None:
    axis = anchored_axis(cells, pixels, image_pixels, stride, offset)
    exact = [place(pixel, pixels, image_pixels, cells, stride, offset) for pixel in range(pixels)]
    cell = [int(where) for where in exact]
    assert axis.starts.tolist() == [sum(one < row for one in cell) for row in range(cells)] + [pixels]
    assert axis.weights.tolist() == [float(where - int(where)) for where in exact]


@given(cells_, pixels_, st.integers(1, 300), strides, offsets)
def test_the_axis_covers_all_pixels_with_weights_below_one_and_ends_on_the_last_cell(
    cells: int, pixels: int, image_pixels: int, stride: Fraction, offset: Fraction
) -> None:
    starts, weights = anchored_axis(cells, pixels, image_pixels, stride, offset)
    assert starts.dtype == np.int64
    assert weights.dtype == np.float64
    assert starts[0] == 0
    assert starts[-1] == pixels
    assert (np.diff(starts) >= 0).all()
    assert ((weights >= 0) & (weights < 1)).all()
    assert (weights[starts[-2] :] == 0).all()


@given(cells_, pixels_, st.integers(1, 300))
def test_fields_centred_on_their_share_of_the_image_give_the_half_pixel_stretch(
    cells: int, pixels: int, image_pixels: int
) -> None:
    share = Fraction(image_pixels, cells)
    anchored = anchored_axis(cells, pixels, image_pixels, share, share / 2)
    np.testing.assert_array_equal(np.minimum(places(half_pixel_axis(cells, pixels)), cells - 1), places(anchored))


def test_layer4_of_a_resnet_moves_by_almost_half_a_cell() -> None:
    half_pixel = places(half_pixel_axis(7, 224))
    anchored = places(anchored_axis(7, 224, 224, Fraction(32), Fraction(1, 2)))
    inner = (half_pixel > 0) & (anchored < 6)
    assert set((anchored - half_pixel)[inner]) == {15.5 / 32}


@given(st.integers(2, 8), st.integers(2, 8), st.integers(1, 40), st.integers(1, 40), st.data())
def test_maps_are_interpolated_between_the_centres_of_fields(
    h: int, w: int, sh: int, sw: int, data: st.DataObject
) -> None:
    geometry = [(data.draw(strides), data.draw(offsets)) for _ in range(2)]
    maps = np.random.default_rng(0).standard_normal((3, h, w)).astype(np.float32)
    axes = (anchored_axis(h, sh, 64, *geometry[0]), anchored_axis(w, sw, 96, *geometry[1]))
    found = stretch(maps, (sh, sw), axes)
    rows = [float(place(row, sh, 64, h, *geometry[0])) for row in range(sh)]
    columns = [float(place(column, sw, 96, w, *geometry[1])) for column in range(sw)]
    for unit in range(3):
        along = np.array([np.interp(columns, np.arange(w), row) for row in maps[unit]])
        expected = np.array([np.interp(rows, np.arange(h), column) for column in along.T]).T
        np.testing.assert_allclose(found[unit], expected, rtol=0, atol=1e-12)


def test_half_pixel_centres_are_the_default() -> None:
    maps = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(
        stretch(maps, (7, 9)), stretch(maps, (7, 9), (half_pixel_axis(3, 7), half_pixel_axis(4, 9)))
    )
