"""The habits of the scenes: the objects, grounds and textures that tend to occur together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from prunescope.miniature import clutter, indoors, living, outdoors
from prunescope.miniature.canvas import Canvas, Spot
from prunescope.miniature.chance import Chance

Draw = Callable[[Canvas, Chance, Spot], None]


class Thing(NamedTuple):
    """A kind of object that a scene may contain.

    `low` and `high` bound its height as a fraction of the picture's side. `near` and `far` bound its vertical position,
    from 0 at the horizon to 1 at the lower border of the picture.
    """

    draw: Draw
    low: float
    high: float
    near: float = 0.05
    far: float = 0.95


CAR = Thing(outdoors.car, 0.2, 0.27, 0.25)
BOAT = Thing(outdoors.boat, 0.33, 0.53, 0.1, 0.7)
TRAIN = Thing(outdoors.train, 0.28, 0.35, 0.2, 0.6)
HOUSE = Thing(outdoors.house, 0.35, 0.48, 0.05, 0.4)
TOWER = Thing(outdoors.tower, 0.46, 0.68, 0.02, 0.2)
TREE = Thing(outdoors.tree, 0.37, 0.55, 0.05, 0.6)
FIR = Thing(outdoors.fir, 0.37, 0.57, 0.05, 0.6)
CACTUS = Thing(outdoors.cactus, 0.36, 0.57, 0.15, 0.8)
FLOWER = Thing(outdoors.flower, 0.27, 0.43, 0.4, 1.0)
PARASOL = Thing(outdoors.parasol, 0.38, 0.53, 0.2, 0.8)
FENCE = Thing(outdoors.fence, 0.16, 0.23, 0.15, 0.8)
SLIDE = Thing(outdoors.slide, 0.44, 0.58, 0.3, 0.9)
MOUNTAIN = Thing(clutter.mountain, 0.35, 0.53, 0.0, 0.04)
ROCK = Thing(clutter.rock, 0.1, 0.18, 0.2)
WALL = Thing(clutter.wall, 0.19, 0.26, 0.02, 0.4)
LOGS = Thing(clutter.logs, 0.16, 0.22, 0.3, 0.9)
POND = Thing(clutter.pond, 0.14, 0.2, 0.6, 0.95)
PERSON = Thing(living.person, 0.3, 0.44, 0.25)
COW = Thing(living.cow, 0.25, 0.36, 0.25)
SNOWMAN = Thing(living.snowman, 0.36, 0.52, 0.25)
CHAIR = Thing(indoors.chair, 0.3, 0.43, 0.25)
TABLE = Thing(indoors.table, 0.2, 0.29, 0.3)
DESK = Thing(indoors.desk, 0.23, 0.3, 0.3)
BED = Thing(indoors.bed, 0.28, 0.37, 0.3, 0.85)
BOOKCASE = Thing(indoors.bookcase, 0.5, 0.66, 0.05, 0.3)
LAMP = Thing(indoors.lamp, 0.36, 0.52, 0.1, 0.8)
STOVE = Thing(indoors.stove, 0.36, 0.48, 0.1, 0.6)
RUG = Thing(indoors.rug, 0.16, 0.22, 0.65, 0.98)

ANYTHING = (
    TREE,
    FIR,
    HOUSE,
    LAMP,
    ROCK,
    LOGS,
    PERSON,
    CHAIR,
    TABLE,
    FENCE,
    RUG,
    CAR,
    BOAT,
    FLOWER,
    PARASOL,
    COW,
    CACTUS,
)
"""The objects that may occur in any scene as distractors."""


@dataclass(frozen=True)
class Habit:
    """The typical content of a scene: its things with their probabilities, grounds and texture of fabrics."""

    things: tuple[tuple[Thing, float], ...]
    grounds: tuple[str, ...]
    texture: str
    skies: tuple[str, ...] = ("day", "day", "haze", "dusk")
    sea: bool = False
    horizon: tuple[float, float] = (0.42, 0.58)


HABITS: dict[str, Habit] = {
    "street-s": Habit(
        ((CAR, 0.9), (CAR, 0.4), (HOUSE, 0.7), (WALL, 0.75), (TREE, 0.3), (LAMP, 0.4), (PERSON, 0.4)),
        ("asphalt", "paving"),
        "grid",
    ),
    "forest-s": Habit(
        ((TREE, 1.0), (TREE, 0.8), (FIR, 0.8), (TREE, 0.6), (LOGS, 0.6), (ROCK, 0.3), (PERSON, 0.2)),
        ("grass", "earth"),
        "woven",
    ),
    "harbour-s": Habit(
        ((BOAT, 1.0), (BOAT, 0.7), (HOUSE, 0.4), (TOWER, 0.2), (LAMP, 0.2)),
        ("water",),
        "striped",
    ),
    "kitchen-s": Habit(
        ((STOVE, 1.0), (TABLE, 0.8), (CHAIR, 0.6), (LAMP, 0.2), (RUG, 0.5)),
        ("tiles", "lino"),
        "chequered",
    ),
    "bedroom-s": Habit(
        ((BED, 1.0), (LAMP, 0.6), (RUG, 0.6), (CHAIR, 0.2), (BOOKCASE, 0.15)),
        ("oak", "carpet"),
        "zigzagged",
    ),
    "beach-s": Habit(
        ((PARASOL, 1.0), (PARASOL, 0.4), (RUG, 0.7), (PERSON, 0.6), (BOAT, 0.35)),
        ("sand",),
        "striped",
        sea=True,
    ),
    "desert-s": Habit(
        ((CACTUS, 1.0), (CACTUS, 0.6), (ROCK, 0.8), (ROCK, 0.5), (COW, 0.1)),
        ("desert", "sand"),
        "zigzagged",
    ),
    "farm-s": Habit(
        ((COW, 1.0), (COW, 0.6), (FENCE, 0.8), (HOUSE, 0.4), (POND, 0.3), (TREE, 0.2)),
        ("meadow", "grass"),
        "woven",
    ),
    "mountain-s": Habit(
        ((MOUNTAIN, 1.0), (MOUNTAIN, 0.7), (FIR, 0.6), (FIR, 0.4), (ROCK, 0.4), (COW, 0.15)),
        ("meadow", "earth"),
        "woven",
    ),
    "playground-s": Habit(
        ((SLIDE, 1.0), (RUG, 0.6), (PERSON, 0.7), (PERSON, 0.3), (FENCE, 0.3), (TREE, 0.3)),
        ("sand", "grass"),
        "dotted",
    ),
    "library-s": Habit(
        ((BOOKCASE, 1.0), (BOOKCASE, 0.8), (TABLE, 0.5), (LAMP, 0.4), (CHAIR, 0.3)),
        ("walnut", "oak"),
        "woven",
    ),
    "office-s": Habit(
        ((DESK, 1.0), (RUG, 0.5), (CHAIR, 0.7), (BOOKCASE, 0.2), (PERSON, 0.3), (LAMP, 0.2)),
        ("lino", "carpet"),
        "grid",
    ),
    "garden-s": Habit(
        ((FLOWER, 1.0), (FLOWER, 0.8), (FLOWER, 0.6), (POND, 0.5), (FENCE, 0.4), (TREE, 0.3), (TABLE, 0.2)),
        ("grass",),
        "dotted",
    ),
    "station-s": Habit(
        ((TRAIN, 1.0), (WALL, 0.3), (PERSON, 0.7), (LAMP, 0.6), (PERSON, 0.3)),
        ("paving", "asphalt"),
        "grid",
    ),
    "snowfield-s": Habit(
        ((SNOWMAN, 1.0), (FIR, 0.7), (FIR, 0.5), (HOUSE, 0.4), (PERSON, 0.2)),
        ("snow",),
        "chequered",
    ),
    "city-s": Habit(
        ((TOWER, 1.0), (TOWER, 0.9), (TOWER, 0.6), (CAR, 0.6), (LAMP, 0.4)),
        ("asphalt", "paving"),
        "striped",
        skies=("night", "night", "dusk", "haze"),
    ),
}
