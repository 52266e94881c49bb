"""Count the pixels of masks with two Triton kernels, which give the same integers as the compiled CPU kernel."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from prunescope.dissection.labels import LabelBatch
from prunescope.dissection.maps import KeptMaps
from prunescope.dissection.masks import UpsampleAxis
from prunescope.dissection.settings import Presence

_ROWS = 4  # the largest number of label rows that are evaluated at a time
_ENTRIES = 128  # the number of palette entries that are added at a time


class Axes:
    """The positions of the label pixels on the maps, as tensors on a device."""

    def __init__(self, down: UpsampleAxis, along: UpsampleAxis, device: torch.device) -> None:
        self.y_starts = torch.from_numpy(down.starts).to(device)
        self.y_weights = torch.from_numpy(down.weights).to(device)
        starts = torch.from_numpy(along.starts).to(device)
        self.x_cells = torch.arange(len(starts) - 1, device=device).repeat_interleave(starts.diff())
        self.x_weights = torch.from_numpy(along.weights).to(device)


def count_masks(
    kept: KeptMaps[Tensor],
    thresholds: Tensor,
    labels: LabelBatch[Tensor],
    axes: Axes,
    counts: tuple[Tensor, Tensor, Tensor],
    presence: Presence,
) -> None:
    """Add the mask pixels of some maps to the counts, without waiting for the device.

    Parameters
    ----------
    kept
        The maps, as tensors. Maps that do not exceed their unit's threshold add nothing.
    thresholds
        float64 [units]: the thresholds.
    labels
        The labels of the images of these maps, as tensors.
    axes
        The positions of the label pixels on the maps.
    counts
        The counts to add to: intersect [blocks, units, concepts], activation [blocks, units, categories] and area
        [blocks, units], as in `MaskCounts`.
    presence
        The images on which mask pixels count as activation, as in `dissect`.
    """
    intersect, activation, area = counts
    maps, (h, w) = kept.maps.contiguous(), kept.maps.shape[1:]
    if not len(maps):
        return
    sh, sw = labels.codes.shape[1:]
    units, concepts, categories = *intersect.shape[1:], activation.shape[2]
    widest = int(labels.widest)
    histograms = torch.zeros((len(maps), widest), dtype=torch.int32, device=maps.device)
    grid = (len(maps),)
    _histograms[grid](
        maps, kept.units, kept.images, kept.peaks, thresholds, labels.codes,
        axes.y_starts, axes.y_weights, axes.x_cells, axes.x_weights, histograms,
        h, w, sh, sw, widest,
        ROWS=min(_ROWS, triton.next_power_of_2(-(-sh // h))), COLUMNS=triton.next_power_of_2(sw),
        CELLS=triton.next_power_of_2(w),
        # A fused multiply-add rounds once instead of twice, which would change the result for pixels at a threshold.
        enable_fp_fusion=False,
    )  # fmt: skip
    _scatter[grid](
        kept.units, kept.images, kept.peaks, thresholds, histograms, labels.blocks,
        labels.first_rows, labels.starts, labels.columns, labels.entry_rows, labels.categories, labels.present,
        intersect, activation, area,
        len(labels.first_rows), len(labels.pixels), widest, units, concepts, categories,
        ENTRIES=_ENTRIES, CATEGORIES=triton.next_power_of_2(categories), OVERLAP=presence == "overlap",
    )  # fmt: skip


@triton.jit(do_not_specialize=["h", "w", "sh", "sw", "widest"])
def _histograms(  # type: ignore[no-untyped-def]
    maps, units, images, peaks, thresholds, codes, y_starts, y_weights, x_cells, x_weights, histograms,
    h, w, sh, sw, widest, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CELLS: tl.constexpr,
):  # fmt: skip
    """Count the pixels of one map's mask for each row of its image's palette."""
    index = tl.program_id(0).to(tl.int64)
    threshold = tl.load(thresholds + tl.load(units + index))
    if tl.load(peaks + index).to(tl.float64) > threshold:
        image = tl.load(images + index)
        values = maps + index * h * w
        column = tl.arange(0, COLUMNS)
        within = column < sw
        cell = tl.load(x_cells + column, within, 0)
        right = tl.minimum(cell + 1, w - 1)
        x_weight = tl.load(x_weights + column, within, 0.0)
        lanes = tl.arange(0, CELLS)
        for y in range(h):
            below = tl.minimum(y + 1, h - 1)
            here = tl.load(values + y * w + lanes, lanes < w, float("-inf"))
            next_row = tl.load(values + below * w + lanes, lanes < w, float("-inf"))
            # Bilinear values lie between those at the four corners: if no corner exceeds the threshold, no pixel does.
            highest = tl.maximum(tl.max(here, 0), tl.max(next_row, 0))
            if highest.to(tl.float64) > threshold:
                a = tl.load(values + y * w + cell).to(tl.float64)[None, :]
                b = tl.load(values + y * w + right).to(tl.float64)[None, :]
                c = tl.load(values + below * w + cell).to(tl.float64)[None, :]
                d = tl.load(values + below * w + right).to(tl.float64)[None, :]
                last = tl.load(y_starts + y + 1)
                for first in range(tl.load(y_starts + y), last, ROWS):
                    row = first + tl.arange(0, ROWS)
                    y_weight = tl.load(y_weights + row, row < last, 0.0)[:, None]
                    start = a + (c - a) * y_weight
                    slope = (b + (d - b) * y_weight) - start
                    above = start + slope * x_weight[None, :] > threshold
                    mask = above & (row < last)[:, None] & within[None, :]
                    code = tl.load(codes + image * sh * sw + row[:, None] * sw + column[None, :], mask, 0)
                    tl.atomic_add(histograms + index * widest + code.to(tl.int64), 1, mask, sem="relaxed")


@triton.jit(do_not_specialize=["image_count", "row_count", "widest", "unit_count", "concepts", "category_count"])
def _scatter(  # type: ignore[no-untyped-def]
    units, images, peaks, thresholds, histograms, blocks, first_rows, starts, columns, entry_rows, categories, present,
    intersect, activation, area, image_count, row_count, widest, unit_count, concepts, category_count,
    ENTRIES: tl.constexpr, CATEGORIES: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """Add the pixel counts of one map's mask to the counts of its unit."""
    index = tl.program_id(0).to(tl.int64)
    unit = tl.load(units + index)
    if tl.load(peaks + index).to(tl.float64) > tl.load(thresholds + unit):
        image = tl.load(images + index)
        row_of_unit = tl.load(blocks + image) * unit_count + unit
        first = tl.load(first_rows + image)
        end = tl.load(first_rows + image + 1, image + 1 < image_count, row_count)
        lanes = tl.arange(0, ENTRIES)
        own = histograms + index * widest
        last = tl.load(starts + end)
        for entry in range(tl.load(starts + first), last, ENTRIES):
            ok = entry + lanes < last
            row = tl.load(entry_rows + entry + lanes, ok, first)
            count = tl.load(own + row - first, ok, 0)
            column = tl.load(columns + entry + lanes, ok, 0)
            target = intersect + row_of_unit * concepts + column
            tl.atomic_add(target, count.to(intersect.dtype.element_ty), ok & (count > 0), sem="relaxed")
        category = tl.arange(0, CATEGORIES)
        known = category < category_count
        pixels = tl.zeros([1], tl.int64)
        here = tl.zeros([CATEGORIES], tl.int32)
        for row in range(first, end, ENTRIES):
            ok = row + lanes < end
            count = tl.load(own + row - first + lanes, ok, 0)
            pixels += tl.sum(count, 0).to(tl.int64)
            if OVERLAP:
                named = categories + (row + lanes)[:, None] * category_count + category[None, :]
                held = tl.load(named, (ok & (count > 0))[:, None] & known[None, :], 0).to(tl.int32)
                here = tl.maximum(here, tl.max(held, 0))
        if not OVERLAP:
            here = tl.load(present + image * category_count + category, known, 0).to(tl.int32)
        targets = activation + row_of_unit * category_count + category
        tl.atomic_add(targets, tl.sum(pixels, 0) * (here > 0).to(tl.int64), known & (here > 0), sem="relaxed")
        tl.atomic_add(area + row_of_unit, tl.sum(pixels, 0), sem="relaxed")
