"""The folders of the package import each other in one direction only, and its limits are documented."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from prunescope import bounds
from prunescope.dissection.settings import MOST_CHANCE
from prunescope.files import LONGEST_NAME
from prunescope.images import MOST_PIXELS
from prunescope.store.reading import MOST_BASES
from prunescope.store.values import DEEPEST, MOST_BITS, MOST_NODES

PACKAGE = Path(__file__).parents[1] / "src" / "prunescope"

# From the top to the bottom. Modules that are not named here are shared by all, and import only each other.
ORDER = (
    "__main__", "cli", "__init__", "terminal", "loading", "series", "runs", "api", "study", "report", "evidence",
    "importers", "store", "training", "tasks", "dissection", "pruning", "networks", "miniature", "concepts",
)  # fmt: skip
SHARED = len(ORDER)
FORMER = "prunescope.concepts.miniature"  # only imports what has moved


def part(module: str) -> str:
    """Return the folder or module, directly in the package, that a module belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


def height(module: str) -> int:
    name = part(module)
    return ORDER.index(name) if name in ORDER else SHARED


def imports() -> list[tuple[str, str]]:
    """List which module imports which, also within functions and for type checkers."""
    modules = {
        ".".join(("prunescope", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in PACKAGE.rglob("*.py")
    }
    found = []
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(("prunescope", *path.relative_to(PACKAGE).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "prunescope":
                for name in node.names:
                    whole = f"{node.module}.{name.name}"
                    found.append((module, whole if whole in modules else node.module))
    return found


def test_a_folder_imports_only_from_those_below_it() -> None:
    upwards = sorted(
        {(one, other) for one, other in imports() if height(other) < height(one) and "__" not in one and one != FORMER}
    )
    assert not upwards


def test_modules_do_not_import_each_other_in_circles() -> None:
    graph: dict[str, set[str]] = {}
    for one, other in imports():
        if not one.endswith("__init__"):
            graph.setdefault(one, set()).add(other)
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("name", ORDER)
def test_every_named_folder_is_there(name: str) -> None:
    assert (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()


def test_the_documented_limits_are_those_that_are_enforced() -> None:
    text = (PACKAGE.parents[1] / "docs" / "limits.md").read_text(encoding="utf-8")
    limits = [
        MOST_PIXELS, bounds.MOST_SIZE, bounds.MOST_DRAWN, bounds.MOST_COUNT, bounds.MOST_WORKERS, bounds.MOST_TRIALS,
        bounds.MOST_STEPS, bounds.MOST_CLASSES, int(bounds.MOST_GIGABYTES), MOST_CHANCE, MOST_NODES, LONGEST_NAME,
        MOST_BASES, DEEPEST, MOST_BITS,
    ]  # fmt: skip
    assert bounds.MOST_LEVELS == bounds.MOST_TRIALS
    assert [limit for limit in limits if not re.search(rf"\| {limit:,}( each)? \|", text)] == []
