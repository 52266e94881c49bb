"""Draw complete scenes: a background, and objects that are chosen and placed at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunescope.miniature import backdrops, clutter
from prunescope.miniature.canvas import Canvas, Spot
from prunescope.miniature.chance import Chance
from prunescope.miniature.colors import color_places
from prunescope.miniature.habits import ANYTHING, HABITS, RUG, Habit, Thing
from prunescope.miniature.vocabulary import SCENES, TEXTURES

OWN_GROUND = 0.65
SWAPPED = tuple(sorted({ground for habit in HABITS.values() for ground in habit.grounds} - {"water"}))
OWN_TEXTURE = 0.92
PLAIN_CLOTH = 0.15
DISTRACTOR = 0.34
OCCLUDER = 0.15
SEA = 0.75


@dataclass(frozen=True)
class Picture:
    """One image of the miniature and its labels.

    Attributes
    ----------
    image
        The pixels in RGB, uint8 [size, size, 3].
    scene
        The index of the image's scene in `SCENES`.
    layers
        The label layers of each category other than "scene", uint8 [size, size]. Their values are indices in the
        vocabulary, counted from 1, and 0 where there is no label. The category "part" has two layers: the second one
        contains the parts that are set into a part of the first one.
    """

    image: np.ndarray
    scene: int
    layers: dict[str, tuple[np.ndarray, ...]]


def draw(seed: int, index: int, size: int = 64) -> Picture:
    """Draw one image of the miniature. Its scene is `index` modulo 16.

    Parameters
    ----------
    seed, index
        The seed of the data set and the index of the image. They determine the image on every machine.
    size
        The side of the image in pixels.

    Returns
    -------
    Picture
        The image and its labels.

    Examples
    --------
    >>> draw(seed=0, index=3).image.shape
    (64, 64, 3)
    """
    # The composition and the appearance of surfaces use separate streams. Only the latter depends on the size, so that
    # the composition is the same for every size.
    chance, surfaces = Chance(seed, index), Chance(seed, index, stream=1)
    scene = index % len(SCENES)
    canvas = Canvas(size, surfaces)
    _compose(canvas, chance, HABITS[SCENES[scene]])
    image = _develop(canvas, surfaces)
    return Picture(
        image,
        scene,
        {
            "object": (canvas.objects(),),
            "part": (canvas.part, canvas.inset),
            "material": (canvas.material,),
            "texture": (canvas.texture,),
            "color": (color_places(image) + np.uint8(1),),
        },
    )


def _compose(canvas: Canvas, chance: Chance, habit: Habit) -> None:
    horizon = chance.uniform(*habit.horizon)
    ground = chance.pick(habit.grounds if chance.coin(OWN_GROUND) else SWAPPED)
    if ground in backdrops.FLOORS:
        backdrops.indoors(canvas, chance, ground, horizon)
    else:
        backdrops.outdoors(canvas, chance, ground, chance.pick(habit.skies), horizon)
        if habit.sea and chance.coin(SEA):
            backdrops.sea(canvas, chance, horizon)
    things = [thing for thing, probability in habit.things if chance.coin(probability)]
    while chance.coin(DISTRACTOR):
        things.append(chance.pick(ANYTHING))
    placed: list[tuple[float, float, Thing]] = []
    for thing in things:
        depth = chance.uniform(thing.near, thing.far)
        placed.append((depth, _free(chance, [x for _, x, _ in placed]), thing))
    for depth, x, thing in sorted(placed, key=lambda entry: entry[0]):
        y = horizon + depth * (1.0 - horizon)
        height = chance.uniform(thing.low, thing.high) * (0.75 + 0.45 * depth)
        texture = None
        if not chance.coin(PLAIN_CLOTH) or thing is RUG:
            texture = habit.texture if chance.coin(OWN_TEXTURE) else chance.pick(TEXTURES)
        thing.draw(canvas, chance, Spot(x, y, height, chance.coin(0.5), texture))
    if chance.coin(OCCLUDER):
        clutter.post(canvas, chance, Spot(chance.uniform(0.05, 0.95), 1.0, chance.uniform(0.4, 1.0)))


def _free(chance: Chance, taken: list[float]) -> float:
    """Draw three random positions and return the one that is farthest from those taken."""
    candidates = [chance.uniform(0.14, 0.86) for _ in range(3)]
    return max(candidates, key=lambda x: min((abs(x - other) for other in taken), default=1.0))


def _develop(canvas: Canvas, chance: Chance) -> np.ndarray:
    """Apply random exposure, tint and noise, and return the image as uint8 [size, size, 3]."""
    gain = chance.uniform(0.78, 1.1)
    warmth = chance.uniform(-0.06, 0.06)
    tint = np.array((gain * (1 + warmth), gain, gain * (1 - warmth)), np.float32)[:, None, None]
    grain = chance.uniform(0.01, 0.04)
    exposed = canvas.pixels * tint + grain * chance.noise(*canvas.pixels.shape)
    levels = np.clip(np.floor(exposed * 255 + 0.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(1, 2, 0))
