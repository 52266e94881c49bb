"""Measure how a forward pass in tf32 or bf16 changes a dissection.

    prunescope study demo --set pruning.levels=0 --out out
    python benchmarks/precision.py out

The benchmark dissects the study's dense network on the study's concepts in fp32, which is the reference, and compares
three more dissections with it:

- in fp32 with another batch size, which changes only the order of additions;
- in bf16;
- in emulated tf32: the weights and inputs of convolutions and linear layers are rounded to the 10 bits of mantissa of
  tf32, and products and sums are computed in fp32. This matches a GPU except for the order of
  the operations.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from prunescope.concepts import open_concepts
from prunescope.dissection import Dissection, LayerDissection, dissect
from prunescope.networks import build_network, load_weights


def main() -> None:
    """Run the dissections and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="a study's folder")
    parser.add_argument("--layers", default="stage1,stage2,stage3", help="separated by commas")
    options = parser.parse_args()
    recipe = yaml.safe_load((options.study / "study.yaml").read_text())
    weights = options.study / "trial-0/level-00/weights.safetensors"
    model = build_network(recipe["network"], classes=classes_of(weights), seed=0)
    load_weights(model, weights)
    model.eval()
    data = open_concepts(options.study / "data/concepts")
    layers = options.layers.split(",")

    def dissected(network: nn.Module, **chosen: Any) -> Dissection:
        color = {name: recipe["data"][name] for name in ("mean", "std")}
        return dissect(network, layers=layers, concepts=data, **color, **chosen)

    reference = dissected(model)
    others = {
        "fp32, batches of 7": dissected(model, batch_size=7),
        "tf32, emulated": dissected(in_tf32(model)),
        "bf16": dissected(model, precision="bf16"),
    }
    print("| layer | forward pass | thresholds: median, largest change | units with the same concept ", end="")
    print("| interpretable | concepts | largest change of an IoU |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for layer in layers:
        summary = reference[layer].summary
        print(f"| {layer} | fp32 | | | {summary['interpretable']} | {summary['concepts']} | |")
        for name, found in others.items():
            print(f"| {layer} | {name} | {row(found[layer], reference[layer])} |")


def row(found: LayerDissection, reference: LayerDissection) -> str:
    """Return the cells of the table that compare the dissection of a layer with the reference."""
    ours, theirs = found.units, reference.units
    change = np.abs(ours["threshold"] / theirs["threshold"] - 1)[~theirs["dead"] & (theirs["threshold"] != 0)]
    bound = reference.summary["settings"]["iou"]
    interpretable = theirs["iou"] > bound
    same = (ours["label"] == theirs["label"]) & (ours["iou"] > bound) & interpretable
    iou = np.abs(ours["iou"] - theirs["iou"]).max()
    return (
        f"{change.median():.1e}, {change.max():.1e} | {same.sum()} of {interpretable.sum()} | "
        f"{found.summary['interpretable']} | {found.summary['concepts']} | {iou:.4f}"
    )


def in_tf32(model: nn.Module) -> nn.Module:
    """Return a copy of a network in which inputs and weights of convolutions and linear layers are rounded to tf32."""
    rounding = copy.deepcopy(model)
    for module in rounding.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data = to_tf32(module.weight.data)
            module.register_forward_pre_hook(lambda _, inputs: (to_tf32(inputs[0]), *inputs[1:]))
    return rounding


def to_tf32(values: Tensor) -> Tensor:
    """Round values to 10 bits of mantissa, to the nearest value with ties to even."""
    bits = values.contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


def classes_of(weights: Path) -> int:
    """Return the number of classes, which is the length of the last layer's bias."""
    from safetensors import safe_open

    with safe_open(weights, "pt") as file:
        return int(file.get_tensor("fc.bias").shape[0])


if __name__ == "__main__":
    main()
