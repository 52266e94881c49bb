"""List and show recipes, for people who choose one to run or to change."""

from __future__ import annotations

from pathlib import Path

from prunescope.store.reading import read_recipe, recipe_text, shipped_recipes


def list_recipes() -> dict[str, str]:
    """List the recipes that the package contains.

    Returns
    -------
    dict of str to str
        The description of each recipe by its name. It is the comment in the first line of the recipe.

    Examples
    --------
    >>> list_recipes()["demo"]
    'One trial on the miniature, with ten levels down to about 1 % of the weights; it takes minutes on two cores.'
    """
    return {name: recipe_text(name)[1].splitlines()[0].removeprefix("#").strip() for name in shipped_recipes()}


def show_recipe(name: str | Path, *, resolved: bool = False) -> str:
    """Return a recipe as YAML, for example to save it to a file and change it.

    Parameters
    ----------
    name
        The name of a recipe in the package, or the path of a recipe file.
    resolved
        Whether to return all fields, including those of the recipe that it extends and the defaults. Otherwise the text
        is returned as it was written, with its comments.

    Returns
    -------
    str
        The YAML text.

    Raises
    ------
    InputError
        If there is no such recipe, or, with `resolved`, if it is not valid.

    Examples
    --------
    >>> show_recipe("filters", resolved=True).splitlines()[0]
    'name: filters'
    """
    return read_recipe(name).to_yaml() if resolved else recipe_text(name)[1]
