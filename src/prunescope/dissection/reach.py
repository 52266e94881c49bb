"""The highest IoU that a unit can have with each concept, which its masks' size limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prunescope.arrays import Array
from prunescope.plurals import counted

_SHOWN = 3  # concepts that a note names


def highest_iou(truth: Array, without: Array, pixels: int, quantile: float) -> Array:
    """Return the highest IoU that a unit can have with each concept.

    A unit's masks have about M = quantile * pixels pixels in all images, of which at most G lie on a concept of G
    pixels. Mask pixels count only in images with a label of the concept's category. The other images have E pixels, so
    that at least M - E mask pixels count.

    Parameters
    ----------
    truth
        int64 [concepts]: G, the pixels of each concept.
    without
        int64 [concepts]: E, the pixels of the images without any label of the concept's category.
    pixels
        The number of label pixels of all images.
    quantile
        The fraction of positions above a unit's threshold.

    Returns
    -------
    ndarray
        float64 [concepts]: I / (A + G - I) with I = min(G, M) and A = max(I, M - E); 0 for a concept without pixels.

    Examples
    --------
    With a quantile of 0.01, masks have 10 of 1,000 pixels.

    >>> highest_iou(np.array([10, 100, 2, 0]), np.array([0, 0, 0, 0]), 1000, 0.01).tolist()
    [1.0, 0.1, 0.2, 0.0]
    """
    mask = quantile * pixels
    intersect = np.minimum(truth, mask)
    activation = np.maximum(intersect, mask - without)
    union = activation + truth - intersect
    highest: Array = np.divide(intersect, union, out=np.zeros(len(truth)), where=union > 0)
    return highest


def out_of_reach(
    names: Sequence[str], truth: Array, without: Array, pixels: int, quantile: float, iou: float
) -> dict[str, list[str]]:
    """Return the names of the concepts that no unit can detect, since they cover too many or too few pixels.

    Parameters
    ----------
    names
        The names of the concepts.
    truth, without, pixels, quantile
        As for `highest_iou`. Concepts without any pixel are left out.
    iou
        The bound above which a unit is interpretable.

    Returns
    -------
    dict
        The names by reason, "too large" and "too small", those with the lowest IoU first.
    """
    highest = highest_iou(truth, without, pixels, quantile)
    order = np.argsort(highest, kind="stable")
    far = order[(truth[order] > 0) & (highest[order] <= iou)]
    large = truth > quantile * pixels
    return {
        "too large": [names[place] for place in far if large[place]],
        "too small": [names[place] for place in far if not large[place]],
    }


def reach_note(layer: str, summary: Mapping[str, Any]) -> str | None:
    """Say which concepts a unit of a dissected layer cannot reach, and why no unit may be interpretable.

    Parameters
    ----------
    layer
        The name of the layer.
    summary
        The summary of the layer's dissection.

    Returns
    -------
    str or None
        One line, or None if every concept can be reached and some unit is interpretable.
    """
    known, settings = summary.get("out_of_reach"), summary["settings"]
    if known is None:
        return None
    parts = [f"{counted(len(names), 'concept')} ({reason}: {_some(names)})" for reason, names in known.items() if names]
    said = ""
    if parts:
        bound, quantile = settings["iou"], settings["quantile"]
        said = f"masks of {100 * quantile:.3g} % of all pixels cannot reach an IoU above {bound:g} with "
        said += " and ".join(parts)
    if not summary["interpretable"] and summary["units"]:
        reasons = [f"the data set has only {counted(settings['images'], 'image')}"] if settings["images"] < 500 else []
        reasons += ["most units are dead"] if 2 * summary.get("dead", 0) > summary["units"] else []
        reasons += ["the network has random weights"] if settings.get("weights") else []
        reasons += ["the layer's maps are coarse, or it does not tell these concepts apart"]
        said = "; ".join(filter(None, [said, f"no unit is interpretable, which may be because {', '.join(reasons)}"]))
    return f"{layer}: {said}" if said else None


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
