from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prunescope.devices import import_torchvision
from prunescope.errors import InputError
from prunescope.networks.source import build_network
from prunescope.networks.weights import save_weights
from tests.networks.small import Touch, values

PythonFile = Callable[[str], Path]


def outputs(model: nn.Module, size: int = 64) -> int:
    with torch.no_grad():
        return int(model.eval()(torch.zeros(2, 3, size, size)).shape[1])


def test_a_torchvision_classifier_has_the_classes_asked_for() -> None:
    assert outputs(build_network("torchvision:squeezenet1_1", classes=7)) == 7
    assert outputs(build_network("torchvision:squeezenet1_1")) == 1000


@pytest.mark.parametrize(("name", "size"), [("googlenet", 64), ("inception_v3", 96)])
def test_networks_with_extra_heads_give_a_tensor_in_training_too(name: str, size: int) -> None:
    model = build_network(f"torchvision:{name}", classes=3, seed=0)
    assert model.training
    assert model(torch.randn(2, 3, size, size)).shape == (2, 3)


def test_published_heads_for_training_are_left_aside(tmp_path: Path) -> None:
    models = import_torchvision().models
    published = models.googlenet(num_classes=3, aux_logits=True, init_weights=False)
    torch.save(published.state_dict(), tmp_path / "googlenet.pth")
    model = build_network("torchvision:googlenet", weights=tmp_path / "googlenet.pth")
    assert torch.equal(model.fc.weight, published.fc.weight)


def test_the_deepest_network_of_the_limits_is_built() -> None:
    model = build_network("prunescope:resnet1202x1", seed=0)
    assert sum(module.weight.ndim == 4 for module in model.modules() if isinstance(module, torch.nn.Conv2d)) == 1203


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:resnet5", r"no classifier 'resnet5'; the nearest are: resnet50"),
        ("torchvision:", r"no classifier ''"),
        ("torchvision:fcn_resnet50", r"not a classifier of images: it labels pixels"),
        ("torchvision:fasterrcnn_resnet50_fpn", r"not a classifier of images: it finds objects"),
        ("torchvision:r3d_18", r"not a classifier of images: it takes videos"),
        ("torchvision:quantized_resnet50", r"weights are integers.*the nearest are: resnet50"),
        ("torchvision:raft_small", r"pairs of images"),
        ("torchvision:resnet50@IMAGENET1K_V3", r"no published weights 'IMAGENET1K_V3'.*IMAGENET1K_V2"),
        ("torchvision:resnet50@", r"no published weights ''; there are: IMAGENET1K_V1, IMAGENET1K_V2"),
        ("prunescope:resnet15x32", r"depth 15, but the depth must be 6n \+ 2.*resnet14x32 and resnet20x32"),
        ("prunescope:resnet2x32", r"depth 2, .* at least 8 .*resnet8x32 and resnet14x32"),
        ("prunescope:resnet14x0", r"width 0"),
        ("prunescope:resnet9998x1", r"too large \(depth 9998, .*the depth can be at most 1,202"),
        ("prunescope:resnet1208x1", r"too large .*the depth can be at most 1,202"),
        ("prunescope:resnet8x9999", r"too large .*the width at most 1,024"),
        ("prunescope:resnet1202x1024", r"too large .*about 79,\d+,\d+,\d+ weights.* weights at most 500,000,000"),
        ("prunescope:resnet8x99999999999", r"no network"),
        ("prunescope:resnet14", r"no network 'resnet14'; expected .*resnet14x32"),
        ("resnet50", r"'resnet50' is not the name of a network; expected torchvision:resnet50, .*file.py:function"),
        ("", r"is not the name of a network"),
        ("nowhere/net.py:build", r"file nowhere/net.py cannot be read: No such file"),
    ],
)
def test_a_name_that_cannot_be_used_says_what_is_expected(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_network(name)


def test_classes_must_be_positive_and_agree_with_published_weights() -> None:
    with pytest.raises(InputError, match="cannot have 0 classes"):
        build_network("torchvision:resnet18", classes=0)
    with pytest.raises(InputError, match="published for 1000 classes, not 16"):
        build_network("torchvision:resnet18@IMAGENET1K_V1", classes=16)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(InputError, match=f"seed {seed} cannot be used"):
        build_network("torchvision:squeezenet1_1", seed=seed)


def test_published_weights_and_a_file_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave out the file"):
        build_network("torchvision:resnet18@IMAGENET1K_V1", weights=tmp_path / "w.pth")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torch's own cache, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


PUBLISHED = "torchvision:squeezenet1_1@IMAGENET1K_V1"
PUBLISHED_FILE = "squeezenet1_1-b8a52dc0.pth"


def test_published_weights_are_taken_from_torchs_cache(cache: Path) -> None:
    known = build_network("torchvision:squeezenet1_1", seed=3)
    torch.save(known.state_dict(), cache / PUBLISHED_FILE)
    assert torch.equal(values(build_network(PUBLISHED, classes=1000)), values(known))
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_code_in_a_cached_file_of_published_weights_does_not_run(cache: Path) -> None:
    torch.save({"more": Touch(cache / "code-ran")}, cache / PUBLISHED_FILE)
    with pytest.raises(InputError, match=rf"are damaged .*delete .*{PUBLISHED_FILE}"):
        build_network(PUBLISHED)
    assert not (cache / "code-ran").exists()


def test_a_download_that_fails_says_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing listens on port 9 of this machine.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(
        InputError, match=r"cannot be downloaded from https://.*torchvision:squeezenet1_1 with --weights"
    ):
        build_network(PUBLISHED)
    assert list(cache.iterdir()) == []


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (build_network("torchvision:squeezenet1_1", classes=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(values(one), values(same))
    assert not torch.equal(values(one), values(other))
    assert not torch.equal(values(build_network("torchvision:squeezenet1_1", classes=2)), values(one))


def test_the_number_of_classes_is_taken_from_the_weights_file(tmp_path: Path) -> None:
    trained = build_network("torchvision:squeezenet1_1", classes=365, seed=1)
    names = {f"module.{name}": tensor for name, tensor in trained.state_dict().items()}
    torch.save({"arch": "squeezenet1_1", "state_dict": names}, tmp_path / "places.pth.tar")
    assert torch.equal(
        values(build_network("torchvision:squeezenet1_1", weights=tmp_path / "places.pth.tar")), values(trained)
    )
    with pytest.raises(InputError, match=r"the network has \[10, 512, 1, 1\], the file \[365, 512, 1, 1\]"):
        build_network("torchvision:squeezenet1_1", classes=10, weights=tmp_path / "places.pth.tar")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_weights(build_network("prunescope:resnet8x8", classes=3), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="do not fit the network SqueezeNet"):
        build_network("torchvision:squeezenet1_1", weights=tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="do not fit the network SmallResNet"):
        build_network("prunescope:resnet8x16", weights=tmp_path / "w.safetensors")


def test_names_of_old_densenets_are_understood(tmp_path: Path) -> None:
    trained = build_network("torchvision:densenet121", classes=2, seed=1)
    old = {}
    for name, tensor in trained.state_dict().items():
        for part in ("norm", "conv") if "denselayer" in name else ():
            name = name.replace(f".{part}1.", f".{part}.1.").replace(f".{part}2.", f".{part}.2.")
        old[name] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "w.pth")
    assert torch.equal(
        values(build_network("torchvision:densenet121", weights=tmp_path / "w.pth")),
        values(trained),
    )


def test_own_networks_have_the_depth_width_and_classes_asked_for(tmp_path: Path) -> None:
    model = build_network("prunescope:resnet14x4", classes=16, seed=0)
    assert outputs(model) == 16
    assert sum(isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) for module in model.modules()) == 12
    save_weights(model, tmp_path / "w.safetensors")
    again = build_network("prunescope:resnet14x4", weights=tmp_path / "w.safetensors")
    assert torch.equal(values(again), values(model))


def test_a_function_in_a_file_is_called_with_the_classes_if_it_takes_them(python_file: PythonFile) -> None:
    path = python_file(
        "from torch import nn\n"
        "def takes(classes=4): return nn.Linear(2, classes)\n"
        "def takes_not(): return nn.Linear(2, 3)\n"
        "def takes_any(**options): return nn.Linear(2, options['classes'])\n"
        "def needs(classes): return nn.Linear(2, classes)\n"
    )
    built: dict[str, Any] = {
        "takes": build_network(f"{path}:takes"),
        "told": build_network(f"{path}:takes", classes=9),
        "takes_not": build_network(f"{path}:takes_not", classes=9),
        "takes_any": build_network(f"{path}:takes_any", classes=9),
        "needs": build_network(f"{path}:needs", classes=9),
    }
    assert {name: model.out_features for name, model in built.items()} == {
        "takes": 4,
        "told": 9,
        "takes_not": 3,
        "takes_any": 9,
        "needs": 9,
    }
    assert torch.equal(values(build_network(f"{path}:takes", seed=1)), values(build_network(f"{path}:takes", seed=1)))


def test_a_file_may_import_its_neighbours_and_define_dataclasses_and_leaves_the_path_alone(
    python_file: PythonFile, tmp_path: Path
) -> None:
    (tmp_path / "a_neighbour_of_mine.py").write_text("WIDTH = 6\n")
    path = python_file(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from torch import nn\n"
        "from a_neighbour_of_mine import WIDTH\n"
        "@dataclass\nclass Shape:\n    width: int = WIDTH\n"
        "def build(): return nn.Linear(1, Shape().width)\n"
    )
    before = list(sys.path)
    assert build_network(f"{path}:build").out_features == 6
    assert sys.path == before
    assert "mine" not in sys.modules


def test_a_file_that_was_edited_is_read_again(python_file: PythonFile) -> None:
    for width in (2, 3):
        path = python_file(f"from torch import nn\ndef build(): return nn.Linear(1, {width})\n")
        assert build_network(f"{path}:build").out_features == width


@pytest.mark.parametrize(
    ("function", "source", "message"),
    [
        ("biuld", "def build(): pass", r"mine.py has no function 'biuld'; the nearest are: build"),
        ("build", "build = 3", r"mine.py has no function 'build'; there are none"),
        ("build", "def build():\n    return [1]", r"mine.py:build returned a list; expected a torch.nn.Module"),
        ("build", "def build():\n    x = 1\n    return x.y", r"mine.py:build failed at line 3: AttributeError: .*'y'"),
        ("build", "import torch\n\nraise KeyError('k')", r"running .*mine.py failed at line 3: KeyError: 'k'"),
        ("build", "import sys\nsys.exit(3)", r"running .*mine.py failed at line 2: SystemExit: 3"),
        ("build", "x = 1\ndef build(:\n", r"running .*mine.py failed at line 2: SyntaxError"),
        ("build", "x = 1\x00", r"running .*mine.py failed"),
        ("build", "import nothing_of_this_name", r"failed at line 1: ModuleNotFoundError"),
        ("build", "def build(depth, *, width): pass", r"build needs depth, width"),
        ("build", "build = dict", r"is built into Python"),
        ("build", "def build(classes): pass", r"build needs the number of classes"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(
    python_file: PythonFile, function: str, source: str, message: str
) -> None:
    path = python_file(source)
    with pytest.raises(InputError, match=message):
        build_network(f"{path}:{function}")


def test_a_file_without_a_function_names_those_it_has(python_file: PythonFile) -> None:
    path = python_file("def build(): pass")
    with pytest.raises(
        InputError, match=r"does not name a function; there are: build; expected path/to/file.py:function"
    ):
        build_network(str(path))
