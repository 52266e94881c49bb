"""A study: its recipe, its stages, what is stored where, running and resuming."""

from prunescope.study.reading import read_recipe, recipe_text, shipped_recipes
from prunescope.study.recipe import Recipe
from prunescope.study.run import Event, Stage, run_study, stages

__all__ = ["Event", "Recipe", "Stage", "read_recipe", "recipe_text", "run_study", "shipped_recipes", "stages"]
