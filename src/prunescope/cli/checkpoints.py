"""The commands for networks that exist already: series of checkpoints, and sweeps of one trained network."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import prunescope
from prunescope.cli.options import (
    LABELLED,
    Align,
    Basis,
    BatchSize,
    Chance,
    Channels,
    Classes,
    Device,
    Images,
    Iou,
    Layer,
    Mean,
    Memory,
    Out,
    Precision,
    Presence,
    Quantile,
    Spill,
    SpillIn,
    Std,
    UnitsAxis,
    Untrained,
    WeightsKey,
    axes_of,
    budget_of,
    chosen,
    colors_of,
)
from prunescope.errors import InputError
from prunescope.terminal import err, out

if TYPE_CHECKING:
    from prunescope.series import Series

Validation = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Images to measure the accuracy on: a folder of val/CLASS, or a task as in a recipe, such as "
        "'{cifar10: FOLDER}'. Without it, accuracy is left out.",
    ),
]
Size = Annotated[
    int | None,
    typer.Option(help="The height and width of the images in --data; by default, those of the labelled images."),
]
Name = Annotated[str | None, typer.Option(help="The name that figures and pages show.")]


def series(
    network: Annotated[
        str, typer.Argument(help="The network, as for `dissect`; or a YAML file that describes the whole series.")
    ],
    out_directory: Out,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="A checkpoint; repeat the option for each one. The first is the dense network."
        ),
    ] = None,
    weights_key: WeightsKey = None,
    masks: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="A file of masks for each checkpoint, in the same order."),
    ] = None,
    concepts: Annotated[Path | None, typer.Option(help=LABELLED)] = None,
    layer: Layer = None,
    data: Validation = None,
    size: Size = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="The position of each checkpoint on the figures' axis; needs --axis."),
    ] = None,
    axis: Annotated[
        str | None,
        typer.Option(help="The name of the figures' axis, such as 'Bits per weight'; by default, weights remaining."),
    ] = None,
    name: Name = None,
    match: Annotated[
        bool,
        typer.Option("--match", help="Match the units of each checkpoint to those of the first by their activations."),
    ] = False,
    classes: Classes = None,
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
    images: Images = None,
    memory: Memory = None,
    spill: Spill = 64.0,
    spill_in: SpillIn = None,
    channels: Channels = None,
    mean: Mean = None,
    std: Std = None,
) -> None:
    """Dissect checkpoints that exist already, and write the figures and the report of a study without training.

    Give the checkpoints with `--weights`, the dense one first, or a YAML file instead of NETWORK, which may describe
    several trials and networks. Checkpoints that are complete in --out are not run again, and further ones can be added
    at the end.
    """
    budget = budget_of(memory, spill, spill_in)
    if Path(network).suffix in (".yaml", ".yml"):
        given = {
            "--weights": weights, "--weights-key": weights_key, "--masks": masks, "--concepts": concepts,
            "--layer": layer, "--data": data, "--size": size, "--at": at, "--axis": axis, "--name": name,
            "--match": match or None, "--untrained": untrained or None,
            "--classes": classes, "--units-axis": units_axis, "--quantile": quantile,
            "--iou": iou, "--presence": presence, "--chance": chance, "--basis": basis, "--align": align,
            "--batch-size": batch_size, "--precision": precision, "--images": images, "--channels": channels,
            "--mean": mean, "--std": std,
        }  # fmt: skip
        if wrong := [option for option, value in given.items() if value not in (None, [])]:
            raise InputError(f"{', '.join(wrong)}: the file {network} describes the series; change it there")
        _run(prunescope.Series.read(network, out_directory, device=device, budget=budget))
        return
    if not weights or concepts is None:
        raise InputError(f"give {'--concepts DIR' if weights else 'at least one --weights FILE'}, or a YAML file")
    _run(
        prunescope.Series(
            network,
            _checkpoints(weights, weights_key, masks),
            out_directory,
            concepts=concepts,
            layers=layer,
            data=_task(data, size),
            at=None if at is None else [_position(part) for part in at.split(",")],
            axis=axis,
            match=match,
            untrained=untrained,
            classes=classes,
            name=name or "series",
            device=device,
            budget=budget,
            dissection=chosen(
                units_axis=axes_of(units_axis),
                quantile=quantile,
                iou=iou,
                presence=presence,
                chance=chance,
                basis=basis,
                align=align,
                batch_size=batch_size,
                precision=precision,
                images=images,
            ),
            **colors_of(mean, std),
            **chosen(channels=channels),
        )
    )


def sweep(
    network: Annotated[str, typer.Argument(help="The trained network, as for `dissect`.")],
    out_directory: Out,
    concepts: Annotated[Path, typer.Option(help=LABELLED)],
    weights: Annotated[
        Path | None, typer.Option(help="A file of weights, if the network's name includes none.")
    ] = None,
    weights_key: WeightsKey = None,
    masks: Annotated[Path | None, typer.Option(metavar="FILE", help="A file of masks to apply to the weights.")] = None,
    remaining: Annotated[
        str, typer.Option(metavar="A,B,...", help="The weights remaining of each level; the first is level 0.")
    ] = "1,0.8,0.6,0.4,0.2",
    criterion: Annotated[str, typer.Option(help="Which weights are pruned: `magnitude` or `random`.")] = "magnitude",
    scope: Annotated[
        str, typer.Option(help="Compare all weights (`global`) or those of each layer (`layer`), or remove `filters`.")
    ] = "global",
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Weights that are not pruned, by name or pattern.")
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            help="The seed of random pruning, of the order of images for recalibration, and of the weights of a "
            "network for which none are given or published."
        ),
    ] = 0,
    recalibrate: Annotated[
        bool, typer.Option(help="Estimate the statistics of batch normalisation again after pruning.")
    ] = True,
    layer: Layer = None,
    data: Validation = None,
    size: Size = None,
    name: Name = None,
    classes: Classes = None,
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
    images: Images = None,
    memory: Memory = None,
    spill: Spill = 64.0,
    spill_in: SpillIn = None,
    channels: Channels = None,
    mean: Mean = None,
    std: Std = None,
) -> None:
    """Prune one trained network to several levels without training, and dissect all of them together.

    The statistics of batch normalisation are estimated again on the labelled images at each level. Otherwise, a
    sweep works like a series.
    """
    try:
        shares = [float(part) for part in remaining.split(",")]
    except ValueError:
        raise InputError(f"--remaining is {remaining!r}, expected numbers from 0 to 1, such as 1,0.5,0.2") from None
    _run(
        prunescope.sweep(
            network,
            concepts=concepts,
            out=out_directory,
            weights=weights,
            weights_key=weights_key,
            masks=masks,
            remaining=shares,
            layers=layer,
            data=_task(data, size),
            criterion=criterion,
            scope=scope,
            exclude=exclude or (),
            seed=seed,
            recalibrate=recalibrate,
            name=name or "sweep",
            untrained=untrained,
            classes=classes,
            device=device,
            budget=budget_of(memory, spill, spill_in),
            dissection=chosen(
                units_axis=axes_of(units_axis),
                quantile=quantile,
                iou=iou,
                presence=presence,
                chance=chance,
                basis=basis,
                align=align,
                batch_size=batch_size,
                precision=precision,
                images=images,
            ),
            **colors_of(mean, std),
            **chosen(channels=channels),
        )
    )


def _run(what: Series) -> None:
    from prunescope.study.watching import study_progress

    with study_progress(err, named=False) as show:
        what.run(partial(show, what))
    out.print(f"The report is {(what.out / 'report' / 'index.html').resolve()}")


def _checkpoints(weights: list[str], key: str | None, masks: list[str] | None) -> list[dict[str, str]]:
    from prunescope.networks.weight_masks import pair_masks

    pairs = zip(weights, pair_masks(weights, masks or ()), strict=True)
    return [{"weights": file} | chosen(key=key, masks=mask) for file, mask in pairs]


def _task(data: str | None, size: int | None) -> dict[str, Any] | None:
    if data is None:
        if size is not None:
            raise InputError("--size applies to the images in --data; give --data too, or leave out --size")
        return None
    from prunescope.store.values import UnreadableError, loaded

    task: Any = data
    if data.lstrip().startswith("{"):
        try:
            task = loaded(data)
        except UnreadableError as error:
            raise InputError(
                f"--data {data!r}: {error}; expected a folder, or YAML such as {{cifar10: FOLDER}}"
            ) from error
    return {"task": task} | ({} if size is None else {"size": size})


def _position(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
