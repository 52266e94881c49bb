"""In a notebook, results are shown in a few lines, and text from data sets cannot act as HTML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import prunescope
from prunescope.concepts import from_arrays
from prunescope.dissection import Dissection, LayerDissection, UnitMatching
from prunescope.evidence import verdict
from tests.evidence.test_verdict import flat, study

HOSTILE = "<img src=x onerror=alert(1)>"


def dissected() -> LayerDissection:
    image, label = np.zeros((4, 4, 3), np.uint8), np.array([[0, 1], [0, 1]])
    data = from_arrays([(image, {HOSTILE: label})] * 3, names={1: HOSTILE})
    maps = np.random.default_rng(0).normal(size=(3, 4, 2, 2)).astype(np.float32)
    return prunescope.dissect_activations(maps, concepts=data, quantile=0.3)


def results(out: Path) -> list[Any]:
    layer = dissected()
    return [
        layer,
        Dissection({HOSTILE: layer}),
        UnitMatching(np.array([1, 0, -1]), np.array([0.5, 0.7, np.nan]), 0.9),
        prunescope.Mask({HOSTILE: torch.ones(2, 2, dtype=torch.bool)}),
        verdict(study(flat).assign(layer=HOSTILE)),
        prunescope.Series(
            torch.nn.Sequential(),
            [HOSTILE] * 2,
            out / "series",
            concepts="data",
            layers=["layer"],
            name=HOSTILE,
            device="cpu",
        ),
        prunescope.Study("demo", out / HOSTILE.replace("/", ""), device="cpu"),
    ]


@pytest.mark.filterwarnings("ignore")
def test_results_are_short_and_their_html_is_escaped(tmp_path: Path) -> None:
    for result in results(tmp_path):
        assert len(repr(result).splitlines()) == 1
        assert repr(result).startswith(f"{type(result).__name__}(")
        html = result._repr_html_()
        assert "<img" not in html
        assert html.count("<tr") <= 70
    assert "&lt;img" in dissected()._repr_html_()


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[1] / "docs" / "notebook.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert names["found"].units["label"].tolist() == ["square"]
