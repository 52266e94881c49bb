"""Checkpoints in which tools store weights in parts: pruned, parametrised or normalised."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.pruning import WeightNormSparsifier
from torch.nn.utils import parametrizations, parametrize, prune

from prunescope.errors import InputError
from prunescope.networks.source import build_network
from prunescope.networks.weights import load_weights


@pytest.fixture
def fresh(network: nn.Module) -> nn.Module:
    """A network like `network` with other weights."""
    torch.manual_seed(1)
    return type(network)()


def quietly(model: nn.Module, path: Path, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_weights(model, path, **options)


def pruned(model: nn.Module) -> nn.Module:
    """Return a network pruned by torch.nn.utils.prune, as it is saved during pruning."""
    model = copy.deepcopy(model)
    prune.l1_unstructured(model.conv, "weight", amount=0.5)
    prune.l1_unstructured(model.conv, "weight", amount=0.5)
    prune.random_unstructured(model.conv, "bias", amount=1)
    prune.ln_structured(model.fc, "weight", amount=2, n=2, dim=0)
    return model


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    return torch.equal(one.conv.weight, other.conv.weight) and all(
        torch.equal(getattr(one.get_submodule(name), kind), getattr(other.get_submodule(name), kind))
        for name, kind in (("conv", "bias"), ("fc", "weight"), ("fc", "bias"), ("bn", "running_mean"))
    )


@pytest.mark.parametrize("prefix", ["", "module.", "model.net.backbone."])
@pytest.mark.parametrize("removed", [False, True])
def test_a_network_under_torchs_pruning_is_read_with_its_masks(
    network: nn.Module, fresh: nn.Module, tmp_path: Path, removed: bool, prefix: str
) -> None:
    model = pruned(network)
    if removed:
        for module, name in ((model.conv, "weight"), (model.conv, "bias"), (model.fc, "weight")):
            prune.remove(module, name)
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    assert removed or f"{prefix}conv.weight_mask" in state
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    quietly(fresh, tmp_path / "w.pth")
    assert same_weights(fresh, model)
    assert 0 < (fresh.conv.weight == 0).float().mean() < 1


def test_a_network_that_is_itself_under_torchs_pruning_keeps_its_parts(
    network: nn.Module, fresh: nn.Module, tmp_path: Path
) -> None:
    model, other = pruned(network), pruned(fresh)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    quietly(other, tmp_path / "w.pth")
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_the_number_of_classes_is_read_from_a_checkpoint_with_masks(tmp_path: Path) -> None:
    model = build_network("prunescope:resnet8x4", classes=7, seed=0)
    prune.global_unstructured(
        [(module, "weight") for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)],
        prune.L1Unstructured,
        amount=0.8,
    )
    torch.save(model.state_dict(), tmp_path / "w.pth")
    found = build_network("prunescope:resnet8x4", weights=tmp_path / "w.pth").eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(found(images), model.eval()(images))


class Mask(nn.Module):
    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def with_a_mask(model: nn.Module) -> nn.Module:
    parametrize.register_parametrization(model.fc, "weight", Mask(torch.rand_like(model.fc.weight) < 0.5))
    parametrize.register_parametrization(model.conv, "bias", Mask(torch.tensor([1.0, 0.0, 0.0, 1.0])))
    return model


def weight_normalised(model: nn.Module) -> nn.Module:
    parametrizations.weight_norm(model.conv)
    parametrizations.weight_norm(model.fc, dim=1)
    return model


def weight_normalised_long_ago(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(model.conv)
        nn.utils.weight_norm(model.fc, dim=None)
    return model


@pytest.mark.parametrize("change", [with_a_mask, weight_normalised, weight_normalised_long_ago])
def test_weights_are_computed_as_the_tool_computes_them(
    network: nn.Module, fresh: nn.Module, tmp_path: Path, change: Callable[[nn.Module], nn.Module]
) -> None:
    model = change(network)
    # Computes the weights that older tools set before each forward pass.
    model.eval()(torch.zeros(1, 3, 16, 16))
    assert "fc.weight" not in model.state_dict()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    quietly(fresh, tmp_path / "w.pth")
    assert same_weights(fresh, model)


def test_weight_norm_of_a_layer_with_one_unit(tmp_path: Path) -> None:
    model, fresh = parametrizations.weight_norm(nn.Linear(5, 1)), nn.Linear(5, 1)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    quietly(fresh, tmp_path / "w.pth")
    assert torch.equal(fresh.weight, model.weight)


class Half(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def test_a_parametrization_without_tensors_is_refused_and_its_way_out_works(
    network: nn.Module, fresh: nn.Module, tmp_path: Path
) -> None:
    original = network.conv.weight.detach().clone()
    parametrize.register_parametrization(network.conv, "weight", Half())
    torch.save(network.state_dict(), tmp_path / "w.pth")
    before = copy.deepcopy(fresh)
    with pytest.raises(InputError, match=r"w\.pth cannot be used: of 1 weights \(conv\.weight\) .*remove_param"):
        load_weights(fresh, tmp_path / "w.pth")
    assert same_weights(fresh, before)
    parametrize.remove_parametrizations(network.conv, "weight")
    torch.save(network.state_dict(), tmp_path / "w.pth")
    quietly(fresh, tmp_path / "w.pth")
    assert torch.equal(fresh.conv.weight, original / 2)


def test_weights_whose_masks_torchs_sparsifiers_leave_out_are_refused_and_both_ways_out_work(
    network: nn.Module, fresh: nn.Module, tmp_path: Path
) -> None:
    sparsifier = WeightNormSparsifier(sparsity_level=0.5, sparse_block_shape=(1, 1), zeros_per_block=1)
    sparsifier.prepare(network, [{"tensor_fqn": "fc.weight"}])
    sparsifier.step()
    pruned = network.fc.weight.detach().clone()
    assert (pruned == 0).any()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    torch.save({"fc.weight": network.fc.parametrizations.weight[0].mask}, tmp_path / "masks.pth")
    prefixed = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": prefixed}, tmp_path / "prefixed.pth")
    torch.save({"conv.weight": torch.ones_like(network.conv.weight)}, tmp_path / "others.pth")
    for file, masks in (("w.pth", None), ("prefixed.pth", None), ("w.pth", tmp_path / "others.pth")):
        with pytest.raises(InputError, match=r"\(fc\.weight\) .* torch\.ao\.pruning .*--masks .*squash_mask\(\)"):
            load_weights(fresh, tmp_path / file, masks=masks)
    for file in ("w.pth", "prefixed.pth"):
        quietly(fresh, tmp_path / file, masks=tmp_path / "masks.pth")
        assert torch.equal(fresh.fc.weight, pruned)
    sparsifier.squash_mask()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    quietly(fresh, tmp_path / "w.pth")
    assert torch.equal(fresh.fc.weight, pruned)


def spectral(model: nn.Module) -> Callable[[], Any]:
    parametrizations.spectral_norm(model.fc)
    return lambda: parametrize.remove_parametrizations(model.fc, "weight")


def spectral_long_ago(model: nn.Module) -> Callable[[], Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.spectral_norm(model.fc)
    return lambda: nn.utils.remove_spectral_norm(model.fc)


def orthogonal(model: nn.Module) -> Callable[[], Any]:
    parametrizations.orthogonal(model.fc)
    return lambda: parametrize.remove_parametrizations(model.fc, "weight")


@pytest.mark.parametrize(
    ("change", "way_out"),
    [
        (spectral, r"torch\.nn\.utils\.parametrize\.remove_parametrizations\(module, 'weight'\)"),
        (spectral_long_ago, r"torch\.nn\.utils\.remove_spectral_norm\(module\)"),
        (orthogonal, r"torch\.nn\.utils\.parametrize\.remove_parametrizations\(module, 'weight'\)"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name_and_the_way_out_works(
    network: nn.Module,
    fresh: nn.Module,
    tmp_path: Path,
    change: Callable[[nn.Module], Callable[[], Any]],
    way_out: str,
) -> None:
    remove = change(network)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    before = copy.deepcopy(fresh)
    with pytest.raises(InputError, match=rf"w\.pth cannot be used: 'fc\.weight' is stored in parts .*{way_out}"):
        load_weights(fresh, tmp_path / "w.pth")
    assert same_weights(fresh, before)
    network.eval()
    remove()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    quietly(fresh, tmp_path / "w.pth")
    assert same_weights(fresh, network)


def test_parts_of_another_network_in_the_file_are_ignored(network: nn.Module, fresh: nn.Module, tmp_path: Path) -> None:
    state = {f"student.{name}": tensor for name, tensor in network.state_dict().items()}
    spectral(network)
    state |= {f"loss.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    with pytest.warns(UserWarning, match=r"student\.\* are the network's; the others are ignored: loss\."):
        load_weights(fresh, tmp_path / "w.pth")
    assert torch.equal(fresh.conv.weight, network.conv.weight)


def test_a_weight_and_its_parts_in_one_file_are_refused(network: nn.Module, fresh: nn.Module, tmp_path: Path) -> None:
    torch.save(pruned(network).state_dict() | {"conv.weight": network.conv.weight}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"contains both 'conv\.weight' and its parts \(conv\.weight_orig, conv\.w"):
        load_weights(fresh, tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["conv.weight_mask", "conv.mask"])
def test_a_mask_beside_a_plain_weight_is_applied(
    network: nn.Module, fresh: nn.Module, tmp_path: Path, name: str
) -> None:
    mask = (torch.rand_like(network.conv.weight) < 0.5).to(torch.uint8)
    torch.save(network.state_dict() | {name: mask}, tmp_path / "w.pth")
    quietly(fresh, tmp_path / "w.pth")
    assert torch.equal(fresh.conv.weight, network.conv.weight * mask)
    torch.save(network.state_dict() | {name: mask * 0.5}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=rf"{name} contains 0\.5, expected only 0 \(pruned\) and 1 \(kept\)"):
        load_weights(fresh, tmp_path / "w.pth")


def test_parts_of_another_shape_are_listed_and_not_made_dense(fresh: nn.Module, tmp_path: Path) -> None:
    state = fresh.state_dict()
    del state["fc.weight"]
    # These would take 4 PB each as dense tensors.
    huge = torch.sparse_coo_tensor(torch.tensor([[0], [0]]), torch.ones(1), (1 << 25, 1 << 25))
    torch.save(state | {"fc.weight_orig": huge, "fc.weight_mask": huge}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"fc\.weight: the network has \[5, 6\], the file \[33554432, 33554432\]"):
        load_weights(fresh, tmp_path / "w.pth")


@pytest.mark.parametrize("layout", [Tensor.to_sparse, Tensor.to_sparse_csr, Tensor.to_sparse_csc])
def test_sparse_parts_are_made_dense(
    network: nn.Module, fresh: nn.Module, tmp_path: Path, layout: Callable[[Tensor], Tensor]
) -> None:
    model = pruned(network)
    state = model.state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        state |= {name: layout(state[name]) for name in ("fc.weight_orig", "fc.weight_mask")}
    torch.save(state, tmp_path / "w.pth")
    quietly(fresh, tmp_path / "w.pth")
    assert same_weights(fresh, model)


def test_a_sparse_tensor_with_indices_outside_of_its_shape_is_refused(fresh: nn.Module, tmp_path: Path) -> None:
    bad = torch.sparse_coo_tensor(torch.tensor([[0], [1 << 40]]), torch.ones(1), (5, 6), check_invariants=False)
    torch.save(fresh.state_dict() | {"fc.weight": bad}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth cannot be read: .*size is inconsistent with indices"):
        load_weights(fresh, tmp_path / "w.pth")
