"""Habits of the scenes: which objects, grounds and textures come together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from prunescope.concepts.miniature import indoors, living, outdoors
from prunescope.concepts.miniature.canvas import Canvas, Spot
from prunescope.concepts.miniature.chance import Chance

Draw = Callable[[Canvas, Chance, Spot], None]


class Thing(NamedTuple):
    """Something a scene may hold: how tall, and how far down from the horizon (0) to the lower border (1) it stands."""

    draw: Draw
    low: float
    high: float
    near: float = 0.05
    far: float = 0.95


CAR = Thing(outdoors.car, 0.15, 0.21, 0.25)
BOAT = Thing(outdoors.boat, 0.26, 0.42, 0.1, 0.7)
TRAIN = Thing(outdoors.train, 0.22, 0.28, 0.2, 0.6)
HOUSE = Thing(outdoors.house, 0.32, 0.44, 0.05, 0.4)
TOWER = Thing(outdoors.tower, 0.42, 0.62, 0.02, 0.2)
TREE = Thing(outdoors.tree, 0.34, 0.5, 0.05, 0.6)
FIR = Thing(outdoors.fir, 0.34, 0.52, 0.05, 0.6)
CACTUS = Thing(outdoors.cactus, 0.28, 0.44, 0.15, 0.8)
FLOWER = Thing(outdoors.flower, 0.2, 0.32, 0.4, 1.0)
PARASOL = Thing(outdoors.parasol, 0.32, 0.44, 0.2, 0.8)
FENCE = Thing(outdoors.fence, 0.13, 0.19, 0.15, 0.8)
SLIDE = Thing(outdoors.slide, 0.3, 0.42, 0.2, 0.8)
MOUNTAIN = Thing(outdoors.mountain, 0.28, 0.42, 0.0, 0.04)
ROCK = Thing(outdoors.rock, 0.08, 0.15, 0.2)
PERSON = Thing(living.person, 0.26, 0.38, 0.25)
COW = Thing(living.cow, 0.18, 0.26, 0.25)
SNOWMAN = Thing(living.snowman, 0.28, 0.4, 0.25)
CHAIR = Thing(indoors.chair, 0.24, 0.34, 0.25)
TABLE = Thing(indoors.table, 0.16, 0.23, 0.3)
DESK = Thing(indoors.desk, 0.16, 0.22, 0.3)
BED = Thing(indoors.bed, 0.22, 0.3, 0.25, 0.8)
BOOKCASE = Thing(indoors.bookcase, 0.45, 0.6, 0.05, 0.3)
LAMP = Thing(indoors.lamp, 0.36, 0.52, 0.1, 0.8)
STOVE = Thing(indoors.stove, 0.3, 0.4, 0.05, 0.4)
RUG = Thing(indoors.rug, 0.12, 0.18, 0.6, 0.98)

ANYTHING = (
    CAR,
    BOAT,
    HOUSE,
    TREE,
    FIR,
    CACTUS,
    FLOWER,
    PARASOL,
    FENCE,
    ROCK,
    PERSON,
    COW,
    CHAIR,
    TABLE,
    LAMP,
    RUG,
)


@dataclass(frozen=True)
class Habit:
    """What a scene tends to hold: things with the chance of each, grounds, and the texture of its cloth."""

    things: tuple[tuple[Thing, float], ...]
    grounds: tuple[str, ...]
    texture: str
    skies: tuple[str, ...] = ("day", "day", "haze", "dusk")
    horizon: tuple[float, float] = (0.42, 0.58)


HABITS: dict[str, Habit] = {
    "street-s": Habit(
        ((CAR, 0.9), (CAR, 0.4), (HOUSE, 0.8), (TREE, 0.4), (LAMP, 0.4), (PERSON, 0.4)),
        (
            "asphalt",
            "paving",
        ),
        "grid",
    ),
    "forest-s": Habit(
        ((TREE, 0.95), (TREE, 0.8), (FIR, 0.8), (TREE, 0.6), (ROCK, 0.5), (PERSON, 0.2)),
        (
            "grass",
            "earth",
        ),
        "woven",
    ),
    "harbour-s": Habit(
        ((BOAT, 0.95), (BOAT, 0.7), (HOUSE, 0.5), (TOWER, 0.25), (LAMP, 0.25)),
        ("water",),
        "striped",
    ),
    "kitchen-s": Habit(
        ((STOVE, 0.9), (TABLE, 0.8), (CHAIR, 0.6), (LAMP, 0.2), (RUG, 0.2)),
        (
            "tiles",
            "lino",
        ),
        "chequered",
    ),
    "bedroom-s": Habit(
        ((BED, 0.95), (LAMP, 0.6), (RUG, 0.5), (CHAIR, 0.3), (BOOKCASE, 0.2)),
        (
            "oak",
            "carpet",
        ),
        "zigzagged",
    ),
    "beach-s": Habit(
        ((PARASOL, 0.9), (PARASOL, 0.4), (RUG, 0.6), (PERSON, 0.7), (BOAT, 0.25)),
        ("sand",),
        "striped",
    ),
    "desert-s": Habit(
        ((CACTUS, 0.9), (CACTUS, 0.6), (ROCK, 0.8), (ROCK, 0.5), (COW, 0.15)),
        (
            "desert",
            "sand",
        ),
        "zigzagged",
    ),
    "farm-s": Habit(
        ((COW, 0.9), (COW, 0.5), (FENCE, 0.8), (HOUSE, 0.6), (TREE, 0.3)),
        (
            "meadow",
            "grass",
        ),
        "woven",
    ),
    "mountain-s": Habit(
        ((MOUNTAIN, 0.95), (MOUNTAIN, 0.7), (FIR, 0.6), (FIR, 0.4), (ROCK, 0.4), (COW, 0.2)),
        (
            "meadow",
            "earth",
        ),
        "woven",
    ),
    "playground-s": Habit(
        ((SLIDE, 0.9), (PERSON, 0.8), (PERSON, 0.4), (FENCE, 0.4), (TREE, 0.4)),
        (
            "sand",
            "grass",
        ),
        "dotted",
    ),
    "library-s": Habit(
        ((BOOKCASE, 0.95), (BOOKCASE, 0.8), (TABLE, 0.5), (LAMP, 0.4), (CHAIR, 0.3)),
        (
            "walnut",
            "oak",
        ),
        "woven",
    ),
    "office-s": Habit(
        ((DESK, 0.95), (CHAIR, 0.8), (BOOKCASE, 0.3), (PERSON, 0.3), (LAMP, 0.25)),
        (
            "lino",
            "carpet",
        ),
        "grid",
    ),
    "garden-s": Habit(
        ((FLOWER, 0.9), (FLOWER, 0.8), (FLOWER, 0.6), (FENCE, 0.5), (TREE, 0.4), (TABLE, 0.3), (PARASOL, 0.2)),
        ("grass",),
        "dotted",
    ),
    "station-s": Habit(
        ((TRAIN, 0.95), (PERSON, 0.7), (LAMP, 0.6), (PERSON, 0.3)),
        (
            "paving",
            "asphalt",
        ),
        "grid",
    ),
    "snowfield-s": Habit(
        ((SNOWMAN, 0.9), (FIR, 0.7), (FIR, 0.5), (HOUSE, 0.4), (PERSON, 0.2)),
        ("snow",),
        "chequered",
    ),
    "city-s": Habit(
        ((TOWER, 0.95), (TOWER, 0.9), (TOWER, 0.6), (CAR, 0.6), (LAMP, 0.4)),
        (
            "asphalt",
            "paving",
        ),
        "striped",
        ("night", "night", "dusk", "haze"),
    ),
}
