"""Studies: recipes, stages, the layout of the directory, and running and resuming."""

from prunescope.study.clock import Event, Stage, stages
from prunescope.study.reading import read_recipe, recipe_schema, recipe_text, shipped_recipes
from prunescope.study.recipe import Recipe
from prunescope.study.run import run_study

__all__ = [
    "Event",
    "Recipe",
    "Stage",
    "read_recipe",
    "recipe_schema",
    "recipe_text",
    "run_study",
    "shipped_recipes",
    "stages",
]
