"""The files of a study: where they are, what they contain, and how they are read and written; the recipe."""

from prunescope.store.catalogue import list_recipes, show_recipe
from prunescope.store.reading import read_recipe, recipe_schema, recipe_text, shipped_recipes
from prunescope.store.recipe import Recipe

__all__ = [
    "Recipe",
    "list_recipes",
    "read_recipe",
    "recipe_schema",
    "recipe_text",
    "shipped_recipes",
    "show_recipe",
]
