"""On a GPU, units are matched as on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prunescope.dissection import UnitMatcher, match_units
from prunescope.networks import build_network
from tests.dissection.worlds import GOLDEN

pytestmark = pytest.mark.gpu


def test_the_same_maps_give_the_same_matching() -> None:
    random = torch.Generator().manual_seed(0)
    a, b = torch.randn(8, 70, 7, 7, generator=random), torch.randn(8, 60, 4, 4, generator=random)
    b[:, :50] += torch.nn.functional.avg_pool2d(a[:, :50], 4, 1)
    found = []
    for device in ("cpu", "cuda"):
        matcher = UnitMatcher()
        matcher.add(a[:5].to(device), b[:5].to(device))
        matcher.add(a[5:].to(device), b[5:].to(device))
        found.append(matcher.result())
    assert found[0].units.tolist() == found[1].units.tolist()
    np.testing.assert_allclose(found[0].correlation, found[1].correlation, atol=1e-9)
    assert found[0].cka == pytest.approx(found[1].cka, abs=1e-9)


@pytest.mark.filterwarnings("ignore:network")
def test_a_network_is_matched_to_itself_and_as_on_the_cpu() -> None:
    models = [build_network("prunescope:resnet8x4", classes=3, seed=seed) for seed in (0, 1)]
    concepts = GOLDEN / "concepts"
    own = match_units(models[0], models[0], layers=["stage3"], concepts=concepts, device="cuda")["stage3"]
    assert own.units.tolist() == list(range(16))
    assert own.cka == pytest.approx(1, abs=1e-6)
    found = [
        match_units(models[0], models[1], layers=["stage1", "stage3"], concepts=concepts, device=device)
        for device in ("cuda", "cpu")
    ]
    for layer in ("stage1", "stage3"):
        assert found[0][layer].cka == pytest.approx(found[1][layer].cka, abs=1e-4)
        assert found[0][layer].correlation.sum() == pytest.approx(found[1][layer].correlation.sum(), abs=1e-2)
