"""The commands, which only parse options and call the public functions."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunescope.bounds import MOST_COUNT, MOST_GIGABYTES, check_number
from prunescope.errors import InputError
from prunescope.files import expanded, inside
from prunescope.terminal import Commands, err, in_hours, out, print_table, progress_of, study_progress

if TYPE_CHECKING:
    from prunescope.dissection import LayerDissection

OPTIONS: dict[str, Any] = {"no_args_is_help": True, "rich_markup_mode": "markdown"}
NETWORKS = (
    "torchvision:resnet50[@WEIGHTS], timm:NAME[@TAG], hf:FOLDER, hf:OWNER/NAME, prunescope:resnet14x32 or "
    "path/to/file.py:function."
)


app = typer.Typer(
    cls=Commands,
    help="What happens to the things a network's units detect when the network is pruned?\n\n"
    "Start with `prunescope study demo --out out/demo`: a whole study on drawn images in minutes.",
    pretty_exceptions_enable=False,
    add_completion=False,
    **OPTIONS,
)
concepts_app = typer.Typer(help="Labelled images: check, download, draw.", **OPTIONS)
make_app = typer.Typer(help="Draw labelled images.", **OPTIONS)
import_app = typer.Typer(help="Read published results.", **OPTIONS)
recipe_app = typer.Typer(help="The recipes of studies.", **OPTIONS)
app.add_typer(concepts_app, name="concepts")
concepts_app.add_typer(make_app, name="make")
app.add_typer(import_app, name="import")
app.add_typer(recipe_app, name="recipe")


def _folder(path: Path) -> Path:
    """Raise if a path cannot become a folder, before any work is done that would be lost."""
    there = next(part for part in (path, *path.absolute().parents) if part.exists())
    if not there.is_dir():
        raise InputError(f"{path}: {there} is a file; give a folder, new or old")
    if not os.access(there, os.W_OK):
        raise InputError(f"{path}: nothing can be written in {there}; give a folder of your own")
    return path


Out = Annotated[Path, typer.Option("--out", help="Where results go.", show_default=False, callback=_folder)]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto takes a GPU where there is one.")]
Weights = Annotated[Path | None, typer.Option(help="A safetensors or torch file; nothing in it is run.")]
Classes = Annotated[int | None, typer.Option(help="Outputs of the network, where they are not its own default's.")]
UnitsAxis = Annotated[
    list[str] | None,
    typer.Option(
        "--units-axis",
        metavar="[LAYER=]AXIS",
        help="Which axis of the layers' outputs holds the units: 1 in [n, units, h, w], -1 if they are last. It is "
        "measured unless told. May be repeated, with layers' names.",
    ),
]
Network = Annotated[str, typer.Argument(help=NETWORKS)]
Data = Annotated[Path | None, typer.Option(help="The classification task: a folder of train/CLASS and val/CLASS.")]
StudyConcepts = Annotated[Path | None, typer.Option(help="Labelled images in Broden's format.")]
Recipes = Annotated[
    list[str], typer.Argument(help="Recipes' names (`prunescope recipe list`) or paths.", show_default=False)
]
BranchFrom = Annotated[
    list[Path] | None,
    typer.Option(
        "--branch-from",
        metavar="STUDY",
        help="A finished study whose dense networks, and masks for controls, are taken where both agree. "
        "May be repeated.",
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="FIELD=VALUE", help="Change a field of the recipe: training.length=2ep. May be repeated."
    ),
]


@concepts_app.command("check")
def concepts_check(
    directory: Annotated[Path, typer.Argument(help="A data set in Broden's format.")],
) -> None:
    """Check a data set and list every problem with its file and line.

    The exit code is 0 only if there are no problems.
    """
    from prunescope.concepts import check_concepts

    with progress_of("checking") as progress:
        check = check_concepts(directory, progress=progress)
    for problem in check.problems:
        out.print(str(problem))
    print_table(check.table)
    if check.problems:
        count = len(check.problems)
        err.print(f"{directory}: {count} problem{'s' if count > 1 else ''}")
        raise typer.Exit(1)
    out.print(f"{directory}: clean")


@concepts_app.command("pack")
def concepts_pack(
    directory: Annotated[Path, typer.Argument(help="A data set in Broden's format.")],
) -> None:
    """Write a packed copy of the images and labels to DIRECTORY/packed.

    From then on, the packed copy is used automatically.
    """
    from rich.filesize import decimal

    from prunescope.concepts import pack_concepts, packed_size

    err.print(f"the packed copy takes {decimal(packed_size(directory))}")
    with progress_of("packing") as progress:
        found = pack_concepts(directory, progress=progress)
    out.print(f"packed: {found}")


@concepts_app.command("download")
def concepts_download(
    name: Annotated[str, typer.Argument(help="The data set; `broden` is the one there is.")],
    directory: Annotated[Path, typer.Option("--out", help="Where to put it.")] = Path("data"),
    size: Annotated[int, typer.Option(help="Images' size: 224, 227 or 384 pixels.")] = 224,
    address: Annotated[str | None, typer.Option(help="Another place to download from.")] = None,
) -> None:
    """Download Broden from its published address, verify it and unpack it."""
    from prunescope.concepts import download_broden

    if name != "broden":
        raise InputError(f"there is no data set called {name!r} to download; there is: broden")
    options: dict[str, Any] = {} if address is None else {"address": address}
    steps = []
    with progress_of("broden") as progress:

        def show(step: str, done: int, total: int) -> None:
            steps.append(step)
            progress(done, total)

        found = download_broden(directory, size, progress=show, **options)
    already = " already" if "already there" in steps else ""
    out.print(f"Broden is{already} in {found}")


@make_app.command("miniature")
def concepts_make_miniature(
    directory: Annotated[Path, typer.Argument(help="A new folder.", callback=_folder)],
    images: Annotated[int, typer.Option(help="How many; a quarter of them for validation.")],
    seed: Annotated[int, typer.Option(help="Image i of a seed is the same everywhere.")] = 0,
    size: Annotated[int, typer.Option(help="Pixels a side.")] = 64,
) -> None:
    """Draw the miniature, a set of labelled images in Broden's format.

    The same images are also written as a classification task.
    """
    from prunescope.miniature import make_miniature

    with progress_of("drawing") as progress:
        found = make_miniature(directory, images, seed=seed, size=size, progress=progress)
    out.print(f"{images} images are in {found}, the classification task in {found / 'classification'}")


@app.command()
def layers(
    network: Network,
    size: Annotated[int, typer.Option(help="Images' size in pixels.")] = 224,
    weights: Weights = None,
    classes: Classes = None,
    units_axis: UnitsAxis = None,
) -> None:
    """List the layers of a network with their output shapes and numbers of units."""
    from prunescope.networks import build_network, list_layers

    given = _axes(units_axis)
    table = list_layers(build_network(network, classes=classes, weights=weights), size, units_axis=given)
    print_table(table.drop(columns="note"))
    for layer, note in zip(table["layer"], table["note"], strict=True):
        if note:
            err.print(f"{layer}: {note}")


@app.command()
def dissect(
    out_directory: Out,
    concepts: Annotated[Path, typer.Option(help="Labelled images in Broden's format.")],
    network: Annotated[str | None, typer.Argument(help=NETWORKS)] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A layer's name; may be repeated. Unless told, those that network dissection was published on.",
        ),
    ] = None,
    activations: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a network: an .npz with `features` [images, units, h, w], optionally `thresholds`."
        ),
    ] = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A safetensors or torch file; nothing in it is run. Several are dissected at once, each in OUT/STEM.",
        ),
    ] = None,
    classes: Classes = None,
    seed: Annotated[int, typer.Option(help="Of the weights, where they are random: neither published nor given.")] = 0,
    units_axis: UnitsAxis = None,
    quantile: Annotated[float, typer.Option(help="The fraction of positions above a unit's threshold.")] = 0.005,
    iou: Annotated[float, typer.Option(help="A unit is interpretable above this IoU.")] = 0.05,
    presence: Annotated[
        str,
        typer.Option(help="Images on which a mask counts: `image` (a label of the category anywhere) or `overlap`."),
    ] = "image",
    align: Annotated[
        str, typer.Option(help="How maps lie on the labels: `half-pixel` (stretched) or `receptive-field` (anchored).")
    ] = "half-pixel",
    batch_size: Annotated[int, typer.Option(help="Images at a time.")] = 32,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="Of the forward pass: `fp32`, `tf32` or `bf16`.")] = "fp32",
    memory: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="GB in which maps may wait for the thresholds; 1 unless given, or half of a GPU's free memory.",
        ),
    ] = None,
    spill: Annotated[float, typer.Option(min=0, help="GB on disk for those that do not fit.")] = 64.0,
    spill_in: Annotated[Path | None, typer.Option(help="Where on disk; the temporary folder unless told.")] = None,
    mean: Annotated[
        str | None, typer.Option(help="Of each color channel, 0..1: R,G,B. ImageNet's unless told.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Of each color channel: R,G,B. ImageNet's unless told.")] = None,
) -> None:
    """Find out which concept each unit of a layer detects.

    If --out contains a dissection with other settings, it is not overwritten. With `torchrun --nproc-per-node N -m
    prunescope dissect ...`, N processes share the images.
    """
    from prunescope.dissection.result import refuse_other

    if (network is None) == (activations is None):
        raise InputError("give a NETWORK or --activations FILE.npz, one of the two")
    if activations is not None:
        if layer or weights or classes or units_axis:
            raise InputError(
                "--layer, --weights, --classes and --units-axis are of a network; leave them out with --activations"
            )
        known = {"iou": iou, "activations": str(activations), **_of_all(concepts, quantile, presence)}
        refuse_other(out_directory, "activations", known, known=True)
        _save(_dissect_activations(activations, concepts, quantile, iou, presence), out_directory)
        return
    from prunescope.devices import choose_device
    from prunescope.dissection import Budget, dissect_networks
    from prunescope.dissection.settings import IMAGENET_MEAN, IMAGENET_STD
    from prunescope.networks import build_network, default_layers
    from prunescope.processes import join_processes

    given = None if memory is None else _bytes("--memory", memory)
    budget = Budget(given, _bytes("--spill", spill), spill_in)
    assert network is not None
    layers = layer or default_layers(network)
    files: dict[str, Path | None] = {file.stem: file for file in weights or ()} or {"": None}
    for name, file in files.items() if len(files) > 1 else ():
        inside(out_directory, name, f"--weights {file}: its stem")
    if len(files) < len(weights or ()):
        raise InputError("--weights: two files have the same name, which names their folders in --out; rename one")
    colors = {"mean": _colors("--mean", mean) or IMAGENET_MEAN, "std": _colors("--std", std) or IMAGENET_STD}
    settings = {"network": network, "weights": [str(file) for file in weights or ()], "seed": seed}
    # This is checked before the work, because an existing dissection would not be overwritten after it.
    known = {"iou": iou, "align": align, "precision": precision, **_of_all(concepts, quantile, presence), **colors}
    known |= settings if weights else {"network": network, "seed": seed}
    for name in files:
        for one in layers:
            refuse_other(out_directory / name if len(files) > 1 else out_directory, one, known, known=True)
    with join_processes("cpu") as processes, progress_of("dissecting", shown=processes.is_main) as progress:
        found = dissect_networks(
            {name: build_network(network, classes=classes, seed=seed, weights=file) for name, file in files.items()},
            layers=layers,
            concepts=concepts,
            units_axis=_axes(units_axis),
            quantile=quantile,
            iou=iou,
            presence=presence,  # type: ignore[arg-type]
            align=align,  # type: ignore[arg-type]
            batch_size=batch_size,
            device=choose_device(device, processes.rank),
            precision=precision,  # type: ignore[arg-type]
            **colors,
            budget=budget,
            settings=settings,
            progress=progress,
        )
    if processes.is_main:
        for name, dissection in found.items():
            for part in dissection.values():
                _save(part, out_directory / name if len(found) > 1 else out_directory)


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
            raise InputError(f"--units-axis says the axis of {layer or 'all layers'} twice; give it once")
        axes[layer] = number
    if "" in axes and len(axes) > 1:
        raise InputError("--units-axis: give one AXIS for all layers, or LAYER=AXIS for some, not both")
    return axes.get("", axes or None)


def _save(part: LayerDissection, folder: Path) -> None:
    part.save(folder)
    summary = part.summary
    out.print(
        f"{part.layer}: {summary['interpretable']} of {summary['units']} units interpretable, "
        f"{summary['concepts']} concepts: {folder / part.layer}"
    )


@import_app.command("netdissect")
def import_netdissect(
    file: Annotated[Path, typer.Argument(help="A CSV table in NetDissect-Lite's columns.")],
    out_directory: Out,
    iou: Annotated[float, typer.Option(help="A unit is interpretable above this IoU.")] = 0.05,
) -> None:
    """Convert a published table of network dissection to prunescope's files."""
    from prunescope.dissection import import_netdissect as run

    summary = run(file, out=out_directory, iou=iou).summary
    counts = f"{summary['units']} units, {summary['interpretable']} interpretable, {summary['concepts']} concepts"
    out.print(f"{counts}: {out_directory}")


@app.command()
def study(
    recipes: Recipes,
    out_directory: Out,
    data: Data = None,
    concepts: StudyConcepts = None,
    changes: Changes = None,
    branch_from: BranchFrom = None,
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the stages and stop.")] = False,
) -> None:
    """Run a study: train a network, prune it level by level and dissect every level, then write figures and a report.

    Stages that are complete in --out are not run again, so the same command continues an interrupted study. If several
    recipes are given, each becomes a study in a folder of --out, and studies that agree on the dense networks train
    them only once. With `accelerate launch -m prunescope study ...` or `torchrun`, several processes share the work.
    """
    from prunescope.api import Study
    from prunescope.api import studies as several
    from prunescope.store.layout import StudyDirectory
    from prunescope.study.branching import Branch
    from prunescope.study.mask_source import masks_branch

    given, branches = _given(changes, data, concepts), branch_from or ()
    if len(recipes) == 1:
        studies = [Study(recipes[0], out_directory, changes=given, device=device, branch_from=branches)]
    else:
        studies = several(recipes, out_directory, changes=given, device=device, branch_from=branches)
    main = int(os.environ.get("RANK", "0")) == 0
    for what in studies:
        name = f"{what.recipe.name}: " if len(studies) > 1 else ""
        if dry_run:
            StudyDirectory(what.out).refuse_others(what.recipe)
            if len(studies) == 1:
                masks_branch(what.recipe, [Branch.open(path) for path in branches])
            for stage in what.stages():
                line = f"{name}trial {stage.trial}  level {stage.level:02d}  {stage.work:8}"
                out.print(f"{line}{'done' if stage.done else ''}".rstrip())
            continue
        with study_progress(what.recipe.pruning.levels, name) as report:
            what.run(report)
        if main:
            out.print(f"The report is {(what.out / 'report' / 'index.html').resolve()}")


@app.command()
def plan(
    recipes: Recipes,
    out_directory: Annotated[
        Path | None, typer.Option("--out", help="Where the studies are; what is finished there is not counted.")
    ] = None,
    data: Data = None,
    concepts: StudyConcepts = None,
    changes: Changes = None,
    branch_from: BranchFrom = None,
    images_per_second: Annotated[
        str | None,
        typer.Option(metavar="TRAIN[,DISSECT]", help="Instead of measuring a few steps on this machine."),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, max=MOST_COUNT, help="Training images; those of the data unless told.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Estimate what studies will cost before they run: steps, images, disk space and hours.

    The hours are those of the training steps and forward passes on one device. They include the time to read the
    training images if these are available, but not the time to read the labelled images.
    """
    import prunescope

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
        f"in all: {trainings} trainings and {dissections} dissections, {int(total['steps']):,} steps, "
        f"{int(total['training images']):,} training images, {int(total['dissected images']):,} dissected images, "
        f"{total['megabytes'] / 1000:,.2f} GB, {in_hours(total['hours'])} hours"
    )
    for note in found.notes:
        err.print(f"note: {note}")


@app.command()
def report(directory: Annotated[Path, typer.Argument(help="A study's directory, finished or not.")]) -> None:
    """Write the evidence, the figures and the report of a study again."""
    from prunescope.api import write_outcome

    write_outcome(directory)
    out.print(f"The report is {(directory / 'report' / 'index.html').resolve()}")


@recipe_app.command("list")
def recipe_list() -> None:
    """List the recipes that come with the package."""
    from prunescope.store import recipe_text, shipped_recipes

    for name in shipped_recipes():
        first = recipe_text(name)[1].splitlines()[0]
        out.print(f"{name:25}{first.removeprefix('#').strip()}")


@recipe_app.command("show")
def recipe_show(
    name: Annotated[str, typer.Argument(help="Its name or path.")],
    resolved: Annotated[bool, typer.Option("--resolved", help="With what it extends, and every default.")] = False,
) -> None:
    """Print a recipe."""
    from prunescope.store import read_recipe, recipe_text

    out.print((read_recipe(name).to_yaml() if resolved else recipe_text(name)[1]).rstrip())


@recipe_app.command("schema")
def recipe_schema() -> None:
    """Print the JSON schema that recipes follow."""
    from prunescope.store import recipe_schema as schema

    out.print(json.dumps(schema(), indent=2))


def main() -> None:
    """Run the command line.

    The exit code is 0 if all went well, 1 if a check found problems, 2 if the input is wrong, and 130 after an
    interruption.
    """
    app(prog_name="prunescope")


def _given(changes: list[str] | None, data: Path | None, concepts: Path | None) -> list[str]:
    """Return the options of a study as changes to its recipe."""
    given = [*(changes or [])]
    given += [f"data.task={json.dumps(str(data))}"] if data else []
    return given + ([f"dissection.concepts={json.dumps(str(concepts))}"] if concepts else [])


def _dissect_activations(file: Path, concepts: Path, quantile: float, iou: float, presence: str) -> LayerDissection:
    from prunescope.dissection import dissect_activations
    from prunescope.dissection.activations import read_activations

    arrays = read_activations(file)
    with progress_of("dissecting") as progress:
        return dissect_activations(
            arrays["features"],
            concepts=concepts,
            thresholds=arrays.get("thresholds"),
            quantile=quantile,
            iou=iou,
            presence=presence,  # type: ignore[arg-type]
            settings={"activations": str(file)},
            progress=progress,
        )


def _of_all(concepts: Path, quantile: float, presence: str) -> dict[str, Any]:
    """Return the settings that every dissection stores in its summary."""
    return {"concepts": str(expanded(concepts).absolute()), "quantile": quantile, "presence": presence}


def _bytes(option: str, gigabytes: float) -> int:
    check_number(option, gigabytes, 0, MOST_GIGABYTES, "in GB")
    return round(gigabytes * 1e9)


def _colors(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    expected = f"{option} is {text!r}, expected three numbers such as 0.485,0.456,0.406"
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(expected) from error
    if len(numbers) != 3 or not all(math.isfinite(number) for number in numbers):
        raise InputError(expected)
    return numbers


def _speeds(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or not all(math.isfinite(number) and number > 0 for number in numbers):
        raise InputError(f"--images-per-second is {text!r}, expected one or two numbers above 0, such as 900,2500")
    # A forward pass takes about a third of the time of a training step.
    return numbers[0], numbers[1] if len(numbers) == 2 else 3 * numbers[0]
