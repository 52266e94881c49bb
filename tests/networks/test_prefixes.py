"""Files whose names have something before them: what wrappers and training scripts write."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from prunescope.errors import InputError
from prunescope.networks.prefixes import fit_names
from prunescope.networks.source import build_network
from prunescope.networks.weights import load_weights

State = dict[str, Any]


@pytest.fixture
def fresh(network: nn.Module) -> nn.Module:
    """A network like `network` with other weights."""
    torch.manual_seed(1)
    return type(network)()


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


def under(prefix: str, model: nn.Module) -> State:
    return {prefix + name: tensor for name, tensor in model.state_dict().items()}


def averaged(model: nn.Module) -> State:
    return AveragedModel(model).state_dict()


def data_parallel(model: nn.Module) -> State:
    return nn.DataParallel(model).state_dict()


def compiled(model: nn.Module) -> State:
    return torch.compile(model).state_dict()  # type: ignore[attr-defined, no-any-return]


def compiled_data_parallel(model: nn.Module) -> State:
    return torch.compile(nn.DataParallel(model)).state_dict()  # type: ignore[attr-defined, no-any-return]


def averaged_data_parallel(model: nn.Module) -> State:
    return AveragedModel(nn.DataParallel(model)).state_dict()


def lightning(model: nn.Module) -> State:
    return {
        "epoch": 3,
        "global_step": 9,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": under("model.", model),
    } | {
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}],
        "hparams_name": "kwargs",
    }


def quietly(model: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_weights(model, path)


@pytest.mark.parametrize(
    "write",
    [
        data_parallel,
        compiled,
        compiled_data_parallel,
        lightning,
        lambda model: under("Net.Inner.", model),
        lambda model: {"net": model.state_dict(), "acc": 93.1, "optimizer": {"state": {}, "lr": 0.1}},
        lambda model: {"model": under("module.backbone.", model)},
    ],
)
def test_one_prefix_before_all_names_is_taken_off(
    network: nn.Module, fresh: nn.Module, tmp_path: Path, write: Callable[[nn.Module], State]
) -> None:
    torch.save(write(network), tmp_path / "w.ckpt")
    quietly(fresh, tmp_path / "w.ckpt")
    assert same(fresh, network)


@pytest.mark.parametrize(
    ("write", "prefix", "ignored"),
    [
        (averaged, "module.", "n_averaged"),
        (averaged_data_parallel, "module.module.", "n_averaged"),
        (lambda model: under("ema_model.module.", model) | {"step": torch.ones(())}, "ema_model.module.", "step"),
        (
            lambda model: {
                "state_dict": under("model.", model) | {"criterion.weight": torch.ones(5), "top1.tp": torch.ones(1)}
            },
            "model.",
            "criterion.weight, top1.tp",
        ),
    ],
)
def test_tensors_beside_those_of_the_network_are_ignored_and_named(
    network: nn.Module, fresh: nn.Module, tmp_path: Path, write: Callable[[nn.Module], State], prefix: str, ignored: str
) -> None:
    torch.save(write(network), tmp_path / "w.ckpt")
    with pytest.warns(UserWarning, match=f"tensors named {prefix}.* the others are ignored: {ignored}$"):
        load_weights(fresh, tmp_path / "w.ckpt")
    assert same(fresh, network)


def test_a_file_without_a_prefix_may_hold_nothing_else(network: nn.Module, tmp_path: Path) -> None:
    torch.save(network.state_dict() | {"n_averaged": torch.ones(())}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"n_averaged: \[\] in the file, unknown to the network"):
        load_weights(network, tmp_path / "w.pth")


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_a_prefix_is_not_taken_off_by_half(network: nn.Module, fresh: nn.Module, tmp_path: Path, change: str) -> None:
    tensors = under("model.", network) | {"loss.weight": torch.ones(2)}
    if change == "missing":
        del tensors["model.conv.bias"]
        message = r"1 are missing .*; 1 in the file are unknown.*\n.*conv\.bias: \[4\] in the network, missing"
    elif change == "unknown":
        tensors["model.head.weight"] = torch.ones(2)
        message = r"0 are missing .*; 2 in the file are unknown(.*\n)+.*head\.weight: \[2\] in the file, unknown"
    else:
        tensors["model.fc.weight"] = torch.ones(7, 6)
        message = r"1 have another shape .*\n.*fc\.weight: the network has \[5, 6\], the file \[7, 6\]"
    torch.save(tensors, tmp_path / "w.pth")
    before = copy.deepcopy(fresh)
    with pytest.raises(InputError, match=message):
        load_weights(fresh, tmp_path / "w.pth")
    assert same(fresh, before)


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ("student.", "teacher.", r"as student\.\* and as teacher\.\*"),
        ("model.", "ema_model.module.", r"as model\.\* and as ema_model\.module\.\*"),
        ("", "ema.", r"without a prefix and as ema\.\*"),
    ],
)
def test_two_parts_that_fit_are_refused_by_name(
    network: nn.Module, fresh: nn.Module, tmp_path: Path, first: str, second: str, named: str
) -> None:
    torch.save(under(first, network) | under(second, type(network)()), tmp_path / "w.pth")
    before = copy.deepcopy(fresh)
    with pytest.raises(InputError, match=rf"fit the network SmallNetwork more than once.*{named}\. Give the prefix"):
        load_weights(fresh, tmp_path / "w.pth")
    assert same(fresh, before)


def test_of_two_parts_the_one_whose_shapes_fit_is_meant(network: nn.Module, fresh: nn.Module, tmp_path: Path) -> None:
    torch.save(under("student.", network) | under("teacher.", type(network)(classes=9)), tmp_path / "w.pth")
    with pytest.warns(UserWarning, match="ignored: teacher.conv.weight"):
        load_weights(fresh, tmp_path / "w.pth")
    assert same(fresh, network)


def test_two_names_of_the_same_weights_are_no_choice(network: nn.Module, fresh: nn.Module, tmp_path: Path) -> None:
    both = nn.ModuleDict({"model": network})
    both.alias = network
    torch.save(both.state_dict(), tmp_path / "w.pth")
    with pytest.warns(UserWarning, match=r"named model\.\* .*ignored: alias\.conv\.weight"):
        load_weights(fresh, tmp_path / "w.pth")
    assert same(fresh, network)


@pytest.mark.parametrize("inner", ["module", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.module."])
def test_a_network_whose_own_names_begin_like_a_prefix(inner: str, prefix: str, tmp_path: Path) -> None:
    one, other = (nn.ModuleDict({inner: nn.ModuleDict({inner: nn.Linear(2, 2)})}) for _ in range(2))
    torch.save(under(prefix, one), tmp_path / "w.pth")
    quietly(other, tmp_path / "w.pth")
    assert same(one, other)


def test_all_but_one_of_the_names_of_a_shared_tensor_may_be_missing(tmp_path: Path) -> None:
    def make() -> nn.Sequential:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model[1].weight = model[0].weight
        return model

    one, other = make(), make()
    safetensors.torch.save_model(one, str(tmp_path / "w.safetensors"))
    assert len(safetensors.torch.load_file(tmp_path / "w.safetensors")) == 3
    quietly(other, tmp_path / "w.safetensors")
    assert same(one, other)


def test_the_number_of_classes_is_taken_from_a_file_with_a_prefix(tmp_path: Path) -> None:
    trained = build_network("prunescope:resnet8x4", classes=5, seed=1)
    torch.save(AveragedModel(trained).state_dict(), tmp_path / "w.pth")
    with pytest.warns(UserWarning, match="n_averaged"):
        assert same(build_network("prunescope:resnet8x4", weights=tmp_path / "w.pth"), trained)


def test_heads_for_training_and_old_names_are_recognised_under_a_prefix() -> None:
    model = build_network("torchvision:densenet121", classes=2)
    renamed = {
        "model." + name.replace("norm1.", "norm.1.").replace("conv1.", "conv.1."): tensor
        for name, tensor in model.state_dict().items()
    }
    assert fit_names(model, renamed).missing == []
    assert fit_names(model, renamed).prefix == "model."
    google = build_network("torchvision:googlenet", classes=2)
    heads = under("module.", google) | {"module.aux1.fc1.weight": torch.zeros(1)}
    assert fit_names(google, heads).tensors.keys() == google.state_dict().keys()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_real_numbers_of_another_precision_are_cast(
    network: nn.Module, fresh: nn.Module, tmp_path: Path, kind: torch.dtype
) -> None:
    state = network.state_dict()
    torch.save({name: t.to(kind) if t.is_floating_point() else t for name, t in state.items()}, tmp_path / "w.pth")
    quietly(fresh, tmp_path / "w.pth")
    for name, tensor in fresh.state_dict().items():
        assert tensor.dtype == state[name].dtype
        assert not tensor.is_floating_point() or torch.equal(tensor, state[name].to(kind).float())


def test_sparse_weights_are_made_dense(network: nn.Module, fresh: nn.Module, tmp_path: Path) -> None:
    state = network.state_dict()
    for name, kept in (("fc.weight", Tensor.to_sparse), ("fc.bias", Tensor.to_sparse)):
        state[name] = kept(state[name])
    torch.save(state, tmp_path / "w.pth")
    quietly(fresh, tmp_path / "w.pth")
    assert same(fresh, network)


@pytest.mark.filterwarnings("ignore:torch.quantize:UserWarning", "ignore:.*quantiz.*deprecated")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.to(torch.complex64), r"fc\.weight is complex \(torch\.complex64\)"),
        (lambda t: (100 * t).to(torch.int8), r"fc\.weight consists of whole numbers \(torch\.int8\)"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), r"fc\.weight is quantised .*qint8"),
        (lambda t: t.to("meta"), r"fc\.weight has no values"),
    ],
)
def test_tensors_that_are_no_real_numbers_are_refused_and_change_nothing(
    network: nn.Module, fresh: nn.Module, tmp_path: Path, change: Callable[[Tensor], Tensor], message: str
) -> None:
    state = network.state_dict()
    state["fc.weight"] = change(state["fc.weight"])
    torch.save(state, tmp_path / "w.pth")
    before = copy.deepcopy(fresh)
    with pytest.raises(InputError, match=message):
        load_weights(fresh, tmp_path / "w.pth")
    assert same(fresh, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(network: nn.Module, tmp_path: Path, value: float) -> None:
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state["fc.weight"][0, 0] = value
    torch.save(state, tmp_path / "w.pth")
    with pytest.warns(UserWarning, match=r"1 of its 13 tensors contain nan or infinity .*: fc\.weight$"):
        load_weights(network, tmp_path / "w.pth")


def test_infinity_in_a_buffer_is_nothing_to_tell_of(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("attention_mask", torch.tensor([0.0, float("-inf")]))
    torch.save(model.state_dict(), tmp_path / "w.pth")
    quietly(model, tmp_path / "w.pth")
