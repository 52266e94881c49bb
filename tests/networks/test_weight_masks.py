"""Masks that are stored apart from the weights."""

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
from torch.nn.utils import prune

from prunescope.errors import InputError
from prunescope.networks.weights import load_weights

Masks = dict[str, Tensor]


@pytest.fixture
def fresh(network: nn.Module) -> nn.Module:
    """A network like `network` with other weights."""
    torch.manual_seed(1)
    return type(network)()


@pytest.fixture
def masks(network: nn.Module) -> Masks:
    return {name: torch.rand_like(getattr(network, name).weight) < 0.5 for name in ("conv", "fc")}


def quietly(model: nn.Module, path: Path, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_weights(model, path, **options)


def is_masked(model: nn.Module, weights: nn.Module, masks: Masks) -> bool:
    pruned = {f"{name}.weight": mask for name, mask in masks.items()}
    given = weights.state_dict()
    return all(
        torch.equal(tensor, given[name] * pruned[name] if name in pruned else given[name])
        for name, tensor in model.state_dict().items()
    )


@pytest.mark.parametrize("name", ["{}.weight", "{}", "{}.weight_mask", "{}.mask", "{}_mask", "module.{}.weight"])
@pytest.mark.parametrize("kind", [torch.bool, torch.float32, torch.int64])
def test_a_file_of_masks_is_applied_by_the_names_of_weights(
    network: nn.Module, fresh: nn.Module, masks: Masks, tmp_path: Path, name: str, kind: torch.dtype
) -> None:
    torch.save({"state_dict": network.state_dict()}, tmp_path / "w.pth")
    torch.save({name.format(layer): mask.to(kind) for layer, mask in masks.items()}, tmp_path / "masks.pth")
    quietly(fresh, tmp_path / "w.pth", masks=tmp_path / "masks.pth")
    assert is_masked(fresh, network, masks)


@pytest.mark.parametrize(
    "write",
    [
        lambda masks, path: safetensors.torch.save_file({f"{name}.weight": m for name, m in masks.items()}, path),
        lambda masks, path: torch.save({"masks": masks, "epoch": 3}, path),
        lambda masks, path: torch.save({"mask": masks, "state_dict": {"fc.weight": torch.rand(5, 6)}}, path),
        lambda masks, path: torch.save({name: mask.float().to_sparse() for name, mask in masks.items()}, path),
    ],
)
def test_masks_are_read_from_every_kind_of_file(
    network: nn.Module, fresh: nn.Module, masks: Masks, tmp_path: Path, write: Callable[[Masks, Path], None]
) -> None:
    torch.save(network.state_dict(), tmp_path / "w.pth")
    write(masks, tmp_path / "masks")
    quietly(fresh, tmp_path / "w.pth", masks=tmp_path / "masks")
    assert is_masked(fresh, network, masks)


def test_the_masks_of_a_pruned_checkpoint_are_applied_to_other_weights(
    network: nn.Module, fresh: nn.Module, tmp_path: Path
) -> None:
    pruned = copy.deepcopy(fresh)
    prune.l1_unstructured(pruned.fc, "weight", amount=0.5)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    torch.save(pruned.state_dict(), tmp_path / "pruned.pth")
    quietly(fresh, tmp_path / "w.pth", masks=tmp_path / "pruned.pth")
    assert is_masked(fresh, network, {"fc": pruned.fc.weight_mask})


@pytest.mark.parametrize("key", ["mask", "masks"])
@pytest.mark.parametrize("given", [None, "state_dict"])
def test_masks_beside_the_weights_of_a_checkpoint_are_applied_and_counted(
    network: nn.Module, fresh: nn.Module, masks: Masks, tmp_path: Path, key: str, given: str | None
) -> None:
    torch.save({"state_dict": network.state_dict(), key: masks}, tmp_path / "w.pth")
    pruned = sum(int((~mask).sum()) for mask in masks.values())
    with pytest.warns(
        UserWarning, match=rf"the masks under '{key}' in .*w\.pth are applied; they set {pruned} weights"
    ):
        load_weights(fresh, tmp_path / "w.pth", key=given)
    assert is_masked(fresh, network, masks)
    # The weights are zero already, so that there is nothing to tell.
    torch.save({"state_dict": fresh.state_dict(), key: masks}, tmp_path / "zero.pth")
    quietly(network, tmp_path / "zero.pth")


def test_masks_beside_the_weights_that_do_not_fit_are_ignored_with_a_warning(
    network: nn.Module, fresh: nn.Module, masks: Masks, tmp_path: Path
) -> None:
    torch.save({"state_dict": network.state_dict(), "mask": {"pixels": torch.ones(8, 8)}}, tmp_path / "w.pth")
    with pytest.warns(UserWarning, match=r"under 'mask' in .*w\.pth are ignored, .* 1 of 1 names .*: pixels"):
        load_weights(fresh, tmp_path / "w.pth")
    assert is_masked(fresh, network, {})
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    torch.save({"state_dict": network.state_dict(), "masks": {"fc": nested}}, tmp_path / "w.pth")
    with pytest.warns(UserWarning, match=r"under 'masks' in .*w\.pth are ignored, .* fc is nested, expected values of"):
        load_weights(fresh, tmp_path / "w.pth")
    assert is_masked(fresh, network, {})
    torch.save({"state_dict": network.state_dict(), "masks": list(masks.values())}, tmp_path / "w.pth")
    with pytest.warns(UserWarning, match=r"value under 'masks' is ignored, .* give it with --masks"):
        load_weights(fresh, tmp_path / "w.pth")
    assert is_masked(fresh, network, {})


def test_given_masks_are_used_instead_of_those_in_the_checkpoint(
    network: nn.Module, fresh: nn.Module, masks: Masks, tmp_path: Path
) -> None:
    torch.save({"state_dict": network.state_dict(), "masks": {"fc": torch.zeros(5, 6)}}, tmp_path / "w.pth")
    torch.save(masks, tmp_path / "masks.pth")
    with pytest.warns(UserWarning, match=r"masks in .*masks\.pth are used, and the masks under 'masks' .* are ignored"):
        load_weights(fresh, tmp_path / "w.pth", masks=tmp_path / "masks.pth")
    assert is_masked(fresh, network, masks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cone": torch.ones(1)}, r"masks\.pth do not fit the network SmallNetwork: 1 of 3 names .*: cone\. Name each"),
        ({"fc": torch.ones(5, 1)}, r"masks\.pth: fc has the shape \[5, 1\], expected that of its weight, \[5, 6\]"),
        ({"fc": torch.full((5, 6), 0.25)}, r"fc contains 0\.25, expected only 0 \(pruned\) and 1 \(kept\), or bool"),
        ({"fc": torch.full((5, 6), float("nan"))}, r"fc contains nan, expected only 0"),
        ({"fc.weight": torch.ones(5, 6)}, r"masks\.pth contain two masks for 'fc\.weight', the second as 'fc\.weight'"),
        ({"fc": torch.ones(5, 6, device="meta")}, r"fc has no usable values"),
        (
            {"fc": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])},
            r"masks file .*'fc' is nested, expected numbers",
        ),
        ({"fc": torch.ones(5, 6, dtype=torch.complex64) * 1j}, r"fc contains .*, expected only 0"),
    ],
)
def test_masks_that_do_not_fit_are_refused_by_name_and_change_nothing(
    network: nn.Module, fresh: nn.Module, masks: Masks, tmp_path: Path, change: Masks, message: str
) -> None:
    torch.save(network.state_dict(), tmp_path / "w.pth")
    torch.save(masks | change, tmp_path / "masks.pth")
    before = copy.deepcopy(fresh)
    with pytest.raises(InputError, match=message):
        load_weights(fresh, tmp_path / "w.pth", masks=tmp_path / "masks.pth")
    assert is_masked(fresh, before, {})


def test_a_file_without_masks_is_an_input_error(network: nn.Module, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "w.pth")
    torch.save({}, tmp_path / "masks.pth")
    with pytest.raises(InputError, match=r"masks file .*masks\.pth does not contain tensors by name"):
        load_weights(network, tmp_path / "w.pth", masks=tmp_path / "masks.pth")
    with pytest.raises(InputError, match=r"none\.pth cannot be read: No such file"):
        load_weights(network, tmp_path / "w.pth", masks=tmp_path / "none.pth")
