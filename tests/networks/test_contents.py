"""The user's own files that a network is made from are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunescope.networks.contents import list_network


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_a_file_and_the_modules_of_its_folder_that_it_imports_are_found(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "net.py": "import torch, os.path\nfrom blocks import residual\nimport parts.heads as heads\n",
            "blocks.py": "def f():\n    from deep import inner\n",
            "deep.py": "import net, blocks\n",
            "parts/__init__.py": "from . import necks\n",
            "parts/heads.py": "from .shared import size\nfrom ..outside import x\nfrom ... import far\n",
            "parts/necks.py": "",
            "parts/shared.py": "",
            "parts/unused.py": "",
            "unused.py": "",
            "outside.py": "",
        },
    )
    listing = list_network(f"{tmp_path}/net.py:plain")
    assert listing.names == [
        "net.py", "blocks.py", "deep.py", "outside.py", "parts/__init__.py", "parts/heads.py", "parts/necks.py",
        "parts/shared.py",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["def broken(:\n", "\0", "import gone, gone.deep\nfrom gone import x\n"])
def test_what_cannot_be_followed_ends_the_list(tmp_path: Path, text: str) -> None:
    (tmp_path / "net.py").write_text(text)
    assert list_network(f"{tmp_path}/net.py:plain").names == ["net.py"]


def test_of_a_folder_of_transformers_the_configuration_and_weights_are_found(tmp_path: Path) -> None:
    write(tmp_path, dict.fromkeys(["config.json", "model.safetensors", "README.md", "training_args.bin"], ""))
    assert list_network(f"hf:{tmp_path}").names == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    "name", ["torchvision:resnet18", "prunescope:resnet8x4", "timm:resnet18@a1_in1k", "hf:owner/name", "gone.py:f"]
)
def test_other_networks_have_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert list_network(name).names == []
