"""The commands. Each parses its options, calls one public function, shows its progress and prints its result."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Annotated, Any

import typer

import prunescope
from prunescope.bounds import MOST_COUNT, MOST_GIGABYTES, check_number
from prunescope.errors import InputError
from prunescope.files import check_folder
from prunescope.terminal import Commands, counted, err, in_hours, out, print_table, progress_of, study_progress

OPTIONS: dict[str, Any] = {"no_args_is_help": True, "rich_markup_mode": "markdown"}
NETWORKS = (
    "torchvision:resnet50[@WEIGHTS], timm:NAME[@TAG], hf:FOLDER, hf:OWNER/NAME, prunescope:resnet14x32 or "
    "path/to/file.py:function."
)


app = typer.Typer(
    cls=Commands,
    help="What happens to the concepts that a network's units detect when the network is pruned?\n\n"
    "Start with `prunescope study demo --out out/demo`, which runs a whole study on drawn images in a few minutes.",
    pretty_exceptions_enable=False,
    add_completion=False,
    **OPTIONS,
)
concepts_app = typer.Typer(help="Check, pack, download or draw labelled images.", **OPTIONS)
make_app = typer.Typer(help="Draw labelled images with a program.", **OPTIONS)
import_app = typer.Typer(help="Import the results of other programs.", **OPTIONS)
recipe_app = typer.Typer(help="List and show the recipes of studies.", **OPTIONS)
app.add_typer(concepts_app, name="concepts")
concepts_app.add_typer(make_app, name="make")
app.add_typer(import_app, name="import")
app.add_typer(recipe_app, name="recipe")


def _folder(path: Path) -> Path:
    check_folder(path)
    return path


def _print_version(asked: bool) -> None:
    if asked:
        out.print(f"prunescope {prunescope.__version__}")
        raise typer.Exit


Out = Annotated[Path, typer.Option("--out", help="The folder for the results.", show_default=False, callback=_folder)]
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
Classes = Annotated[
    int | None, typer.Option(help="The number of outputs of the network, if it differs from the network's default.")
]
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
        help="The number of channels of the network's images: 3 for RGB, 1 for gray. By default, 1 if its first "
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
Iou = Annotated[float | None, typer.Option(help="A unit is interpretable above this IoU.", show_default="0.05")]
Presence = Annotated[
    str | None,
    typer.Option(
        help="The images in which a mask counts for a category: `image` (those with a label of it anywhere) or "
        "`overlap` (those with one under the mask).",
        show_default="image",
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


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Define the options of the program itself."""


@concepts_app.command("check")
def concepts_check(directory: Annotated[Path, typer.Argument(help=LABELLED)]) -> None:
    """Check a data set and list every problem with its file and line.

    The exit code is 0 only if there are no problems.
    """
    with progress_of("checking") as progress:
        check = prunescope.check_concepts(directory, progress=progress)
    for problem in check.problems:
        out.print(str(problem))
    print_table(check.table)
    if check.problems:
        err.print(f"{directory}: {counted(len(check.problems), 'problem')}")
        raise typer.Exit(1)
    out.print(f"{directory}: no problems found")


@concepts_app.command("pack")
def concepts_pack(directory: Annotated[Path, typer.Argument(help=LABELLED)]) -> None:
    """Write a packed copy of the images and labels to DIRECTORY/packed.

    From then on, the packed copy is used automatically.
    """
    from rich.filesize import decimal

    err.print(f"the packed copy takes {decimal(prunescope.packed_size(directory))}")
    with progress_of("packing") as progress:
        found = prunescope.pack_concepts(directory, progress=progress)
    out.print(f"The packed copy is {found}")


@concepts_app.command("download")
def concepts_download(
    name: Annotated[str, typer.Argument(help="The data set. The only one is `broden`.")],
    directory: Annotated[
        Path, typer.Option("--out", help="The folder in which the data set gets a folder of its own.")
    ] = Path("data"),
    size: Annotated[int, typer.Option(help="The size of the images in pixels: 224, 227 or 384.")] = 224,
    address: Annotated[str | None, typer.Option(help="Another URL to download the archive from.")] = None,
) -> None:
    """Download Broden from its published address, verify it and unpack it."""
    if name != "broden":
        raise InputError(f"there is no data set called {name!r} to download; the only one is: broden")
    given: dict[str, Any] = {} if address is None else {"address": address}
    steps = []
    with progress_of("broden") as progress:

        def show(step: str, done: int, total: int) -> None:
            steps.append(step)
            progress(done, total)

        found = prunescope.download_broden(directory, size, progress=show, **given)
    already = " already" if "already there" in steps else ""
    out.print(f"Broden is{already} in {found}")


@make_app.command("miniature")
def concepts_make_miniature(
    directory: Annotated[Path, typer.Argument(help="A new folder.", callback=_folder)],
    images: Annotated[int, typer.Option(help="The number of images. A quarter of them are for validation.")],
    seed: Annotated[int, typer.Option(help="The seed. The same seed and size always give the same images.")] = 0,
    size: Annotated[int, typer.Option(help="The height and width of the images in pixels.")] = 64,
) -> None:
    """Draw the miniature, a set of labelled images in Broden's format.

    The same images are also written as a classification task.
    """
    with progress_of("drawing") as progress:
        found = prunescope.make_miniature(directory, images, seed=seed, size=size, progress=progress)
    out.print(
        f"The labelled images ({images:,}) are in {found}, and the classification task is in {found / 'classification'}"
    )


@app.command()
def layers(
    network: Network,
    size: Annotated[int, typer.Option(help="The height and width of the images in pixels.")] = 224,
    weights: Weights = None,
    weights_key: WeightsKey = None,
    masks: Annotated[Path | None, typer.Option(metavar="FILE", help=MASKS_HELP)] = None,
    classes: Classes = None,
    units_axis: UnitsAxis = None,
    channels: Channels = None,
) -> None:
    """List the layers of a network with their output shapes and numbers of units."""
    axes = _axes(units_axis)
    table = prunescope.list_layers(
        network,
        size,
        units_axis=axes,
        channels=channels,
        classes=classes,
        weights=weights,
        weights_key=weights_key,
        masks=masks,
    )
    print_table(table.drop(columns="note"))
    for layer, note in zip(table["layer"], table["note"], strict=True):
        if note:
            err.print(f"{layer}: {note}")


@app.command()
def dissect(
    out_directory: Out,
    concepts: Annotated[Path, typer.Option(help=LABELLED)],
    network: Annotated[str | None, typer.Argument(help=NETWORKS)] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="The name of a layer. May be repeated. By default, the layers for which dissections of this network "
            "have been published.",
        ),
    ] = None,
    activations: Annotated[
        Path | None,
        typer.Option(
            help="An .npz file to dissect instead of a network, with `features` [images, units, h, w] and optionally "
            "`thresholds`."
        ),
    ] = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A file of weights in safetensors or torch format. No code in it is run. May be repeated: several "
            "files are dissected at once, each into OUT/NAME, where NAME is the file's name without its suffix.",
        ),
    ] = None,
    weights_key: WeightsKey = None,
    masks: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help=f"{MASKS_HELP} Repeat it for each of several --weights, in their order."),
    ] = None,
    classes: Classes = None,
    seed: Annotated[
        int, typer.Option(help="The seed of random weights, which are used if no weights are given or published.")
    ] = 0,
    units_axis: UnitsAxis = None,
    quantile: Quantile = None,
    iou: Iou = None,
    presence: Presence = None,
    align: Align = None,
    batch_size: BatchSize = None,
    device: Device = "auto",
    precision: Precision = None,
    memory: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="The memory in GB for maps that wait for the thresholds. By default, 1 GiB, or on a GPU half of its "
            "free memory.",
        ),
    ] = None,
    spill: Annotated[
        float, typer.Option(min=0, help="The disk space in GB for maps that do not fit into the memory.")
    ] = 64.0,
    spill_in: Annotated[
        Path | None, typer.Option(help="The folder for these maps. By default, the system's temporary folder.")
    ] = None,
    channels: Channels = None,
    mean: Annotated[
        str | None,
        typer.Option(
            help="The mean of each channel for images scaled to 0..1: R,G,B. By default, that of the network's "
            "published weights, or that of ImageNet."
        ),
    ] = None,
    std: Annotated[str | None, typer.Option(help="The standard deviation of each channel, like --mean.")] = None,
) -> None:
    """Find out which concept each unit of a layer detects.

    If --out contains a dissection with other settings, it is not overwritten. With `torchrun --nproc-per-node N -m
    prunescope dissect ...`, N processes share the images.
    """
    if (network is None) == (activations is None):
        raise InputError("give either NETWORK or --activations FILE.npz")
    common = {"concepts": concepts} | _chosen(quantile=quantile, iou=iou, presence=presence)
    if activations is not None:
        if layer or weights or weights_key or masks or classes or units_axis:
            raise InputError(
                "--layer, --weights, --weights-key, --masks, --classes and --units-axis only apply to a network; leave "
                "them out with --activations"
            )
        with progress_of("dissecting") as progress:
            part = prunescope.dissect_activations_file(activations, out_directory, progress=progress, **common)
        _print_dissection(part, out_directory)
        return
    assert network is not None
    common |= {name: _colors(f"--{name}", text) for name, text in (("mean", mean), ("std", std)) if text is not None}
    given = None if memory is None else _bytes("--memory", memory)
    budget = prunescope.Budget(given, _bytes("--spill", spill), spill_in)
    axes = _axes(units_axis)
    with progress_of("dissecting", shown=_is_main()) as progress:
        found = prunescope.dissect_checkpoints(
            network,
            out_directory,
            weights=weights or (),
            weights_key=weights_key,
            masks=masks or (),
            layers=layer or (),
            classes=classes,
            seed=seed,
            units_axis=axes,
            channels=channels,
            device=device,
            budget=budget,
            progress=progress,
            **common,
            **_chosen(align=align, batch_size=batch_size, precision=precision),
        )
    for folder, dissection in found.items() if _is_main() else ():
        for part in dissection.values():
            _print_dissection(part, folder)


@import_app.command("netdissect")
def import_netdissect(
    file: Annotated[Path, typer.Argument(help="A CSV table with the columns of NetDissect-Lite.")],
    out_directory: Out,
    iou: Iou = None,
) -> None:
    """Convert a published table of network dissection to prunescope's files."""
    summary = prunescope.import_netdissect(file, out=out_directory, **_chosen(iou=iou)).summary
    out.print(
        f"{counted(summary['units'], 'unit')}, {summary['interpretable']:,} interpretable, "
        f"{counted(summary['concepts'], 'concept')}: {out_directory}"
    )


@app.command()
def study(
    recipes: Recipes,
    out_directory: Out,
    data: Data = None,
    concepts: StudyConcepts = None,
    changes: Changes = None,
    branch_from: BranchFrom = None,
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the stages, but do not run them.")] = False,
) -> None:
    """Run a study: train a network, prune it level by level and dissect every level, then write figures and a report.

    Stages that are complete in --out are not run again, so the same command continues an interrupted study. If several
    recipes are given, each becomes a study in a folder of --out, and studies that agree on the dense networks train
    them only once. With `accelerate launch -m prunescope study ...` or `torchrun`, several processes share the work.
    """
    given: dict[str, Any] = {
        "changes": _given(changes, data, concepts), "device": device, "branch_from": branch_from or (),
    }  # fmt: skip
    several = len(recipes) > 1
    if dry_run:
        for stage in prunescope.list_stages(recipes, out_directory, **given).itertuples():
            name = f"{stage.study}: " if several else ""
            line = f"{name}trial {stage.trial}  level {stage.level:02d}  {stage.work:8}"
            out.print(f"{line}{'done' if stage.done else ''}".rstrip())
        return
    with study_progress(named=several) as report:
        finished = prunescope.run_studies(recipes, out_directory, report=report, **given)
    for one in finished if _is_main() else ():
        _print_report(one.out)


@app.command()
def plan(
    recipes: Recipes,
    out_directory: Annotated[
        Path | None,
        typer.Option("--out", help="The folder of the studies. What is finished there already is not counted."),
    ] = None,
    data: Data = None,
    concepts: StudyConcepts = None,
    changes: Changes = None,
    branch_from: BranchFrom = None,
    images_per_second: Annotated[
        str | None,
        typer.Option(
            metavar="TRAIN[,DISSECT]",
            help="The speed in training and in dissection. By default, a few steps are measured on this machine.",
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_COUNT, help="The number of training images. By default, those of the data are counted."
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Estimate what studies will cost before they run: steps, images, disk space and hours.

    The hours are those of the training steps and forward passes on one device. They include the time to read the
    training images if these are available, but not the time to read the labelled images.
    """
    found = prunescope.plan(
        recipes,
        out_directory,
        changes=_given(changes, data, concepts),
        device=device,
        branch_from=branch_from or (),
        images_per_second=_speeds(images_per_second),
        images=images,
    )
    table = found.table
    shown = table.rename(columns={"weights remaining": "kept", "megabytes": "MB", "dissected images": "dissected"})
    for column, form in (("kept", "{:.1%}"), ("MB", "{:,.1f}")):
        shown[column] = [form.format(value) for value in shown[column]]
    shown["hours"] = [in_hours(value) for value in shown["hours"]]
    print_table(shown.drop(columns="training images"))
    total = table[["steps", "training images", "dissected images", "megabytes", "hours"]].sum()
    trainings, dissections = (int((table[column] > 0).sum()) for column in ("steps", "dissected images"))
    out.print(
        f"in all: {counted(trainings, 'training')} and {counted(dissections, 'dissection')}, "
        f"{counted(int(total['steps']), 'step')}, {counted(int(total['training images']), 'training image')}, "
        f"{counted(int(total['dissected images']), 'dissected image')}, {total['megabytes'] / 1000:,.2f} GB, "
        f"{in_hours(total['hours'])} hours"
    )
    for note in found.notes:
        err.print(f"note: {note}")


@app.command()
def report(directory: Annotated[Path, typer.Argument(help="The folder of a study, finished or not.")]) -> None:
    """Write the evidence, the figures and the report of a study again."""
    prunescope.write_outcome(directory)
    _print_report(directory)


@recipe_app.command("list")
def recipe_list() -> None:
    """List the recipes that come with the package."""
    for name, description in prunescope.list_recipes().items():
        out.print(f"{name:25}{description}")


@recipe_app.command("show")
def recipe_show(
    name: Annotated[str, typer.Argument(help="The name of a recipe, or the path of a file.")],
    resolved: Annotated[
        bool,
        typer.Option("--resolved", help="Print all fields, with those of the recipe that it extends and the defaults."),
    ] = False,
) -> None:
    """Print a recipe."""
    out.print(prunescope.show_recipe(name, resolved=resolved).rstrip())


@recipe_app.command("schema")
def recipe_schema() -> None:
    """Print the JSON schema that recipes follow."""
    out.print(json.dumps(prunescope.recipe_schema(), indent=2))


def main() -> None:
    """Run the command line.

    The exit code is 0 if all went well, 1 if a check found problems, 2 if the input is wrong, and 130 after an
    interruption.
    """
    app(prog_name="prunescope")


def _is_main() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def _print_dissection(part: prunescope.LayerDissection, folder: Path) -> None:
    summary = part.summary
    out.print(
        f"{part.layer}: {summary['interpretable']:,} of {counted(summary['units'], 'unit')} interpretable, "
        f"{counted(summary['concepts'], 'concept')}: {folder / part.layer}"
    )


def _print_report(study: Path) -> None:
    out.print(f"The report is {(study / 'report' / 'index.html').resolve()}")


def _given(changes: list[str] | None, data: Path | None, concepts: Path | None) -> list[str]:
    """Return the options of a study as changes to its recipe."""
    given = [*(changes or [])]
    given += [f"data.task={json.dumps(str(data))}"] if data else []
    return given + ([f"dissection.concepts={json.dumps(str(concepts))}"] if concepts else [])


def _chosen(**options: Any) -> dict[str, Any]:
    """Return the options that are given; the others have the defaults of the public function."""
    return {name: value for name, value in options.items() if value is not None}


def _axes(given: list[str] | None) -> int | dict[str, int] | None:
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
    expected = f"{option} is {text!r}, expected three numbers such as 0.485,0.456,0.406, or one for gray images"
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(expected) from error
    if len(numbers) not in (1, 3) or not all(math.isfinite(number) for number in numbers):
        raise InputError(expected)
    return numbers


def _speeds(text: str | None) -> float | tuple[float, float] | None:
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or not all(math.isfinite(number) and number > 0 for number in numbers):
        raise InputError(f"--images-per-second is {text!r}, expected one or two numbers above 0, such as 900,2500")
    return (numbers[0], numbers[1]) if len(numbers) == 2 else numbers[0]
