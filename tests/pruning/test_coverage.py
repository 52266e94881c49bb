"""How much of a network is pruned is said where it is not nearly all of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunescope.networks.source import build_network
from prunescope.pruning import Coverage, Mask, prune


class Transformer(nn.Module):
    """Parameters of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.zeros(1, 5, 8))
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.layer_scale = nn.Parameter(torch.zeros(8, 1, 1))
        self.relative_bias = nn.Parameter(torch.zeros(9, 2))
        self.norm = nn.LayerNorm((8, 4))
        self.words = nn.Embedding(7, 8)
        self.recurrent = nn.LSTM(8, 4, bias=False)
        self.mixed = nn.ParameterDict({"kernel": nn.Parameter(torch.zeros(4, 4))})
        self.fc, self.head = nn.Linear(8, 30), nn.Linear(8, 7, bias=False)
        self.head.weight = self.words.weight
        self.register_buffer("table", torch.zeros(9, 9))


def test_what_looks_like_a_weight_and_is_never_pruned_is_counted() -> None:
    network = Transformer()
    found = Coverage.of(network, Mask.dense(network))
    assert found.outside == {
        "places": 40, "recurrent.weight_ih_l0": 128, "recurrent.weight_hh_l0": 64, "mixed.kernel": 16,
    }  # fmt: skip
    assert (found.prunable, found.excluded) == (240 + 56, 0)
    assert found.parameters == sum(parameter.numel() for parameter in network.parameters())
    without = Coverage.of(network, Mask.dense(network, ("fc",)))
    assert (without.prunable, without.excluded, without.outside) == (56, 240, found.outside)


def test_a_note_is_only_made_where_it_matters() -> None:
    network = build_network("prunescope:resnet8x16", seed=0)
    assert Coverage.of(network, Mask.dense(network)).note() == ""
    note = Coverage.of(network, Mask.dense(network, ("stage3",))).note()
    assert "never pruned: excluded weights (" in note


def test_pruning_from_python_warns_too() -> None:
    with pytest.warns(UserWarning, match=r"never pruned: places \(40\), recurrent\.weight_ih_l0 \(128\)"):
        mask = prune(Transformer())
    assert mask.prunable == 296


def test_a_weight_that_has_several_names_can_be_masked_by_any() -> None:
    network = Transformer()
    prune(network, fraction=0.5).apply(network)
    assert 0 < (network.words.weight == 0).sum() == (network.head.weight == 0).sum()
