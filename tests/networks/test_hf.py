from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prunescope.devices import import_torchvision
from prunescope.errors import InputError
from prunescope.networks import build_network, list_layers, observe, save_weights
from prunescope.networks.layers import units_axes
from prunescope.pruning.mask import Mask
from tests.networks.small import values

VIT = {"image_size": 32, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3} | {
    "intermediate_size": 48
}
SWIN = {"image_size": 64, "patch_size": 4, "embed_dim": 12, "depths": [1, 1, 1], "num_heads": [2, 2, 2]} | {
    "window_size": 4
}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}

Folder = Callable[..., Path]


@pytest.fixture
def transformers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """transformers, without the hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import_torchvision()
    import transformers

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return transformers


@pytest.fixture
def folder(transformers: Any, tmp_path: Path) -> Folder:
    def write(kind: str, **options: Any) -> Path:
        getattr(transformers, f"{kind}Config")(**options).save_pretrained(tmp_path / kind)
        return tmp_path / kind

    return write


@pytest.fixture
def trained(transformers: Any, tmp_path: Path) -> Path:
    """A folder as save_pretrained writes it: a tiny ViT for three classes, with weights."""
    config = transformers.ViTConfig(**VIT, num_labels=3)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "trained")
    return tmp_path / "trained"


@pytest.mark.parametrize(
    ("kind", "options", "size", "layer", "shape"),
    [
        ("ViT", VIT, 32, "vit.layers.1", (24, 4, 4)),
        ("DeiT", VIT, 32, "deit.layers.0.mlp.fc1", (48, 4, 4)),
        ("Dinov2WithRegisters", VIT, 32, "dinov2_with_registers.encoder", (24, 4, 4)),
        ("Dinov2WithRegisters", VIT | {"num_register_tokens": 3}, 32, "dinov2_with_registers.encoder", (24, 4, 4)),
        ("Swin", SWIN, 64, "swin.encoder.layers.1.blocks.0", (24, 8, 8)),
        ("ConvNext", STAGES, 64, "convnext.encoder.stages.2.layers.0.pwconv1", (96, 4, 4)),
        ("ResNet", STAGES | {"embedding_size": 8, "layer_type": "basic"}, 64, "resnet.encoder", (32, 2, 2)),
    ],
)
def test_image_classifiers_of_every_kind_are_built_and_their_layers_give_maps(
    folder: Folder, kind: str, options: dict[str, Any], size: int, layer: str, shape: tuple[int, int, int]
) -> None:
    model = build_network(f"hf:{folder(kind, **options)}", classes=7, seed=0)
    assert model.training
    listed = list_layers(model, size)
    assert dict(zip(listed.layer, listed["shape"], strict=True))[layer] == shape
    axes = units_axes(model, [layer], (size, size))
    with torch.no_grad(), observe(model.eval(), [layer], axes) as outputs:
        assert model(torch.zeros(2, 3, size, size)).shape == (2, 7)
    assert outputs[layer].shape == (2, *shape)


def test_the_map_of_a_vision_transformers_layer_is_its_hidden_state_without_the_class_token(trained: Path) -> None:
    model = build_network(f"hf:{trained}").eval()
    images = torch.randn(2, 3, 32, 32)
    hidden: list[torch.Tensor] = []
    handle = model.get_submodule("vit.layers.0").register_forward_hook(lambda *given: hidden.append(given[2]))
    with torch.no_grad(), observe(model, ["vit.layers.0"], {"vit.layers.0": -1}) as outputs:
        model(images)
    handle.remove()
    for y in range(4):
        for x in range(4):
            assert torch.equal(outputs["vit.layers.0"][:, :, y, x], hidden[0][:, 1 + 4 * y + x])


def test_a_configuration_alone_gives_weights_that_a_seed_fixes(folder: Folder) -> None:
    name = f"hf:{folder('ViT', **VIT)}"
    before = torch.get_rng_state()
    one, same, other = (build_network(name, classes=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(values(one), values(same))
    assert not torch.equal(values(one), values(other))


def test_weights_beside_the_configuration_are_loaded(transformers: Any, trained: Path) -> None:
    inner = transformers.ViTForImageClassification.from_pretrained(trained).eval()
    model = build_network(f"hf:{trained}", classes=3).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(images), inner(images).logits)
    assert model.state_dict().keys() == inner.state_dict().keys()


def test_the_number_of_classes_of_those_weights_cannot_be_changed(trained: Path) -> None:
    with pytest.raises(InputError, match=r"are for 3 classes, not 5: .*only its config\.json"):
        build_network(f"hf:{trained}", classes=5)


def test_a_file_of_weights_replaces_those_beside_the_configuration(trained: Path, tmp_path: Path) -> None:
    (trained / "model.safetensors").rename(tmp_path / "own.safetensors")
    wanted = build_network(f"hf:{trained}", classes=5, seed=4)
    save_weights(wanted, tmp_path / "w.safetensors")
    (tmp_path / "own.safetensors").rename(trained / "model.safetensors")
    assert torch.equal(values(build_network(f"hf:{trained}", weights=tmp_path / "w.safetensors")), values(wanted))


def test_a_copy_of_the_network_computes_with_its_own_weights(trained: Path) -> None:
    model = build_network(f"hf:{trained}").eval()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weights in other.parameters():
            weights.zero_()
        assert model(torch.ones(1, 3, 32, 32)).abs().sum() > 0
        assert other(torch.ones(1, 3, 32, 32)).abs().sum() == 0


def test_the_linear_weights_of_a_vision_transformer_can_be_pruned_and_trained(trained: Path) -> None:
    model = build_network(f"hf:{trained}")
    mask = Mask.dense(model)
    assert {"vit.layers.0.attention.q_proj.weight", "vit.layers.1.mlp.fc2.weight", "classifier.weight"} <= set(mask)
    nn.functional.cross_entropy(model(torch.randn(2, 3, 32, 32)), torch.tensor([0, 2])).backward()
    assert all(weight.grad is not None for weight in mask.parameters(model).values())


def test_pickled_weights_are_refused_without_being_read(trained: Path) -> None:
    (trained / "model.safetensors").unlink()
    (trained / "pytorch_model.bin").write_bytes(b"no pickle")
    with pytest.raises(InputError, match=r"pytorch_model\.bin, which would have to be unpickled.*save_pretrained"):
        build_network(f"hf:{trained}")


def test_code_beside_the_configuration_is_not_run(folder: Folder, tmp_path: Path) -> None:
    path = folder("ViT", **VIT)
    (path / "own.py").write_text(f"open({str(tmp_path / 'code-ran')!r}, 'w')\n")
    names = {"AutoConfig": "own.Config", "AutoModelForImageClassification": "own.Model"}
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"auto_map": names}))
    build_network(f"hf:{path}", classes=2)
    (path / "config.json").write_text(json.dumps(config | {"auto_map": names, "model_type": "of-its-own"}))
    with pytest.raises(InputError, match="cannot be read"):
        build_network(f"hf:{path}", classes=2)
    assert not (tmp_path / "code-ran").exists()


def damage_weights(path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"damaged")


def leave_out_the_classifier(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in tensors.items() if "classifier" not in name}, path / "model.safetensors"
    )


def change_the_width(path: Path) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"intermediate_size": 12}))


def contradict(path: Path) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"num_attention_heads": 7}))


def write_no_json(path: Path) -> None:
    (path / "config.json").write_text("{")


def remove_the_configuration(path: Path) -> None:
    (path / "config.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (damage_weights, r"cannot be built"),
        (leave_out_the_classifier, r"2 tensors are missing \(classifier.bias, classifier.weight\)"),
        (change_the_width, r"cannot be built"),
        (contradict, r"cannot be built"),
        (write_no_json, r"cannot be read"),
        (remove_the_configuration, r"the folder has no config\.json"),
    ],
)
def test_a_folder_that_cannot_be_used_is_an_input_error(
    trained: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(trained)
    with pytest.raises(InputError, match=message):
        build_network(f"hf:{trained}")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("Bert", "is a bert, which is not an image classifier"),
        ("ImageGPT", "input_ids"),
        ("Hiera", "is a hiera: its tokens"),
    ],
)
def test_networks_that_do_not_classify_images_or_reorder_them_are_refused(
    folder: Folder, kind: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build_network(f"hf:{folder(kind)}")


@pytest.mark.parametrize("name", ["", ".", "./nowhere", "~/nowhere/at/all", "/nowhere/x", "a/b/c"])
def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(InputError, match=r"there is no such folder|has no config\.json"):
        build_network(f"hf:{name}")


@pytest.mark.usefixtures("transformers")
def test_without_access_to_the_hub_a_folder_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"hf:nobody/nothing cannot be read \(.*give a folder that contains its files"):
        build_network("hf:nobody/nothing")


def test_without_transformers_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"hf:a/b needs transformers.*pip install 'prunescope\[transformers\]'"):
        build_network("hf:a/b")
