"""The commands that write data sets in Broden's format from labels in other formats."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

import prunescope
from prunescope.cli.options import chosen
from prunescope.plurals import counted
from prunescope.terminal import out, progress_of

GROUP_HELP = "Write a data set in Broden's format from labels in other formats."

Target = Annotated[
    Path, typer.Option("--out", help="The folder to write, which must be absent or empty.", show_default=False)
]
Resize = Annotated[
    int | None,
    typer.Option(
        help="The height and width that images and labels are resized to. Without it, all images must have one size."
    ),
]
Crop = Annotated[
    str | None,
    typer.Option(
        help="`center` cuts each image to its central square before it is resized. By default, it is squeezed."
    ),
]
Pad = Annotated[
    bool, typer.Option("--pad", help="Resize with the aspect ratio kept, and fill the rest with black, without labels.")
]
Orient = Annotated[
    bool | None,
    typer.Option(
        "--orient/--no-orient",
        help="Whether to turn images by their EXIF orientation. By default, an image that would be turned is an error.",
    ),
]
Colors = Annotated[
    bool, typer.Option("--colors", help="Add the category `color`: one of eleven color names for each pixel.")
]
Workers = Annotated[int | None, typer.Option(help="The number of processes. By default, one for each processor.")]
Names = Annotated[
    Path,
    typer.Option(
        metavar="FILE",
        help="The name of each value: a table with the columns number (or color, #rrggbb) and name, lines such as "
        "`12: dog`, or JSON.",
        show_default=False,
    ),
]
Coding = Annotated[
    str | None,
    typer.Option(
        help="What a pixel of a mask means: `index` (a number, also in a palette), `colors`, or `ade20k`. By default, "
        "`colors` if the names have colors, and `index` otherwise."
    ),
]


def _category(default: str) -> Any:
    return typer.Option(help="The category of the concepts.", show_default=default)


ObjectCategory = Annotated[str | None, _category("object")]
SceneCategory = Annotated[str | None, _category("scene")]


def _options(
    resize: Resize = None,
    crop: Crop = None,
    pad: Pad = False,
    orient: Orient = None,
    colors: Colors = False,
    workers: Workers = None,
) -> dict[str, Any]:
    """Return the options that all importers take."""
    return {"resize": resize, "crop": crop, "pad": pad, "orient": orient, "colors": colors, "workers": workers}


def _importing(verb: str) -> Callable[[Callable[..., Path]], Callable[..., None]]:
    """Make a command of a function that writes a data set.

    The command has the function's own options and those of `_options`, which the function gets as `shared`, together
    with a callback for progress. It shows the progress and prints what was written.
    """

    def command_of(function: Callable[..., Path]) -> Callable[..., None]:
        own, further = (inspect.signature(one, eval_str=True) for one in (function, _options))

        @wraps(function)
        def command(**given: Any) -> None:
            options = _options(**{name: given.pop(name) for name in further.parameters})
            with progress_of(verb) as progress:
                root = function(**given, shared=options | {"progress": progress})
            _print_written(root)

        parameters = [*(one for name, one in own.parameters.items() if name != "shared"), *further.parameters.values()]
        # The command line is made from these.
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in parameters}
        return command

    return command_of


def _print_written(root: Path) -> None:
    data = prunescope.open_concepts(root)
    out.print(
        f"{counted(len(data), 'image')}, {counted(len(data.labels), 'concept')} ({', '.join(data.categories)}): {root}"
    )


@_importing("importing")
def masks(
    images: Annotated[Path, typer.Argument(help="The folder of the images.", show_default=False)],
    masks: Annotated[
        Path, typer.Argument(help="The folder of the masks: MASKS/a/b.png for IMAGES/a/b.jpg.", show_default=False)
    ],
    out_directory: Target,
    names: Names,
    coding: Coding = None,
    category: ObjectCategory = None,
    suffix: Annotated[
        str | None, typer.Option(help="The end of the masks' names, such as _mask if the mask of b.jpg is b_mask.png.")
    ] = None,
    skip_unpaired: Annotated[
        bool, typer.Option("--skip-unpaired", help="Leave out images without a mask and masks without an image.")
    ] = False,
    *,
    shared: dict[str, Any],
) -> Path:
    """Import images and their masks, in which the value of each pixel stands for a concept."""
    own = chosen(category=category, coding=coding, suffix=suffix)
    return prunescope.import_masks(
        images,
        masks,
        out_directory,
        names=names,
        skip_unpaired=skip_unpaired,
        **own,
        **shared,
    )


@_importing("importing")
def coco(
    images: Annotated[Path, typer.Argument(help="The folder of the images.", show_default=False)],
    annotations: Annotated[
        Path, typer.Argument(help="The JSON file of instances or of panoptic segments.", show_default=False)
    ],
    out_directory: Target,
    panoptic: Annotated[
        Path | None,
        typer.Option(help="The folder of the panoptic masks. By default, the one beside the JSON file of its name."),
    ] = None,
    category: ObjectCategory = None,
    *,
    shared: dict[str, Any],
) -> Path:
    """Import annotations in COCO's format: polygons, RLE, crowds or panoptic segments.

    This needs the package pycocotools: `pip install 'prunescope[coco]'`.
    """
    return prunescope.import_coco(
        images,
        annotations,
        out_directory,
        **chosen(panoptic=panoptic, category=category),
        **shared,
    )


@_importing("importing")
def voc(
    directory: Annotated[
        Path, typer.Argument(help="The folder of one year, such as VOCdevkit/VOC2012.", show_default=False)
    ],
    out_directory: Target,
    category: ObjectCategory = None,
    *,
    shared: dict[str, Any],
) -> Path:
    """Import the semantic segmentations of Pascal VOC."""
    return prunescope.import_voc(
        directory,
        out_directory,
        **chosen(category=category),
        **shared,
    )


@_importing("importing")
def folders(
    directory: Annotated[
        Path, typer.Argument(help="A folder with CLASS/IMAGE, or train/CLASS/IMAGE and val/...", show_default=False)
    ],
    out_directory: Target,
    category: SceneCategory = None,
    *,
    shared: dict[str, Any],
) -> Path:
    """Import images in one folder per class, which gives each image one label for all of its pixels."""
    return prunescope.import_folders(
        directory,
        out_directory,
        **chosen(category=category),
        **shared,
    )


@_importing("importing")
def huggingface(
    name: Annotated[str, typer.Argument(help="The name of a data set on the hub, or a folder.", show_default=False)],
    out_directory: Target,
    names: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The name of each value. By default, id2label.json in the folder."),
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="The column of the images.", show_default="found by its name")
    ] = None,
    mask: Annotated[str | None, typer.Option(help="The column of the masks.", show_default="found by its name")] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="A split to use. May be repeated; by default, all are used.")
    ] = None,
    coding: Coding = None,
    configuration: Annotated[str | None, typer.Option(help="The configuration of a data set on the hub.")] = None,
    revision: Annotated[str | None, typer.Option(help="The revision of a data set on the hub.")] = None,
    category: ObjectCategory = None,
    *,
    shared: dict[str, Any],
) -> Path:
    """Import a data set for semantic segmentation that Hugging Face's `datasets` can load.

    This needs the package datasets: `pip install 'prunescope[datasets]'`. Code of data sets is never executed.
    """
    own = chosen(names=names, image=image, mask=mask, splits=split or None, coding=coding, category=category)
    return prunescope.import_huggingface(
        name,
        out_directory,
        configuration=configuration,
        revision=revision,
        **own,
        **shared,
    )


@_importing("merging")
def merge(
    directories: Annotated[
        list[Path], typer.Argument(help="The folders of data sets in Broden's format.", show_default=False)
    ],
    out_directory: Target,
    *,
    shared: dict[str, Any],
) -> Path:
    """Merge data sets in Broden's format into one. Concepts of the same name become one."""
    return prunescope.merge_concepts(directories, out_directory, **shared)
