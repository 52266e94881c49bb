"""prunescope studies what happens to the concepts that a network's units detect when the network is pruned.

The public functions are imported on first use, so that `import prunescope` is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunescope.api import Study, compare, write_figures, write_outcome
    from prunescope.concepts import (
        LabelledImage,
        check_concepts,
        download_broden,
        open_concepts,
        pack_concepts,
        packed_size,
        write_concepts,
    )
    from prunescope.concepts.broden import permute_labels
    from prunescope.dissection import (
        Budget,
        Dissection,
        LayerDissection,
        UnitMatching,
        dissect,
        dissect_activations,
        dissect_activations_file,
        dissect_checkpoints,
        import_netdissect,
        match_units,
    )
    from prunescope.errors import InputError
    from prunescope.evidence import concepts_still_detected, consistency, curves, matched_by_concept, show
    from prunescope.importers import (
        import_coco,
        import_folders,
        import_huggingface,
        import_masks,
        import_voc,
        merge_concepts,
    )
    from prunescope.loading import load
    from prunescope.miniature import make_miniature
    from prunescope.networks import build_network, list_layers, load_weights
    from prunescope.pruning import Mask, prune
    from prunescope.runs import list_stages, plan, run_studies, studies
    from prunescope.series import Series, sweep
    from prunescope.store import Recipe, list_recipes, read_recipe, recipe_schema, show_recipe

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "Dissection",
    "InputError",
    "LabelledImage",
    "LayerDissection",
    "Mask",
    "Recipe",
    "Series",
    "Study",
    "UnitMatching",
    "build_network",
    "check_concepts",
    "compare",
    "concepts_still_detected",
    "consistency",
    "curves",
    "dissect",
    "dissect_activations",
    "dissect_activations_file",
    "dissect_checkpoints",
    "download_broden",
    "import_coco",
    "import_folders",
    "import_huggingface",
    "import_masks",
    "import_netdissect",
    "import_voc",
    "list_layers",
    "list_recipes",
    "list_stages",
    "load",
    "load_weights",
    "make_miniature",
    "match_units",
    "matched_by_concept",
    "merge_concepts",
    "open_concepts",
    "pack_concepts",
    "packed_size",
    "permute_labels",
    "plan",
    "prune",
    "read_recipe",
    "recipe_schema",
    "run_studies",
    "show",
    "show_recipe",
    "studies",
    "sweep",
    "write_concepts",
    "write_figures",
    "write_outcome",
]

_HOMES = {
    "prunescope.api": (
        "Study",
        "compare",
        "write_figures",
        "write_outcome",
    ),
    "prunescope.concepts": (
        "LabelledImage",
        "check_concepts",
        "download_broden",
        "open_concepts",
        "pack_concepts",
        "packed_size",
        "write_concepts",
    ),
    "prunescope.concepts.broden": ("permute_labels",),
    "prunescope.dissection": (
        "Budget",
        "Dissection",
        "LayerDissection",
        "dissect",
        "dissect_activations",
        "dissect_activations_file",
        "dissect_checkpoints",
        "import_netdissect",
        "UnitMatching",
        "match_units",
    ),
    "prunescope.errors": ("InputError",),
    "prunescope.evidence": ("concepts_still_detected", "consistency", "curves", "matched_by_concept", "show"),
    "prunescope.importers": (
        "import_coco",
        "import_folders",
        "import_huggingface",
        "import_masks",
        "import_voc",
        "merge_concepts",
    ),
    "prunescope.loading": ("load",),
    "prunescope.miniature": ("make_miniature",),
    "prunescope.networks": (
        "build_network",
        "list_layers",
        "load_weights",
    ),
    "prunescope.pruning": (
        "Mask",
        "prune",
    ),
    "prunescope.runs": (
        "list_stages",
        "plan",
        "run_studies",
        "studies",
    ),
    "prunescope.series": ("Series", "sweep"),
    "prunescope.store": (
        "Recipe",
        "list_recipes",
        "read_recipe",
        "recipe_schema",
        "show_recipe",
    ),
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "concepts":
        return import_module("prunescope.concepts")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'prunescope' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
