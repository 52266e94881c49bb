"""The options that several commands share, and the parsing of their values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

import prunescope
from prunescope.bounds import MOST_GIGABYTES, check_number
from prunescope.errors import InputError
from prunescope.files import check_folder

NETWORKS = (
    "torchvision:resnet50[@WEIGHTS], timm:NAME[@TAG], hf:FOLDER, hf:OWNER/NAME, prunescope:resnet14x32 or "
    "path/to/file.py:function."
)


def check_out(path: Path) -> Path:
    """Raise if a folder for results cannot be written to."""
    check_folder(path)
    return path


Out = Annotated[Path, typer.Option("--out", help="The folder for the results.", show_default=False, callback=check_out)]
Device = Annotated[
    str, typer.Option(help="The device to run on: cpu, cuda, cuda:1, ...; auto uses a GPU if there is one.")
]
Weights = Annotated[
    Path | None, typer.Option(help="A file of weights in safetensors or torch format. No code in it is run.")
]
WeightsKey = Annotated[
    str | None,
    typer.Option(
        "--weights-key",
        metavar="KEY",
        help="The key of the weights in the file, such as `ema` or `ema.module`. By default, the usual keys are tried.",
    ),
]
MASKS_HELP = "A file of masks by the names of weights; weights whose mask is 0 are set to zero."
Classes = Annotated[int | None, typer.Option(help="The number of outputs of the network, if it is not the default.")]
UnitsAxis = Annotated[
    list[str] | None,
    typer.Option(
        "--units-axis",
        metavar="[LAYER=]AXIS",
        help="The axis of the layers' outputs that holds the units: 1 for [n, units, h, w], -1 if the units are last. "
        "By default, it is measured. May be repeated with the names of layers.",
    ),
]
Channels = Annotated[
    int | None,
    typer.Option(
        help="The number of channels of the network's images: 3 for RGB, 1 for grey. By default, 1 if its first "
        "convolution takes one channel, and otherwise 3."
    ),
]
Network = Annotated[str, typer.Argument(help=NETWORKS)]
Data = Annotated[Path | None, typer.Option(help="The images to classify: a folder with train/CLASS and val/CLASS.")]
LABELLED = "A folder of labelled images in Broden's format."
StudyConcepts = Annotated[Path | None, typer.Option(help=LABELLED)]
Recipes = Annotated[
    list[str],
    typer.Argument(help="Names of recipes (see `prunescope recipe list`) or paths of files.", show_default=False),
]
BranchFrom = Annotated[
    list[Path] | None,
    typer.Option(
        "--branch-from",
        metavar="STUDY",
        help="A finished study. Its dense networks, and for controls its masks, are reused if both recipes agree on "
        "them. May be repeated.",
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="A change to a field of the recipe, such as training.length=2ep. May be repeated.",
    ),
]
Quantile = Annotated[
    float | None, typer.Option(help="The fraction of positions above a unit's threshold.", show_default="0.005")
]
Iou = Annotated[
    float | None, typer.Option(help="A unit is interpretable if its best IoU is above this.", show_default="0.05")
]
Presence = Annotated[
    str | None,
    typer.Option(
        help="The images in which a mask counts for a category: `image` (it has a label anywhere in the image) or "
        "`overlap` (it has a label under the mask).",
        show_default="image",
    ),
]
Chance = Annotated[
    int | None,
    typer.Option(
        help="The number of permutations of the labels with which units are compared; 0 for none.", show_default="20"
    ),
]
Basis = Annotated[
    list[str] | None,
    typer.Option(
        "--basis",
        metavar="BASIS",
        help="Also dissect the layers in another basis, in the same pass: `rotate:SEED[:POWER]`, a random rotation of "
        "the units, or FILE.safetensors, a matrix [directions, units]. May be repeated.",
    ),
]
Untrained = Annotated[
    bool,
    typer.Option(
        "--untrained",
        help="Also dissect the network with random weights, in the same pass, with the statistics of its normalisation "
        "layers estimated on the labelled images.",
    ),
]
Align = Annotated[
    str | None,
    typer.Option(
        help="How maps are aligned with labels: `half-pixel` (stretched over the image) or `receptive-field` (placed "
        "at the centres of the receptive fields).",
        show_default="half-pixel",
    ),
]
BatchSize = Annotated[int | None, typer.Option(help="The number of images in a batch.", show_default="32")]
Precision = Annotated[
    str | None,
    typer.Option(help="The precision of the forward pass: `fp32`, `tf32` or `bf16`.", show_default="fp32"),
]
Memory = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="The memory in GB for maps that are held until the thresholds are known. By default, 1 GiB, or on a GPU "
        "half of its free memory.",
    ),
]
Spill = Annotated[float, typer.Option(min=0, help="The disk space in GB for maps that do not fit into the memory.")]
SpillIn = Annotated[
    Path | None, typer.Option(help="The folder for these maps. By default, the system's temporary folder.")
]
Mean = Annotated[
    str | None,
    typer.Option(
        help="The mean of each channel for images scaled to 0..1: R,G,B. By default, that of the network's published "
        "weights, or that of ImageNet."
    ),
]
Std = Annotated[str | None, typer.Option(help="The standard deviation of each channel, like --mean.")]
Layer = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="The name of a layer. May be repeated. By default, the layers for which dissections of this network have "
        "been published.",
    ),
]
Images = Annotated[
    int | None, typer.Option(min=1, help="Use a stratified sample of this many labelled images, for a quick look.")
]


def chosen(**options: Any) -> dict[str, Any]:
    """Return the options that are given, so that the public function uses its defaults for the others."""
    return {name: value for name, value in options.items() if value is not None}


def axes_of(given: list[str] | None) -> int | dict[str, int] | None:
    """Parse the values of --units-axis: one `AXIS`, or several `LAYER=AXIS`."""
    axes: dict[str, int] = {}
    for text in given or ():
        layer, _, axis = text.rpartition("=")
        try:
            number = int(axis)
        except ValueError:
            raise InputError(f"--units-axis is {text!r}, expected AXIS or LAYER=AXIS, such as 1 or block=-1") from None
        if layer in axes:
            raise InputError(f"--units-axis is given twice for {layer or 'all layers'}; give it once")
        axes[layer] = number
    if "" in axes and len(axes) > 1:
        raise InputError("--units-axis: give either one AXIS for all layers or LAYER=AXIS for some, not both")
    return axes.get("", axes or None)


def _bytes(option: str, gigabytes: float) -> int:
    check_number(option, gigabytes, 0, MOST_GIGABYTES, "in GB")
    return round(gigabytes * 1e9)


def _colors(option: str, text: str) -> tuple[float, ...]:
    expected = f"{option} is {text!r}, expected three numbers such as 0.485,0.456,0.406, or one for grey images"
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(expected) from error
    if len(numbers) not in (1, 3) or not all(math.isfinite(number) for number in numbers):
        raise InputError(expected)
    return numbers


def budget_of(memory: float | None, spill: float, spill_in: Path | None) -> prunescope.Budget:
    """Return the budget that --memory, --spill and --spill-in describe."""
    given = None if memory is None else _bytes("--memory", memory)
    return prunescope.Budget(given, _bytes("--spill", spill), spill_in)


def colors_of(mean: str | None, std: str | None) -> dict[str, tuple[float, ...]]:
    """Return the values of --mean and --std that are given."""
    return {name: _colors(f"--{name}", text) for name, text in (("mean", mean), ("std", std)) if text is not None}
