from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from prunescope.devices import import_torchvision
from prunescope.errors import InputError
from prunescope.networks import build_network, list_layers, observe, save_weights
from prunescope.networks.layers import units_axes
from prunescope.pruning.mask import Mask
from tests.networks.small import Touch, values


@pytest.mark.parametrize(
    ("name", "size", "layer", "shape"),
    [
        ("test_vit", 160, "blocks.5", (64, 10, 10)),
        ("test_vit", 160, "blocks.0.attn.qkv", (192, 10, 10)),
        ("test_vit_relpos", 160, "blocks.2", (96, 10, 10)),
        ("test_resnet", 64, "layer3", (192, 4, 4)),
        ("test_convnext", 64, "stages.2.blocks.0.mlp.fc1", (192, 4, 4)),
        ("test_maxvit", 160, "stages.0.blocks.0.attn_block.mlp.fc1", (128, 40, 40)),
    ],
)
def test_networks_of_every_kind_are_built_and_their_layers_give_maps(
    name: str, size: int, layer: str, shape: tuple[int, int, int]
) -> None:
    model = build_network(f"timm:{name}", classes=7, seed=0)
    assert model.training
    listed = list_layers(model, size)
    assert dict(zip(listed.layer, listed["shape"], strict=True))[layer] == shape
    axes = units_axes(model, [layer], (size, size))
    with torch.no_grad(), observe(model.eval(), [layer], axes) as outputs:
        assert model(torch.zeros(2, 3, size, size)).shape == (2, 7)
    assert outputs[layer].shape == (2, *shape)


def test_a_thousand_classes_unless_told() -> None:
    assert build_network("timm:test_resnet").get_submodule("fc").out_features == 1000


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone(name: str) -> None:
    before = torch.get_rng_state()
    one, same, other = (build_network(f"timm:{name}", classes=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(values(one), values(same))
    assert not torch.equal(values(one), values(other))


def test_the_number_of_classes_is_taken_from_the_weights_file(tmp_path: Path) -> None:
    trained = build_network("timm:test_vit", classes=5, seed=1)
    save_weights(trained, tmp_path / "w.safetensors")
    again = build_network("timm:test_vit", weights=tmp_path / "w.safetensors")
    assert torch.equal(values(again), values(trained))


def test_the_linear_weights_of_a_vision_transformer_can_be_pruned() -> None:
    model = build_network("timm:test_vit", classes=5)
    mask = Mask.dense(model)
    assert {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight", "head.weight"} <= set(
        mask
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5", r"timm has no network 'resnet5'; the nearest are: resnet5"),
        ("", r"timm has no network ''"),
        ("hf-hub:timm/test_resnet", r"timm has no network 'hf-hub:timm/test_resnet'"),
        ("test_resnet.r160_in1k", r"write timm:test_resnet@r160_in1k$"),
        ("test_resnet@r161_in1k", r"no published weights 'r161_in1k'; the nearest are: r160_in1k"),
        ("hiera_tiny_224", r"does not keep its tokens in the order of the positions"),
        ("test_resnet@", r"no published weights ''; there are: r160_in1k"),
    ],
)
def test_a_name_that_cannot_be_used_says_what_is_expected(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_network(f"timm:{name}")


def test_classes_must_agree_with_published_weights_and_a_file_cannot_replace_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="published for 1000 classes, not 16"):
        build_network("timm:test_resnet@DEFAULT", classes=16)
    with pytest.raises(InputError, match=r"give timm:test_resnet with the file, or leave out the file"):
        build_network("timm:test_resnet@DEFAULT", weights=tmp_path / "w.safetensors")


def test_without_timm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"timm:resnet50 needs timm.*pip install 'prunescope\[timm\]'"):
        build_network("timm:resnet50")


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the files that timm looks for on the hub lie in this machine's folder; those that do not are not there."""
    import_torchvision()
    from huggingface_hub.errors import EntryNotFoundError
    from timm.models import _hub

    def serve(folder: Path) -> None:
        def download(_repository: str = "", filename: str = "", **options: Any) -> str:
            file = folder / (filename or options["filename"])
            if not file.is_file():
                raise EntryNotFoundError(f"{file.name} is not there")
            return str(file)

        monkeypatch.setattr(_hub, "hf_hub_download", download)

    return serve


@pytest.mark.parametrize("tag", ["DEFAULT", "r160_in1k"])
def test_published_weights_are_read_as_safetensors(tmp_path: Path, published: Any, tag: str) -> None:
    known = build_network("timm:test_resnet", seed=3)
    save_file(known.state_dict(), tmp_path / "model.safetensors")
    published(tmp_path)
    assert torch.equal(values(build_network(f"timm:test_resnet@{tag}")), values(known))
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_code_in_published_weights_is_refused_and_does_not_run(tmp_path: Path, published: Any) -> None:
    content = io.BytesIO()
    torch.save({"more": Touch(tmp_path / "code-ran")}, content)
    (tmp_path / "pytorch_model.bin").write_bytes(content.getvalue())
    published(tmp_path)
    with pytest.raises(InputError, match="cannot be downloaded or read"):
        build_network("timm:test_resnet@DEFAULT")
    assert not (tmp_path / "code-ran").exists()


def test_weights_that_cannot_be_downloaded_say_what_to_do(tmp_path: Path, published: Any) -> None:
    published(tmp_path)
    with pytest.raises(
        InputError, match=r"fetch timm/test_resnet\.r160_in1k by other means, then give timm:test_resnet with"
    ):
        build_network("timm:test_resnet@DEFAULT")
