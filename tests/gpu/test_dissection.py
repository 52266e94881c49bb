"""On a GPU, dissection counts the same integers as on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunescope.concepts import pack_concepts
from prunescope.dissection import Budget, dissect, dissect_activations
from prunescope.dissection import tally_on_device as tally
from prunescope.dissection.on_cpu import CpuKernels
from prunescope.dissection.workers import Workers
from prunescope.errors import InputError
from prunescope.networks import build_network
from prunescope.networks.preprocessing import Preprocessing, arrange
from tests.dissection.test_on_device import CONCEPTS, same
from tests.dissection.worlds import GOLDEN, World, write_world

pytestmark = pytest.mark.gpu

GPU = "cuda"


class Replay(nn.Module):
    """A network whose layer `maps` puts out given features, image after image."""

    def __init__(self, features: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("features", torch.from_numpy(features))
        # Pooling of single values changes nothing, and shows that units come first.
        self.maps, self._next = nn.MaxPool2d(1), 0

    def forward(self, images: Tensor) -> Tensor:
        # What a network is checked with beforehand is not normalised, so that nothing in it is below zero.
        if bool((images >= 0).all()):
            return self.maps(self.features[:1].repeat(len(images), 1, 1, 1)).flatten(1).mean(1)
        shown = self.features[self._next : self._next + len(images)]
        self._next = (self._next + len(images)) % len(self.features)
        return self.maps(shown).flatten(1).mean(1)


@pytest.mark.parametrize("kernels", ["triton", "tensor operations"])
@pytest.mark.parametrize("presence", ["image", "overlap"])
def test_the_golden_activations(presence: Any, kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernels == "triton":
        assert tally._kernels(torch.device(GPU)) is not None, "install Triton and a C compiler"
    else:
        monkeypatch.setattr(tally, "_kernels", lambda _device: None)
    features = np.load(GOLDEN / "activations.npz")["features"]
    expected = dissect_activations(features, concepts=CONCEPTS, presence=presence)
    model = Replay(features)
    found = dissect(model, layers=["maps"], concepts=CONCEPTS, presence=presence, device=GPU, batch_size=20)
    same(found["maps"], expected)


@settings(max_examples=12, deadline=None)
@given(world=World.strategy(), data=st.data())
def test_random_worlds_with_ties_and_dead_units(
    tmp_path_factory: pytest.TempPathFactory, world: World, data: st.DataObject
) -> None:
    folder = write_world(world, tmp_path_factory.mktemp("world"))
    if data.draw(st.booleans()):
        pack_concepts(folder, workers=1)
    features = world.features(data.draw(st.integers(0, 2**32 - 1)))
    chosen: dict[str, Any] = {
        "presence": data.draw(st.sampled_from(["image", "overlap"])),
        "quantile": data.draw(st.sampled_from([0.005, 0.1, 0.3, 0.9])),
    }
    expected = dissect_activations(features, concepts=folder, **chosen)
    batch_size = data.draw(st.integers(1, len(features)))
    model = Replay(features)
    same(
        dissect(model, layers=["maps"], concepts=folder, device=GPU, batch_size=batch_size, **chosen)["maps"], expected
    )


@pytest.mark.parametrize("align", ["half-pixel", "receptive-field"])
@pytest.mark.parametrize("memory", [None, 1 << 22, 0])
def test_a_networks_layers_in_any_memory(align: Any, memory: int | None) -> None:
    model = build_network("prunescope:resnet8x4", classes=3, seed=0)
    layers = ["stem.0", "stage1", "stage3"]
    chosen: dict[str, Any] = {"layers": layers, "concepts": CONCEPTS, "align": align, "device": GPU}
    with (
        Workers(2) as workers,
        mock.patch("prunescope.dissection.run.choose_backend", return_value=CpuKernels(workers)),
    ):
        by_cpu_kernels = dissect(model, **chosen)
    found = dissect(model, **chosen, budget=Budget(memory))
    for layer in layers:
        same(found[layer], by_cpu_kernels[layer])


def test_a_network_in_fp32_gives_the_cpus_integers_but_for_pixels_on_a_threshold() -> None:
    model = build_network("prunescope:resnet8x4", classes=3, seed=0)
    layers = ["stem.0", "stage1", "stage3"]
    on_cpu = dissect(model, layers=layers, concepts=CONCEPTS)
    on_gpu = dissect(model, layers=layers, concepts=CONCEPTS, device=GPU)
    for layer in layers:
        for name in ("intersect", "activation", "area"):
            assert np.abs(on_cpu[layer].tally[name] - on_gpu[layer].tally[name]).max() <= 2, (layer, name)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_lower_precisions_find_nearly_the_same(precision: Any, layout: torch.memory_format) -> None:
    model = build_network("prunescope:resnet8x4", classes=3, seed=0).to(memory_format=layout)
    exact = dissect(model, layers=["stage3"], concepts=CONCEPTS, device=GPU)["stage3"].units
    found = dissect(model, layers=["stage3"], concepts=CONCEPTS, device=GPU, precision=precision)["stage3"].units
    assert (found["iou"] - exact["iou"]).abs().max() < 0.02


def test_a_packed_copy_and_files_give_the_same(tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(CONCEPTS, tmp_path / "concepts"))
    model = build_network("prunescope:resnet8x4", classes=3, seed=0)
    from_files = dissect(model, layers=["stage3"], concepts=folder, device=GPU)
    pack_concepts(folder)
    same(dissect(model, layers=["stage3"], concepts=folder, device=GPU)["stage3"], from_files["stage3"])


def test_a_network_comes_back_to_its_device_and_mode_even_after_an_error() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    dissect(model, layers=["1"], concepts=CONCEPTS)
    model[0].weight.data.fill_(torch.nan)
    with pytest.raises(InputError, match="nan"):
        dissect(model, layers=["0"], concepts=CONCEPTS, device=GPU)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"cpu"}
    assert all(module.training for module in model.modules())


def test_gray_images_are_the_same_as_on_the_cpu() -> None:
    pixels = torch.randint(256, (2, 64, 64, 3), dtype=torch.uint8)
    gray = Preprocessing((0.5,), (0.5,))
    assert torch.equal(arrange(pixels.to(GPU), gray).cpu(), arrange(pixels, gray))
