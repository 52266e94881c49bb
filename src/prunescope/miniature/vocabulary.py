"""The vocabulary of the miniature: its concepts, their categories, and the parts of each object."""

from __future__ import annotations

CATEGORIES = ("object", "part", "material", "texture", "color", "scene")

SCENES = (
    "street-s",
    "forest-s",
    "harbour-s",
    "kitchen-s",
    "bedroom-s",
    "beach-s",
    "desert-s",
    "farm-s",
    "mountain-s",
    "playground-s",
    "library-s",
    "office-s",
    "garden-s",
    "station-s",
    "snowfield-s",
    "city-s",
)

PARTS_OF = {
    "car": ("body", "window", "wheel"),
    "boat": ("hull", "sail", "pole"),
    "train": ("body", "window", "wheel", "door"),
    "house": ("facade", "roof", "door", "window"),
    "tower": ("facade", "window"),
    "tree": ("crown", "trunk"),
    "fir": ("crown", "trunk"),
    "cactus": ("trunk", "arm"),
    "person": ("head", "torso", "arm", "leg"),
    "cow": ("body", "head", "leg"),
    "chair": ("seat", "back", "leg"),
    "table": ("top", "leg"),
    "bed": ("blanket", "pillow", "back", "leg"),
    "bookcase": ("book",),
    "lamp": ("shade", "pole"),
    "computer": ("screen",),
    "flower": ("bloom", "stem"),
    "parasol": ("canopy", "pole"),
    "fence": ("post",),
    "snowman": ("body", "head", "hat"),
    "stove": ("body", "door", "pot"),
    "slide": ("chute", "ladder"),
    "rug": (),
}
"""The objects and the parts of each object."""

OBJECTS = tuple(PARTS_OF)
PARTS = tuple(dict.fromkeys(part for parts in PARTS_OF.values() for part in parts))
MATERIALS = ("brick", "wood", "metal", "glass", "fabric", "foliage", "stone", "water")
TEXTURES = ("striped", "dotted", "chequered", "zigzagged", "woven", "grid")
COLORS = (
    "black-c",
    "blue-c",
    "brown-c",
    "green-c",
    "grey-c",
    "orange-c",
    "pink-c",
    "purple-c",
    "red-c",
    "white-c",
    "yellow-c",
)

NAMES = {
    "object": OBJECTS,
    "part": PARTS,
    "material": MATERIALS,
    "texture": TEXTURES,
    "color": COLORS,
    "scene": SCENES,
}


def vocabulary() -> dict[str, dict[str, int]]:
    """Return the number of every concept in the data set, by category and name.

    The concepts are numbered from 1 in the order of the categories; 0 stands for a pixel without a label.

    >>> vocabulary()["object"]["car"]
    1
    """
    numbers: dict[str, dict[str, int]] = {}
    first = 1
    for category in CATEGORIES:
        numbers[category] = {name: first + place for place, name in enumerate(NAMES[category])}
        first += len(NAMES[category])
    return numbers
