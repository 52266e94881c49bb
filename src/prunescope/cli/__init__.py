"""The commands. Each parses its options, calls one public function, shows its progress and prints its result."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Annotated, Any

import typer

import prunescope
from prunescope.bounds import MOST_COUNT
from prunescope.cli import imports
from prunescope.cli.checkpoints import series, sweep
from prunescope.cli.options import (
    LABELLED,
    MASKS_HELP,
    NETWORKS,
    Align,
    Basis,
    BatchSize,
    BranchFrom,
    Chance,
    Changes,
    Channels,
    Classes,
    Data,
    Device,
    Images,
    Iou,
    Layer,
    Mean,
    Memory,
    Network,
    Out,
    Precision,
    Presence,
    Quantile,
    Recipes,
    Spill,
    SpillIn,
    Std,
    StudyConcepts,
    UnitsAxis,
    Untrained,
    Weights,
    WeightsKey,
    axes_of,
    budget_of,
    check_out,
    chosen,
    colors_of,
)
from prunescope.cli.results import compare, figures, show
from prunescope.errors import InputError
from prunescope.plurals import counted
from prunescope.terminal import Commands, err, in_hours, out, print_table, progress_of

OPTIONS: dict[str, Any] = {"no_args_is_help": True, "rich_markup_mode": "markdown"}

app = typer.Typer(
    cls=Commands,
    help="What happens to the concepts that a network's units detect when the network is pruned?\n\n"
    "Start with `prunescope study demo --out out/demo`, which runs a whole study on drawn images in a few minutes.",
    pretty_exceptions_enable=False,
    add_completion=False,
    **OPTIONS,
)
concepts_app = typer.Typer(help="Import, check, merge, pack, download or draw labelled images.", **OPTIONS)
make_app = typer.Typer(help="Draw labelled images with a program.", **OPTIONS)
import_app = typer.Typer(help="Import the results of other programs.", **OPTIONS)
recipe_app = typer.Typer(help="List and show the recipes of studies.", **OPTIONS)
app.add_typer(concepts_app, name="concepts")
concepts_app.add_typer(make_app, name="make")
labels_app = typer.Typer(help=imports.GROUP_HELP, **OPTIONS)
concepts_app.add_typer(labels_app, name="import")
for importer in (imports.masks, imports.coco, imports.voc, imports.folders, imports.huggingface):
    labels_app.command()(importer)
concepts_app.command()(imports.merge)
app.add_typer(import_app, name="import")
app.add_typer(recipe_app, name="recipe")
app.command()(series)
app.command()(sweep)
app.command()(show)
app.command()(figures)
app.command()(compare)


def _print_version(asked: bool) -> None:
    if asked:
        out.print(f"prunescope {prunescope.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Define the options that belong to no command."""


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
    directory: Annotated[Path, typer.Argument(help="A new folder.", callback=check_out)],
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
    axes = axes_of(units_axis)
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
    layer: Layer = None,
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
    chance: Chance = None,
    basis: Basis = None,
    untrained: Untrained = False,
    align: Align = None,
    batch_size: BatchSize = None,
    device: Device = "auto",
    precision: Precision = None,
    memory: Memory = None,
    spill: Spill = 64.0,
    spill_in: SpillIn = None,
    channels: Channels = None,
    mean: Mean = None,
    std: Std = None,
    images: Images = None,
) -> None:
    """Find out which concept each unit of a layer detects.

    If --out contains a dissection with other settings, it is not overwritten. With `torchrun --nproc-per-node N -m
    prunescope dissect ...`, N processes share the images.
    """
    if (network is None) == (activations is None):
        raise InputError("give either NETWORK or --activations FILE.npz")
    common = {"concepts": concepts} | chosen(quantile=quantile, iou=iou, presence=presence, chance=chance)
    if activations is not None:
        if layer or weights or weights_key or masks or classes or units_axis or untrained or basis:
            raise InputError(
                "--layer, --weights, --weights-key, --masks, --classes, --units-axis, --basis and --untrained only "
                "apply to a network; leave them out with --activations"
            )
        with progress_of("dissecting") as progress:
            part = prunescope.dissect_activations_file(activations, out_directory, progress=progress, **common)
        _print_dissection(part, out_directory)
        return
    assert network is not None
    common |= colors_of(mean, std)
    budget = budget_of(memory, spill, spill_in)
    axes = axes_of(units_axis)
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
            images=images,
            untrained=untrained,
            progress=progress,
            **common,
            **chosen(basis=basis, align=align, batch_size=batch_size, precision=precision),
        )
    for folder, dissection in found.items() if _is_main() else ():
        for part in dissection.values():
            _print_dissection(part, folder)
        for name, turned in dissection.bases.items():
            for part in turned.values():
                _print_dissection(part, folder / "basis" / name)


@import_app.command("netdissect")
def import_netdissect(
    file: Annotated[Path, typer.Argument(help="A CSV table with the columns of NetDissect-Lite.")],
    out_directory: Out,
    iou: Iou = None,
) -> None:
    """Convert a published table of network dissection to prunescope's files."""
    summary = prunescope.import_netdissect(file, out=out_directory, **chosen(iou=iou)).summary
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
    from prunescope.study.watching import study_progress

    with study_progress(err, named=several) as report:
        finished = prunescope.run_studies(recipes, out_directory, report=report, **given)
    for one in finished if _is_main() else ():
        _print_report(one.out)


@app.command()
def plan(
    recipes: Recipes,
    out_directory: Annotated[
        Path | None,
        typer.Option("--out", help="The folder of the studies. Stages that are complete there are not counted."),
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
def report(
    directory: Annotated[
        Path,
        typer.Argument(
            help="The folder of a study, a series or a sweep, finished or not, or of a dissection or a table."
        ),
    ],
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Write the evidence, the figures and the report of a study again, or the report of a dissection."""
    with progress_of("report") as progress:
        prunescope.write_outcome(directory, progress=progress)
    _print_report(directory)
    if open_page:
        typer.launch((directory / "report" / "index.html").resolve().as_uri())


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
        typer.Option(
            "--resolved", help="Print all fields, including defaults and those of the recipe that it extends."
        ),
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
    from prunescope.dissection.reach import reach_note  # imports torch

    if note := reach_note(part.layer, summary):
        err.print(f"note: {note}")


def _print_report(study: Path) -> None:
    out.print(f"The report is {(study / 'report' / 'index.html').resolve()}")


def _given(changes: list[str] | None, data: Path | None, concepts: Path | None) -> list[str]:
    """Return the options of a study as changes to its recipe."""
    given = [*(changes or [])]
    given += [f"data.task={json.dumps(str(data))}"] if data else []
    return given + ([f"dissection.concepts={json.dumps(str(concepts))}"] if concepts else [])


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
