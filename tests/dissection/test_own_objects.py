"""A network, a data set and a score of the user's own are accepted, or refused with the reason."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from prunescope import dissect, dissect_activations, open_concepts
from prunescope.concepts import ConceptData, ImageLabels
from prunescope.dissection.scores import PairCounts, interpretable
from prunescope.errors import InputError
from tests.dissection.worlds import GOLDEN

FEATURES = np.load(GOLDEN / "activations.npz")["features"]


@dataclass
class InMemory:
    """Labelled images with only the members that dissection needs."""

    data: ConceptData
    root: str = "from memory"
    damage: dict[int, ImageLabels] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.categories, self.names = self.data.categories, list(self.data.names)
        self.image_size, self.label_size = self.data.image_size, self.data.label_size
        self.labels = self.data.labels[["name", "category"]]

    def __len__(self) -> int:
        return len(self.data)

    def image(self, i: int) -> np.ndarray:
        return self.data.image(i)

    def image_labels(self, i: int) -> ImageLabels:
        return self.damage.get(i, self.data.image_labels(i))


def test_a_data_set_of_ones_own_gives_what_the_same_in_brodens_format_gives() -> None:
    data = open_concepts(GOLDEN / "concepts")
    # Blocks and donors differ, since such a data set does not tell which of its images have labels of the same
    # categories.
    found = dissect_activations(FEATURES, concepts=InMemory(data), chance=0)
    expected = dissect_activations(FEATURES, concepts=data, chance=0)
    of_blocks = ["shrinkage", "iou_low", "iou_high", "concept_set"]
    pd.testing.assert_frame_equal(found.units.drop(columns=of_blocks), expected.units.drop(columns=of_blocks))
    assert found.summary["settings"]["concepts"] == "from memory"


@pytest.mark.parametrize("wrong", ["codes", "shape", "number", "starts"])
def test_impossible_labels_of_such_a_data_set_are_refused_naming_the_image(wrong: str) -> None:
    data = open_concepts(GOLDEN / "concepts")
    labels = data.image_labels(3)
    codes, starts, numbers = labels.codes.copy(), labels.starts.copy(), labels.numbers.copy()
    if wrong == "codes":
        codes[0, 0] = len(starts) - 1
    elif wrong == "shape":
        codes = codes[1:]
    elif wrong == "number":
        numbers[-1] = 99_999
    else:
        starts[-1] += 1
    with pytest.raises(InputError, match=r"from memory: the labels of image made/00003\.jpg"):
        dissect_activations(FEATURES, concepts=InMemory(data, damage={3: ImageLabels(codes, starts, numbers)}))


def precision_of(counts: PairCounts) -> np.ndarray:
    """The share of the mask's pixels that have the concept."""
    return counts.intersect / np.maximum(counts.activation, 1)


def test_a_score_of_ones_own_chooses_the_concepts_and_decides_which_units_are_interpretable() -> None:
    found = dissect_activations(FEATURES, concepts=GOLDEN / "concepts", score=precision_of, iou=0.5)
    best = found.pairs.sort_values(["score", "number"], ascending=[False, True]).drop_duplicates("unit")
    best = best.set_index("unit").sort_index()
    named = found.units.dropna(subset="label").set_index("unit")
    assert named["label"].to_dict() == best["label"].to_dict()
    assert (named["score"] == best["intersect"] / best["activation"]).all()
    assert found.summary["interpretable"] == (named["score"] > 0.5).sum() == interpretable(found.units, 0.5).sum()
    assert found.summary["settings"]["score"] == "precision_of"
    assert "score" not in dissect_activations(FEATURES, concepts=GOLDEN / "concepts", score="iou").units


def test_unknown_scores_and_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="score is 'iuo'; the nearest are: iou"):
        dissect_activations(FEATURES, concepts=GOLDEN / "concepts", score="iuo")
    with pytest.raises(InputError, match="expected a finite number for each pair"):
        dissect_activations(FEATURES, concepts=GOLDEN / "concepts", score=lambda counts: counts.intersect[:1])
    with pytest.raises(InputError, match="expected a finite number for each pair"):
        dissect_activations(FEATURES, concepts=GOLDEN / "concepts", score=lambda counts: counts.intersect * np.nan)


def test_an_object_that_is_no_data_set_is_refused_with_what_it_lacks() -> None:
    with pytest.raises(InputError, match=r"concepts is a list without root, .*image_labels; give a folder"):
        dissect_activations(FEATURES, concepts=[1, 2])  # type: ignore[arg-type]


def test_a_device_that_cannot_be_used_is_refused_before_anything_is_read() -> None:
    with pytest.raises(InputError, match="device 'nonesuch' cannot be used"):
        dissect(nn.Conv2d(3, 2, 1), layers=[""], concepts=GOLDEN / "concepts", device="nonesuch")


class Filling(nn.Module):
    """A convolution that needs more memory than a computer has once it gets a batch of eight images."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        torch.empty(1 << (50 if len(images) == 8 else 0))
        return self.convolution(images)


def test_a_batch_that_does_not_fit_into_memory_is_an_error_whose_advice_works() -> None:
    with pytest.raises(InputError, match=r"8 images at a time do not fit .* smaller batch_size \(--batch-size\)"):
        dissect(Filling(), layers=["convolution"], concepts=GOLDEN / "concepts", batch_size=8, chance=0)
    found = dissect(Filling(), layers=["convolution"], concepts=GOLDEN / "concepts", batch_size=4, chance=0)
    assert len(found.units) == 2


def test_a_state_dict_in_place_of_a_network_does_not_fill_the_message() -> None:
    state = nn.Conv2d(3, 200, 9).state_dict()
    with pytest.raises(InputError, match=r"(?s)the network is .*expected a torch.nn.Module") as caught:
        dissect(state, layers=["a"], concepts=GOLDEN / "concepts")  # type: ignore[arg-type]
    assert len(str(caught.value)) < 400
