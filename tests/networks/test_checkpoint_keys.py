"""Which weights are read from a checkpoint that contains several things."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prunescope.errors import InputError
from prunescope.networks.checkpoint_keys import USUAL_KEYS
from prunescope.networks.source import build_network
from prunescope.networks.weights import load_weights

Content = dict[str, Any]


@pytest.fixture
def fresh(network: nn.Module) -> nn.Module:
    """A network like `network` with other weights."""
    torch.manual_seed(1)
    return type(network)()


@pytest.fixture
def average(network: nn.Module) -> nn.Module:
    torch.manual_seed(2)
    return type(network)()


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


def quietly(model: nn.Module, path: Path, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_weights(model, path, **options)


@pytest.mark.parametrize("key", USUAL_KEYS)
def test_weights_are_found_under_every_usual_key(
    network: nn.Module, fresh: nn.Module, tmp_path: Path, key: str
) -> None:
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.zeros(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    torch.save({"epoch": 3, "optimizer": optimizer.state_dict(), key: network.state_dict()}, tmp_path / "w.pth")
    quietly(fresh, tmp_path / "w.pth")
    assert same(fresh, network)


@pytest.mark.parametrize(
    "content",
    [
        lambda model: {"model": {"state_dict": model.state_dict(), "args": {"lr": 0.1}}},
        lambda model: {"ema": {"decay": 0.999, "module": model.state_dict()}},
        lambda model: {"ema": {"decay": 0.999, "shadow": model.state_dict()}, "optimizer": {"lr": 0.1}},
    ],
)
def test_weights_are_found_under_nested_keys(
    network: nn.Module, fresh: nn.Module, tmp_path: Path, content: Callable[[nn.Module], Content]
) -> None:
    torch.save(content(network), tmp_path / "w.pth")
    quietly(fresh, tmp_path / "w.pth")
    assert same(fresh, network)


def test_the_first_usual_key_is_used_and_the_key_in_the_note_selects_another(
    network: nn.Module, average: nn.Module, fresh: nn.Module, tmp_path: Path
) -> None:
    torch.save({"model_ema": average.state_dict(), "model": network.state_dict()}, tmp_path / "w.pth")
    with pytest.warns(UserWarning, match=r"under 'model' are used, .* 'model_ema' are ignored.*\(key='model_ema' in"):
        load_weights(fresh, tmp_path / "w.pth")
    assert same(fresh, network)
    quietly(fresh, tmp_path / "w.pth", key="model_ema")
    assert same(fresh, average)


@pytest.mark.parametrize("key", ["runs.best.net", "runs.best", "folds.1", "odd.name", "runs.best.net.backbone"])
def test_a_key_selects_weights_through_dots(network: nn.Module, fresh: nn.Module, tmp_path: Path, key: str) -> None:
    state = {f"backbone.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save(
        {"runs": {"best": {"net": state}, "x": {"a": torch.ones(1)}}, "odd.name": state, "folds": {1: state}},
        tmp_path / "w.pth",
    )
    quietly(fresh, tmp_path / "w.pth", key=key)
    assert same(fresh, network)


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_key_in_the_error_about_two_parts_selects_one(
    network: nn.Module, average: nn.Module, fresh: nn.Module, tmp_path: Path, wrapped: bool
) -> None:
    state = {f"{part}.{name}": tensor for part, model in (("student", network), ("teacher", average))
             for name, tensor in model.state_dict().items()}  # fmt: skip
    torch.save({"state_dict": state} if wrapped else state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"student\.\* and as teacher\.\*.*--weights-key student \(key='student' in"):
        load_weights(fresh, tmp_path / "w.pth")
    quietly(fresh, tmp_path / "w.pth", key="teacher")
    assert same(fresh, average)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("emma", r"w\.pth contains no weights under the key 'emma'; the nearest are: ema"),
        ("", r"contains no weights under the key ''"),
        ("mixed", r"w\.pth under 'mixed' contains other values than tensors by name: n \(int\); give the key"),
        ("epoch", r"weights file .*w\.pth under 'epoch' contains a int, expected tensors by name"),
        ("model.fc.weight", r"under 'model\.fc\.weight' contains a Tensor, expected tensors by name"),
    ],
)
def test_a_key_without_weights_is_refused(network: nn.Module, tmp_path: Path, key: str, message: str) -> None:
    torch.save(
        {"model": network.state_dict(), "ema": network.state_dict(), "epoch": 3, "mixed": {"a": torch.ones(1), "n": 1}},
        tmp_path / "w.pth",
    )
    before = copy.deepcopy(network)
    with pytest.raises(InputError, match=message):
        load_weights(network, tmp_path / "w.pth", key=key)
    assert same(network, before)


def test_a_key_or_masks_without_a_file_are_refused(tmp_path: Path) -> None:
    for options in ({"key": "ema"}, {"masks": tmp_path / "masks.pth"}):
        with pytest.raises(InputError, match=r"belong to a file of weights; give it with --weights"):
            build_network("prunescope:resnet8x4", **options)  # type: ignore[arg-type]


def test_a_checkpoint_of_lightning_is_read(network: nn.Module, fresh: nn.Module, tmp_path: Path) -> None:
    content = {
        "epoch": 3,
        "global_step": 9,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
        | {"train_accuracy.correct": torch.tensor(3)},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 3}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'loss'}": {"best_model_score": torch.tensor(0.1), "dirpath": "/x"}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, "root": tmp_path, "classes": [1, 2]},
    }
    torch.save(content, tmp_path / "w.ckpt")
    with pytest.warns(UserWarning, match=r"named model\.\* .* ignored: train_accuracy\.correct$"):
        load_weights(fresh, tmp_path / "w.ckpt")
    assert same(fresh, network)


def test_a_dictionary_that_contains_itself_is_an_input_error(network: nn.Module, tmp_path: Path) -> None:
    content: Content = {"epoch": 1}
    content |= {"model": content, "net": content, "a": content, "b": content}
    torch.save(content, tmp_path / "w.pth")
    for key in (None, "weights"):
        with pytest.raises(InputError, match=r"w\.pth (does not contain tensors by name|contains no weights under)"):
            load_weights(network, tmp_path / "w.pth", key=key)
