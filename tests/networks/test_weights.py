from __future__ import annotations

import argparse
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from prunescope.errors import InputError
from prunescope.networks.weights import load_weights, save_weights


@pytest.fixture
def fresh(network: nn.Module) -> nn.Module:
    """A network like `network` with other weights."""
    torch.manual_seed(1)
    return type(network)()


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


def prefixed(model: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(
    "content",
    [
        lambda m: m.state_dict(),
        lambda m: {"state_dict": m.state_dict()},
        lambda m: {"model": m.state_dict(), "optimizer": {"lr": 0.1}},
        lambda m: {"epoch": 90, "arch": "x", "best_prec1": 54.2, "state_dict": prefixed(m, "module.")},
        lambda m: {"state_dict": prefixed(m, "module._orig_mod.")},
        lambda m: {"state_dict": m.state_dict(), "best": np.float64(0.5), "args": argparse.Namespace(lr=np.float32(1))},
    ],
    ids=["plain", "state_dict", "model", "places365", "compiled", "numpy-and-argparse"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_is_read_however_its_weights_are_wrapped(
    network: nn.Module, fresh: nn.Module, tmp_path: Path, content: Callable[[nn.Module], object], zipped: bool
) -> None:
    torch.save(content(network), tmp_path / "w.pth.tar", _use_new_zipfile_serialization=zipped)
    load_weights(fresh, tmp_path / "w.pth.tar")
    assert same(fresh, network)


def test_a_file_from_python_2_is_read(network: nn.Module, fresh: nn.Module, tmp_path: Path) -> None:
    class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
        dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

        def save_str(self, text: str) -> None:
            data = text.encode()
            self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
            self.memoize(text)

        dispatch[str] = save_str

    def dump(content: Any, file: Any, protocol: int) -> None:
        Python2Pickler(file, protocol).dump(content)

    content = {"epoch": 90, "arch": "resnet18", "state_dict": prefixed(network, "module."), "best_prec1": 54.2}
    torch.save(
        content,
        tmp_path / "w.pth.tar",
        pickle_module=SimpleNamespace(__name__="python2", Pickler=Python2Pickler, dump=dump),
        _use_new_zipfile_serialization=False,
    )
    assert b"U\x0astate_dict" in (tmp_path / "w.pth.tar").read_bytes()
    load_weights(fresh, tmp_path / "w.pth.tar")
    assert same(fresh, network)


def test_saved_weights_come_back_also_from_a_file_of_another_ending(
    network: nn.Module, fresh: nn.Module, tmp_path: Path
) -> None:
    save_weights(network, tmp_path / "deep" / "weights.safetensors")
    (tmp_path / "deep" / "weights.safetensors").rename(tmp_path / "weights.bin")
    load_weights(fresh, str(tmp_path / "weights.bin"))
    assert same(fresh, network)
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_write_that_fails_is_an_os_error_and_leaves_the_file_as_it_was(network: nn.Module, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "w.safetensors"
    save_weights(network, path)
    before = path.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_weights(network, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]
    assert path.read_bytes() == before


def test_networks_with_shared_or_transposed_tensors_are_saved_whole(tmp_path: Path) -> None:
    def make() -> nn.Sequential:
        model = nn.Sequential(
            nn.Linear(4, 4), nn.Linear(4, 4), nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
        )
        model[1].weight = model[0].weight
        return model

    first, second = make(), make()
    save_weights(first, tmp_path / "w.safetensors")
    load_weights(second, tmp_path / "w.safetensors")
    assert same(first, second)
    assert second[1].weight is second[0].weight


def test_a_network_whose_own_names_begin_with_module_is_not_stripped(tmp_path: Path) -> None:
    first, second = (nn.ModuleDict({"module": nn.Linear(2, 2)}) for _ in range(2))
    torch.save(first.state_dict(), tmp_path / "w.pth")
    load_weights(second, tmp_path / "w.pth")
    assert same(first, second)


def test_counters_of_batches_may_be_missing_but_nothing_else(
    network: nn.Module, fresh: nn.Module, tmp_path: Path
) -> None:
    tensors = network.state_dict()
    del tensors["bn.num_batches_tracked"]
    torch.save(tensors, tmp_path / "w.pth")
    load_weights(fresh, tmp_path / "w.pth")
    del tensors["bn.running_mean"]
    torch.save(tensors, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"bn.running_mean: \[4\] in the network, missing from the file"):
        load_weights(fresh, tmp_path / "w.pth")


def test_weights_that_do_not_fit_are_listed_with_their_shapes_and_change_nothing(
    network: nn.Module, fresh: nn.Module, tmp_path: Path
) -> None:
    tensors = network.state_dict()
    tensors["fc.weight"] = torch.zeros(7, 6)
    del tensors["conv.bias"]
    tensors["head.weight"] = torch.zeros(2)
    torch.save(tensors, tmp_path / "w.pth")
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_weights(fresh, tmp_path / "w.pth")
    message = str(caught.value)
    assert "fc.weight: the network has [5, 6], the file [7, 6]" in message
    assert "conv.bias: [4] in the network, missing from the file" in message
    assert "head.weight: [2] in the file, unknown to the network" in message
    assert "do not fit the network SmallNetwork: of its 13 tensors 1 have another shape and 1 are missing" in message
    assert all(torch.equal(before[name], tensor) for name, tensor in fresh.state_dict().items())


def test_ten_misfits_are_shown_and_the_others_counted(network: nn.Module, tmp_path: Path) -> None:
    safetensors.torch.save_file({f"t{i}": torch.zeros(1) for i in range(20)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError) as caught:
        load_weights(network, tmp_path / "w.safetensors")
    lines = str(caught.value).splitlines()
    assert len(lines) == 12
    assert lines[-1].strip() == "... and 22 more"


class System:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


class Evaluated:
    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, (self.code,)


def by_torch(content: object, path: Path) -> None:
    torch.save(content, path)


def by_old_torch(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def by_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def by_new_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("write", [by_torch, by_old_torch, by_pickle, by_new_pickle])
@pytest.mark.parametrize("kind", ["system", "eval"])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_code_in_a_weights_file_is_refused_and_does_not_run(
    network: nn.Module, tmp_path: Path, write: Callable[[object, Path], None], kind: str, name: str
) -> None:
    evidence = tmp_path / "code-ran"
    code = System(f"touch {evidence}") if kind == "system" else Evaluated(f"open({str(evidence)!r}, 'w')")
    write({"state_dict": network.state_dict(), "more": code}, tmp_path / name)
    with pytest.raises(InputError, match=name):
        load_weights(network, tmp_path / name)
    assert not evidence.exists()
    if write in (by_torch, by_old_torch) and name == "w.pth":
        torch.load(tmp_path / name, weights_only=False)
        assert evidence.exists(), "the file does nothing when it is unpickled, so the test shows nothing"


def test_the_refusal_names_the_code_and_says_how_to_convert(network: nn.Module, tmp_path: Path) -> None:
    torch.save({"state_dict": network.state_dict(), "more": System("true")}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"would run code \((posix|nt)\.system\)[^$]*state_dict\(\)"):
        load_weights(network, tmp_path / "w.pth")
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "whole.pth")
    with pytest.raises(InputError, match=r"would run code \(torch\.nn\.modules\.container\.Sequential\)"):
        load_weights(network, tmp_path / "whole.pth")


@pytest.mark.parametrize("ending", ["pth", "old", "safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 8, 9, 100, 0.5, 0.95])
def test_a_file_cut_short_is_an_input_error(network: nn.Module, tmp_path: Path, ending: str, kept: float) -> None:
    path = tmp_path / f"w.{ending}"
    if ending == "safetensors":
        save_weights(network, path)
    else:
        torch.save(network.state_dict(), path, _use_new_zipfile_serialization=ending == "pth")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(InputError, match=r"weights file .* cannot be read"):
        load_weights(network, path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>not found</html>", "neither safetensors nor written by torch.save"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "neither safetensors nor"),
        (b"PK\x05\x06" + bytes(18), "cannot be read"),
        (bytes(64), "cannot be read"),
        (b"\xff" * 8 + b"{" + bytes(40), "cannot be read as safetensors"),
    ],
)
def test_what_is_no_weights_file_is_an_input_error(
    network: nn.Module, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_weights(network, tmp_path / "w.pth")


def test_no_file_and_a_folder_are_input_errors(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing.pth cannot be read: No such file"):
        load_weights(network, tmp_path / "nothing.pth")
    with pytest.raises(
        InputError, match=r"cannot be read: it is a folder without model\.safetensors\.index\.json or model\.saf"
    ):
        load_weights(network, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "contains a list, expected tensors by name"),
        ({}, "but nothing"),
        ({"a": {"x": torch.zeros(1)}, "b": {"x": torch.ones(1)}}, r"but a \(dict\), b \(dict\); give the key"),
        ({"epoch": 3, "net": {"a": 1}}, r"but epoch \(int\), net \(dict\)"),
    ],
)
def test_a_file_without_named_tensors_says_what_it_holds(
    network: nn.Module, tmp_path: Path, content: object, message: str
) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match=message):
        load_weights(network, tmp_path / "w.pth")


def test_a_pipe_is_refused_instead_of_being_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(InputError, match=r"pipe\.pth cannot be read: it is not a file but a pipe"):
        load_weights(nn.Linear(2, 2), tmp_path / "pipe.pth")


def test_a_nested_tensor_is_refused_by_name(tmp_path: Path) -> None:
    state = nn.Linear(2, 2).state_dict()
    rows = list(state["weight"])
    torch.save(state | {"weight": torch.nested.nested_tensor(rows)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth: its tensor 'weight' is nested, expected numbers of one shape"):
        load_weights(nn.Linear(2, 2), tmp_path / "w.pth")


def test_weights_that_a_checkpoint_holds_twice_are_named(tmp_path: Path) -> None:
    trained, averaged, fresh = (nn.Linear(2, 2) for _ in range(3))
    content = {"state_dict": trained.state_dict(), "state_dict_ema": averaged.state_dict(), "epoch": 3}
    torch.save(content, tmp_path / "w.pth")
    with pytest.warns(
        UserWarning, match=r"w\.pth contains several .* under 'state_dict' are used, .* 'state_dict_ema' are ign"
    ):
        load_weights(fresh, tmp_path / "w.pth")
    assert torch.equal(fresh.weight, trained.weight)
