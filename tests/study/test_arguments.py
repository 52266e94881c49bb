"""What a notebook may give wrongly is told by name, before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import prunescope
from prunescope.training.steps import Step

LINEAR = nn.Linear(4, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: prunescope.plan("demo"), r"recipes: give a list, \['demo'\]"),
        (lambda: prunescope.studies("demo", out="out"), r"recipes: give a list, \['demo'\]"),
        (lambda: prunescope.read_recipe("demo", "trials=2"), r"changes: give a list, \['trials=2'\]"),
        (lambda: prunescope.Study("demo", "out", branch_from="other"), r"branch_from: give a list, \['other'\]"),
        (lambda: prunescope.Study("demo", "out", snapshots="6ep"), r"snapshots: give a list, \['6ep'\]"),
        (lambda: prunescope.prune(LINEAR, exclude="fc"), r"exclude: give a list, \['fc'\]"),
    ],
)
def test_one_text_instead_of_a_list_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(prunescope.InputError, match=message):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda name: prunescope.prune(name),
        lambda name: prunescope.dissect(name, layers=["layer4"], concepts="concepts"),
    ],
)
def test_a_networks_name_instead_of_a_network_is_refused_and_the_way_told(call: Callable[[Any], Any]) -> None:
    with pytest.raises(prunescope.InputError, match=r"prunescope\.build_network\('torchvision:resnet18'\)"):
        call("torchvision:resnet18")


def test_snapshots_are_written_as_steps_are() -> None:
    study = prunescope.Study("demo", "out", snapshots=["6ep", Step.parse("500it")])
    assert study.snapshots == (Step(epochs=6), Step(steps=500))


@pytest.mark.parametrize("speeds", [(0, 0), (-5, 10), (10,), (float("nan"), 1), 0, -5.0])
def test_a_plan_needs_speeds_above_0(speeds: Any) -> None:
    with pytest.raises(prunescope.InputError, match=r"images_per_second is .*expected one or two numbers above 0"):
        prunescope.plan(["demo"], images_per_second=speeds)


def test_a_layer_that_a_study_does_not_dissect_is_refused_with_those_that_it_does(tmp_path: Path) -> None:
    with pytest.raises(prunescope.InputError, match="does not dissect layer 'stage4'; the nearest are: stage3"):
        prunescope.Study("demo", tmp_path).units(0, 0, "stage4")
