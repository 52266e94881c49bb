"""Files as tools write them: in several parts, in half precision, quantised, or with more than tensors."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn.utils import prune

from prunescope.devices import import_torchvision
from prunescope.errors import InputError
from prunescope.networks.source import build_network
from prunescope.networks.weights import load_weights


@pytest.fixture
def fresh(network: nn.Module) -> nn.Module:
    """A network like `network` with other weights."""
    torch.manual_seed(1)
    return type(network)()


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


def quietly(model: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_weights(model, path)


def write_shards(model: nn.Module, folder: Path, ending: str = "safetensors") -> Path:
    """Write a network's weights in two files and an index, as transformers does, and return the index."""
    folder.mkdir()
    state = model.state_dict()
    files = {name: f"model-0000{1 + place % 2}-of-00002.{ending}" for place, name in enumerate(state)}
    save = safetensors.torch.save_file if ending == "safetensors" else torch.save
    for file in set(files.values()):
        save({name: state[name] for name in state if files[name] == file}, folder / file)
    index = folder / f"model.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": files}))
    return index


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_weights_in_several_files_are_read_by_their_index(
    network: nn.Module, fresh: nn.Module, tmp_path: Path, ending: str
) -> None:
    quietly(fresh, write_shards(network, tmp_path / "shards", ending))
    assert same(fresh, network)


@pytest.mark.parametrize("shards", [True, False])
def test_a_folder_of_weights_is_read(network: nn.Module, fresh: nn.Module, tmp_path: Path, shards: bool) -> None:
    if shards:
        write_shards(network, tmp_path / "saved")
    else:
        (tmp_path / "saved").mkdir()
        safetensors.torch.save_file(network.state_dict(), tmp_path / "saved" / "model.safetensors")
    quietly(fresh, tmp_path / "saved")
    assert same(fresh, network)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files | {"fc.bias": "../secret.safetensors"}, r"'\.\./secret.* cannot name a file in .*leave"),
        (lambda files: files | {"fc.bias": "/etc/passwd"}, r"'/etc/passwd' cannot name a file in .*leave"),
        (lambda files: files | {"fc.bias": "gone.safetensors"}, r"lists 3 files, and 1 of them .*: gone\.safetensors"),
        (lambda files: files | {"head.bias": files["fc.bias"]}, r"lists tensors in .* does not contain: head\.bias"),
        (lambda _files: {}, r"is not an index of weights"),
        (lambda _files: {"fc.bias": 3}, r"is not an index of weights"),
        (lambda _files: [], r"is not an index of weights"),
    ],
)
def test_an_index_that_does_not_fit_its_files_is_refused(
    network: nn.Module, fresh: nn.Module, tmp_path: Path, change: Callable[[Any], Any], message: str
) -> None:
    index = write_shards(network, tmp_path / "shards")
    files = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": change(files)}))
    before = copy.deepcopy(fresh)
    with pytest.raises(InputError, match=message):
        load_weights(fresh, index)
    assert same(fresh, before)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[1]", "\x00"])
def test_an_index_that_is_not_json_is_refused(network: nn.Module, tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(InputError, match=r"index\.json (cannot be read as JSON|is not an index)"):
        load_weights(network, tmp_path)


def test_a_network_that_transformers_saved_in_parts_is_read(tmp_path: Path) -> None:
    import_torchvision()
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3
    )
    model = transformers.ResNetForImageClassification(config)
    model.save_pretrained(tmp_path / "saved", max_shard_size="8KB")
    assert len(list((tmp_path / "saved").glob("*.safetensors"))) > 1
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_bytes((tmp_path / "saved" / "config.json").read_bytes())
    for path in (tmp_path / "saved", tmp_path / "saved" / "model.safetensors.index.json"):
        assert same(build_network(f"hf:{tmp_path / 'bare'}", seed=1, weights=path), model)


def test_a_checkpoint_with_averages_that_timm_saved_is_read(tmp_path: Path) -> None:
    import_torchvision()
    pytest.importorskip("timm")
    from timm.utils import CheckpointSaver, ModelEmaV2

    model = build_network("timm:resnet10t", classes=3, seed=0)
    average = ModelEmaV2(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    CheckpointSaver(model, optimizer, model_ema=average, checkpoint_dir=str(tmp_path)).save_checkpoint(0, 0.5)
    file = tmp_path / "last.pth.tar"
    with pytest.warns(UserWarning, match=r"under 'state_dict' are used, .* 'state_dict_ema' are ignored"):
        assert same(build_network("timm:resnet10t", weights=file), model)
    found = build_network("timm:resnet10t", weights=file, key="state_dict_ema")
    assert same(found, average.module)
    assert not torch.equal(next(found.parameters()), next(model.parameters()))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_and_masks_are_converted_exactly(
    network: nn.Module, fresh: nn.Module, tmp_path: Path, kind: torch.dtype
) -> None:
    half = network.to(kind)
    prune.l1_unstructured(half.fc, "weight", amount=0.5)
    torch.save(half.state_dict(), tmp_path / "w.pth")
    quietly(fresh, tmp_path / "w.pth")
    assert fresh.fc.weight.dtype == torch.float32
    assert torch.equal(fresh.fc.weight, half.fc.weight.float())


def lines_of(message: str) -> str:
    """Return the three lines of Python in an error message."""
    lines = message.splitlines()[1:]
    assert len(lines) == 3
    return "\n".join(line.strip() for line in lines)


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_three_lines_in_the_refusal_of_a_pickled_network_convert_it(
    network: nn.Module, fresh: nn.Module, tmp_path: Path, wrapped: bool
) -> None:
    content: object = {"state_dict": network.state_dict(), "network": network} if wrapped else network
    torch.save(content, tmp_path / "it's whole.pth")
    with pytest.raises(
        InputError, match=r"whole\.pth contains more than tensors.*\(tests\.networks\.conftest"
    ) as caught:
        load_weights(fresh, tmp_path / "it's whole.pth")
    exec(lines_of(str(caught.value)), {})
    quietly(fresh, tmp_path / "it's whole-weights.pth")
    assert same(fresh, network)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit.load:UserWarning")
def test_the_three_lines_in_the_refusal_of_a_torchscript_file_convert_it(
    network: nn.Module, fresh: nn.Module, tmp_path: Path
) -> None:
    torch.jit.save(torch.jit.trace(network.eval(), torch.zeros(1, 3, 8, 8)), tmp_path / "traced.pt")
    with pytest.raises(InputError, match=r"traced\.pt contains a TorchScript program") as caught:
        load_weights(fresh, tmp_path / "traced.pt")
    exec(lines_of(str(caught.value)), {})
    quietly(fresh, tmp_path / "traced-weights.pth")
    assert same(fresh, network)


@pytest.mark.filterwarnings("ignore:torch.quantize:UserWarning", "ignore:.*quantiz.*deprecated")
def test_the_line_in_the_refusal_of_quantised_tensors_converts_them(
    network: nn.Module, fresh: nn.Module, tmp_path: Path
) -> None:
    state = network.state_dict()
    state["fc.weight"] = torch.quantize_per_channel(
        state["fc.weight"], torch.full((5,), 0.01), torch.zeros(5), 0, torch.qint8
    )
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth cannot be used: fc\.weight is quantised") as caught:
        load_weights(fresh, tmp_path / "w.pth")
    line = str(caught.value).partition("convert it: ")[2]
    exec(line, {"torch": torch, "WEIGHTS": state, "NEW_FILE": tmp_path / "new.pth"})
    quietly(fresh, tmp_path / "new.pth")
    assert torch.equal(fresh.fc.weight, state["fc.weight"].dequantize())


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_quantised_network_is_refused_by_the_names_of_its_weights(network: nn.Module, tmp_path: Path) -> None:
    quantised = torch.ao.quantization.quantize_dynamic(network, {nn.Linear})
    torch.save({"model": quantised.state_dict()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth under 'model' contains the weights of a quantised network \(fc\._pa"):
        load_weights(network, tmp_path / "w.pth")


def test_a_network_whose_filters_were_removed_needs_the_function_that_the_refusal_asks_for(tmp_path: Path) -> None:
    torch_pruning = pytest.importorskip("torch_pruning")

    pruned = build_network("prunescope:resnet8x4", seed=0)
    torch_pruning.pruner.MagnitudePruner(
        pruned,
        torch.zeros(1, 3, 32, 32),
        torch_pruning.importance.MagnitudeImportance(),
        pruning_ratio=0.5,
        ignored_layers=[pruned.fc],
    ).step()
    torch.save(pruned.state_dict(), tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"If filters were removed .* a function that builds it in the smaller shape"):
        build_network("prunescope:resnet8x4", weights=tmp_path / "w.pth")
    (tmp_path / "small.py").write_text(
        "from prunescope.networks import build_network\n\n\n"
        "def net():\n    return build_network('prunescope:resnet8x2')\n"
    )
    assert same(build_network(f"{tmp_path / 'small.py'}:net", weights=tmp_path / "w.pth"), pruned)
