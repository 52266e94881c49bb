"""A dissection says which concepts no unit can detect, and why no unit may be interpretable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import prunescope
from prunescope.concepts import LabelledImage, write_concepts
from prunescope.dissection.reach import highest_iou, reach_note
from tests.cli.commands import typed


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 30), st.booleans()), min_size=1, max_size=6),
    st.integers(1, 30),
)
def test_no_mask_has_a_higher_iou_than_the_bound(blocks: list[tuple[int, int, bool]], size: int) -> None:
    """Greedy masks are the best there are: first on the concept, then outside of the category, then elsewhere."""
    truth, elsewhere, without = 0, 0, 0
    for count, rest, absent in blocks:
        if absent:
            without += count + rest
        else:
            truth, elsewhere = truth + count, elsewhere + rest
    pixels = truth + elsewhere + without
    mask = min(size, pixels)
    on = min(mask, truth)
    outside = min(mask - on, without)
    counted = mask - outside
    best = on / (counted + truth - on) if truth else 0.0
    found = highest_iou(np.array([truth]), np.array([without]), pixels, mask / pixels)
    np.testing.assert_allclose(found, [best])


def data_set(folder: Path) -> Path:
    """Write twenty images in which one concept covers half, one a few pixels, and one a pixel of a single image."""
    rng, images = np.random.default_rng(0), []
    for index in range(20):
        half, spot = np.zeros((32, 32), int), np.zeros((32, 32), int)
        half[:, :16] = 1
        spot[20:22, 20:23] = 2
        if index == 3:
            spot[0, 0] = 3
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        images.append(LabelledImage(f"{index}", pixels, {"object": [half, spot]}))
    return write_concepts(folder, images, ["half", "spot", "dot"], progress=False)


def test_a_dissection_names_the_concepts_that_no_unit_can_reach(tmp_path: Path) -> None:
    data = data_set(tmp_path / "data")
    given_: Any = prunescope.dissect(
        prunescope.build_network("prunescope:resnet8x16", seed=0), layers=["stage3"], concepts=data, device="cpu",
        chance=0,
    )["stage3"]  # fmt: skip
    assert given_.summary["out_of_reach"] == {"too large": ["half"], "too small": ["dot"]}
    note = reach_note("stage3", given_.summary)
    assert note is not None
    assert note.startswith(
        "stage3: masks of 0.5 % of all pixels cannot reach an IoU above 0.05 with 1 concept (too large: half) and 1 "
        "concept (too small: dot)"
    )


def test_the_command_says_why_nothing_may_be_interpretable(tmp_path: Path) -> None:
    data = data_set(tmp_path / "data")
    result = typed(
        "dissect", "prunescope:resnet8x16", "--layer", "stage3", "--concepts", data, "--out", tmp_path / "out",
        "--chance", 0, "--iou", 0.9,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "0 of 64 units interpretable" in result.stdout
    assert "the data set has only 20 images, the network has random weights" in result.stderr
    assert result.stderr.count("note: stage3: ") == 1
