from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunescope.miniature import COLORS, NAMES, PARTS_OF, SCENES, color_places, draw, shapes, vocabulary
from prunescope.miniature.chance import Chance
from prunescope.miniature.patterns import TEXTURE_PATTERNS

OBJECTS, PARTS = NAMES["object"], NAMES["part"]


def digest(seed: int, index: int, size: int) -> str:
    picture = draw(seed, index, size)
    content = hashlib.sha256(picture.image.tobytes())
    for layers in picture.layers.values():
        for layer in layers:
            content.update(layer.tobytes())
    return content.hexdigest()[:16]


@pytest.mark.parametrize(
    ("seed", "index", "size", "expected"),
    [
        (0, 0, 64, "7b66c864a24afabf"),
        (0, 1000, 64, "69e233f46efdd6a7"),
        (7, 11, 64, "1ded214e25da16e4"),
        (7, 12, 50, "3462d9f56e5faca5"),
        (2**63, 4093, 64, "0b020df07d8cc77f"),
        (1, 10, 96, "a4311ed01699d1e9"),
    ],
)
def test_an_image_of_a_seed_is_the_same_on_every_machine(seed: int, index: int, size: int, expected: str) -> None:
    assert digest(seed, index, size) == expected


def test_neither_another_seed_nor_another_index_gives_the_same_image() -> None:
    images = [draw(seed, index).image for seed in range(3) for index in (0, 16, 32)]
    assert len({image.tobytes() for image in images}) == len(images)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**64 - 1), index=st.integers(0, 10**6), size=st.sampled_from([16, 33, 64]))
def test_every_part_lies_on_an_object_that_has_it_and_stands_in_one_layer(seed: int, index: int, size: int) -> None:
    picture = draw(seed, index, size)
    (objects,) = picture.layers["object"]
    allowed = np.zeros((len(OBJECTS) + 1, len(PARTS) + 1), bool)
    allowed[:, 0] = True
    for place, name in enumerate(OBJECTS, start=1):
        for part in PARTS_OF[name]:
            allowed[place, PARTS.index(part) + 1] = True
    base, inset = picture.layers["part"]
    assert allowed[objects, base].all()
    assert allowed[objects, inset].all()
    assert not ((base == inset) & (base > 0)).any()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**64 - 1), index=st.integers(0, 10**6))
def test_colors_are_those_of_the_final_pixels(seed: int, index: int) -> None:
    picture = draw(seed, index)
    (colors,) = picture.layers["color"]
    assert (colors == color_places(picture.image) + 1).all()


@pytest.mark.parametrize(
    ("pixel", "name"),
    [
        ((10, 12, 8), "black-c"),
        ((250, 250, 248), "white-c"),
        ((128, 130, 127), "grey-c"),
        ((200, 30, 20), "red-c"),
        ((240, 140, 30), "orange-c"),
        ((240, 220, 60), "yellow-c"),
        ((60, 140, 50), "green-c"),
        ((40, 80, 190), "blue-c"),
        ((120, 60, 160), "purple-c"),
        ((240, 150, 180), "pink-c"),
        ((110, 70, 40), "brown-c"),
    ],
)
def test_a_typical_color_has_its_name(pixel: tuple[int, int, int], name: str) -> None:
    assert COLORS[color_places(np.array([[pixel]], np.uint8))[0, 0]] == name


def test_a_concept_has_one_name_and_one_number() -> None:
    numbers = [number for category in vocabulary().values() for number in category.values()]
    names = [name for category in vocabulary().values() for name in category]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(set(names)) == len(names)


def test_a_larger_picture_shows_the_same_things() -> None:
    for index in range(16):
        small, large = (draw(3, index, size).layers["object"][0] for size in (48, 96))
        share = np.bincount(large.ravel(), minlength=40) / 96**2
        assert np.abs(np.bincount(small.ravel(), minlength=40) / 48**2 - share).max() < 0.015, SCENES[index]


@pytest.mark.parametrize("name", TEXTURE_PATTERNS)
def test_all_textures_have_the_same_contrast_and_no_brightness(name: str) -> None:
    steps = np.arange(0, 200, 0.041, dtype=np.float32)[:1200]
    values = TEXTURE_PATTERNS[name](steps / 2, steps[:, None] / 2)
    assert abs(values.mean()) < 0.1
    assert np.sqrt((values**2).mean()) == pytest.approx(0.82, abs=0.1)


def test_shapes_cover_their_area() -> None:
    area = {
        "box": (shapes.box(40, 3.2, 4.0, 20.7, 9.5), 17.5 * 5.5),
        "thin box": (shapes.box(40, 3.2, 4.0, 3.6, 30.0), 0.4 * 26),
        "disc": (shapes.ellipse(40, 20.3, 19.1, 9.0, 9.0), 3.14159 * 81),
        "triangle": (shapes.polygon(40, [(2, 2), (30, 2), (2, 30)]), 28 * 28 / 2),
    }
    for name, (cover, expected) in area.items():
        assert cover is not None, name
        assert cover.share.sum() == pytest.approx(expected, rel=0.02), name


def test_a_shape_outside_the_picture_covers_nothing_and_one_across_its_border_is_cut() -> None:
    assert shapes.ellipse(40, -20, 10, 5, 5) is None
    assert shapes.polygon(40, [(50, 2), (60, 2), (50, 9)]) is None
    cut = shapes.box(40, -10, -10, 5, 5)
    assert cut is not None
    assert cut.share.shape == (6, 6)
    assert cut.share.sum() == 25


def test_a_polygon_may_go_either_way_round() -> None:
    corners = [(3.0, 4.0), (21.0, 6.0), (14.0, 25.0)]
    there, back = shapes.polygon(32, corners), shapes.polygon(32, corners[::-1])
    assert there is not None
    assert back is not None
    assert np.allclose(there.share, back.share, atol=1e-5)


def test_chance_stays_in_its_bounds_and_reaches_every_option() -> None:
    chance = Chance(5, 6)
    drawn = [chance.uniform(-2, 3) for _ in range(2000)]
    assert -2 <= min(drawn) < -1.9
    assert 2.9 < max(drawn) < 3
    assert {chance.pick("abc") for _ in range(100)} == set("abc")
    noise = chance.noise(64, 64)
    assert abs(noise.mean()) < 0.02
    assert np.abs(noise).max() <= 1
