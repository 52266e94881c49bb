"""The settings of a dissection have one set of defaults and limits, whether functions, commands or recipes set them."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from prunescope import dissect, dissect_activations, import_netdissect
from prunescope.cli import app
from prunescope.dissection import Settings
from prunescope.errors import InputError
from prunescope.store.recipe import DissectionSettings


def test_functions_and_recipes_have_the_defaults_of_the_settings() -> None:
    defaults = Settings().model_dump()
    for function in (dissect, dissect_activations, import_netdissect):
        own = {name: one.default for name, one in inspect.signature(function).parameters.items()}
        assert {name: own[name] for name in defaults.keys() & own.keys()} == {
            name: defaults[name] for name in defaults.keys() & own.keys()
        }
    recipe = DissectionSettings(layers=("a",), concepts="folder")
    assert {name: getattr(recipe, name) for name in Settings.model_fields} == Settings().model_dump()


def test_the_commands_help_states_the_defaults_of_the_settings() -> None:
    shown = " ".join(CliRunner().invoke(app, ["dissect", "--help"], terminal_width=200).output.split())
    for name, value in Settings().model_dump().items():
        after = shown[shown.index(f"--{name.replace('_', '-')} ") :]
        own = after[: after.index(" --", 2)]
        assert f"[default: ({value})]" in own if value != () else "[default" not in own, name


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"quantile": 0}, "quantile is 0, expected a fraction between 0 and 1"),
        ({"quantile": "0.1"}, "quantile is '0.1', expected a fraction"),
        ({"iou": 1.0}, "iou is 1.0, expected a bound from 0 up to 1"),
        ({"batch_size": True}, "batch size is True, expected at least 1 image"),
        ({"batch_size": 2.5}, r"batch size is 2\.5, expected at least 1 image"),
        ({"align": "half"}, "align is 'half'; the nearest are: half-pixel"),
        ({"presence": None}, "presence is None; there are: image, overlap"),
    ],
)
def test_a_setting_out_of_range_is_refused_stating_what_was_expected(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Settings.checked(**given)


def test_numbers_of_numpy_are_settings_too() -> None:
    found = Settings.checked(quantile=np.float32(0.25), batch_size=np.int64(7))
    assert (found.quantile, found.batch_size) == (0.25, 7)
