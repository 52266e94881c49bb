"""Dissect networks given by name, or activation maps given in a file, and save the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prunescope.concepts.packed import with_packed_copy
from prunescope.concepts.protocol import Concepts
from prunescope.concepts.sample import as_sample
from prunescope.devices import choose_device
from prunescope.dissection.activations import read_activations
from prunescope.dissection.calibration import calibrate
from prunescope.dissection.layer_files import refuse_other
from prunescope.dissection.result import Dissection, LayerDissection
from prunescope.dissection.run import dissect_activations, dissect_networks
from prunescope.dissection.settings import DEFAULTS, Align, Precision, Presence, Settings
from prunescope.dissection.storage import Budget
from prunescope.errors import InputError, refuse_text
from prunescope.files import check_folder, expanded, inside
from prunescope.networks.chosen_preprocessing import choose_preprocessing
from prunescope.networks.layers import UnitsAxis
from prunescope.networks.observing import check_layers
from prunescope.networks.source import build_network, build_untrained, default_layers
from prunescope.networks.weight_masks import pair_masks
from prunescope.processes import join_processes
from prunescope.progress import Shown, shown_progress

UNTRAINED = "untrained"  # the folder of the untrained network's results


def dissect_checkpoints(
    network: str,
    out: str | Path,
    *,
    concepts: Concepts | str | Path,
    weights: Sequence[str | Path] = (),
    weights_key: str | None = None,
    masks: Sequence[str | Path] = (),
    layers: Sequence[str] = (),
    classes: int | None = None,
    seed: int = 0,
    units_axis: UnitsAxis | None = None,
    quantile: float = DEFAULTS.quantile,
    iou: float = DEFAULTS.iou,
    presence: Presence = DEFAULTS.presence,
    chance: int = DEFAULTS.chance,
    basis: Sequence[str] = DEFAULTS.basis,
    align: Align = DEFAULTS.align,
    batch_size: int = DEFAULTS.batch_size,
    device: str = "auto",
    precision: Precision = DEFAULTS.precision,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channels: int | None = None,
    budget: Budget = Budget(),  # noqa: B008 - frozen
    images: int | None = None,
    untrained: bool = False,
    progress: Shown = "auto",
) -> dict[Path, Dissection]:
    """Dissect a network given by its name, with one or several files of weights, and save the results.

    Several files of weights are dissected in one pass over the labelled images. If labels are permuted (`chance`) and
    the data set has no packed copy, it is written first (see `pack_concepts`). If `out` contains a dissection with
    other settings, an error is raised before any work, and nothing is overwritten.

    If several processes were started by `torchrun` or `accelerate launch`, every process must make this call. They
    share the images, and the main process saves the results.

    Parameters
    ----------
    network
        The name of the network, as `build_network` takes it.
    out
        The folder for the results. With several files of weights, each has a subfolder, named like the file without its
        suffix. A layer is saved in a folder with the layer's name.
    weights
        Files of weights, as `load_weights` reads them. By default, the network has its published weights if its name
        includes them, and otherwise random weights.
    weights_key
        The key of the weights in each file. By default, the usual keys are tried.
    masks
        A file of masks for each file of weights, in the same order, as `load_weights` takes them.
    layers
        The names of the layers. By default, they are those of `default_layers`, for which dissections have been
        published.
    classes, seed
        The number of outputs of the network and the seed of random weights, as in `build_network`.
    device
        The device that the network runs on: `cpu`, `cuda`, `cuda:1`, ...; `auto` uses a GPU if there is one.
    untrained
        Whether the network with random weights of `seed` is dissected as well, in the same pass, with the statistics of
        its normalisation layers estimated on the labelled images. Its results are saved in the subfolder `untrained`.
    concepts, units_axis, quantile, iou, presence, chance, basis, align, batch_size, precision, mean, std, channels, \
    budget, images, progress
        As in `dissect`.

    Returns
    -------
    dict of Path to Dissection
        The results of each file of weights, by the folder in which they are saved. With one file or none, the folder is
        `out`. With `untrained`, there is one more, whose folder is `untrained` in `out`.

    Raises
    ------
    InputError
        If the network or a file of weights cannot be used, if two files have the same name, if no layers are given and
        none were published for the network, if `out` contains a dissection with other settings or cannot be written to;
        otherwise as in `dissect`.
    OSError
        As in `dissect`.

    Warns
    -----
    UserWarning
        As in `dissect`.

    Examples
    --------
    ::

        prunescope.dissect_checkpoints(
            "torchvision:resnet18", "out/two", weights=["dense.pth", "pruned.pth"], concepts="broden1_224"
        )
    """
    refuse_text(weights, "weights")
    refuse_text(masks, "masks")
    refuse_text(layers, "layers")
    check_folder(Path(out))
    chosen = tuple(layers) or default_layers(network)
    files: dict[str, str | Path | None] = {Path(file).stem: file for file in weights} or {"": None}
    if len(files) < len(weights):
        raise InputError(
            "weights: two files have the same name, but the folders of their results are named after them; rename one"
        )
    if untrained and UNTRAINED in files:
        raise InputError(
            f"weights: the results of {files[UNTRAINED]} and those of the untrained network would be in the same "
            f"folder, {Path(out) / UNTRAINED}; rename the file"
        )
    masks_of = dict(zip(files, pair_masks(weights, masks), strict=False))
    folders = {
        name: inside(out, name, f"weights {file}: its stem") if len(files) > 1 else Path(out)
        for name, file in files.items()
    }
    settings = Settings.checked(
        quantile=quantile,
        iou=iou,
        presence=presence,
        chance=chance,
        basis=basis,
        align=align,
        precision=precision,
        batch_size=batch_size,
    )
    data = as_sample(concepts, images)
    models = {
        name: build_network(
            network, classes=classes, seed=seed, weights=file, key=weights_key, masks=masks_of.get(name)
        )
        for name, file in files.items()
    }
    preprocessing = choose_preprocessing(models, data.image_size, mean, std, channels)
    metadata: dict[str, Any] = {"network": network, "weights": [str(file) for file in weights], "seed": seed}
    metadata |= {"weights_key": weights_key} if weights_key is not None else {}
    metadata |= {"masks": [str(file) for file in masks]} if masks else {}
    # This is checked before the work, because an existing dissection would not be overwritten after it.
    known: dict[str, Any] = {"iou": iou, "align": align, "precision": precision}
    known |= {
        "images": len(data),
        "order": None,
        **preprocessing.noted(),
        **_given(concepts, quantile, presence, chance),
    }
    known |= {"weights_key": None, "masks": None, **(metadata if weights else {"network": network, "seed": seed})}
    if untrained:
        folders[UNTRAINED] = Path(out) / UNTRAINED
    random = {"weights": f"random weights of seed {seed}", "weights_key": None, "masks": None}
    for name, folder in folders.items():
        for layer in chosen:
            refuse_other(folder, layer, known | (random if name == UNTRAINED else {}), known=True)
    for model in models.values():
        check_layers(model, chosen)  # before a data set is packed, which may take minutes
    with join_processes("cpu") as processes, shown_progress(progress, "dissecting") as report:
        data = with_packed_copy(data) if chance else data
        device = choose_device(device, processes.rank)
        if untrained:
            models[UNTRAINED] = build_untrained(network, classes=classes, seed=seed).to(device)
            calibrate(models[UNTRAINED], data, preprocessing, device, seed)
        found = dissect_networks(
            models,
            layers=chosen,
            concepts=data,
            settings=settings,
            preprocessing=preprocessing,
            units_axis=units_axis,
            device=device,
            budget=budget,
            metadata=metadata,
            progress=report,
        )
    if untrained:
        found[UNTRAINED] = found[UNTRAINED].stating(**random)
    for name, dissection in found.items() if processes.is_main else ():
        dissection.save(folders[name])
    return {folders[name]: dissection for name, dissection in found.items()}


def dissect_activations_file(
    file: str | Path,
    out: str | Path,
    *,
    concepts: Concepts | str | Path,
    quantile: float = DEFAULTS.quantile,
    iou: float = DEFAULTS.iou,
    presence: Presence = DEFAULTS.presence,
    chance: int = DEFAULTS.chance,
    progress: Shown = "auto",
) -> LayerDissection:
    """Dissect activation maps that another framework has written to a file, and save the results.

    Parameters
    ----------
    file
        An .npz file as `numpy.savez` writes it, with an array `features` [images, units, h, w] or [images, units] and
        optionally an array `thresholds` [units]. Nothing in the file is unpickled.
    out
        The folder for the results, which are saved in its subfolder `activations`.
    concepts, quantile, iou, presence, chance, progress
        As in `dissect`.

    Returns
    -------
    LayerDissection
        The results, with `activations` as the name of the layer.

    Raises
    ------
    InputError
        If the file cannot be used, or if `out` contains a dissection with other settings or cannot be written to;
        otherwise as in `dissect_activations`.
    """
    check_folder(Path(out))
    settings = {"activations": str(file)}
    refuse_other(
        out, "activations", {"iou": iou, **settings, **_given(concepts, quantile, presence, chance)}, known=True
    )
    arrays = read_activations(file)
    found = dissect_activations(
        arrays["features"],
        concepts=concepts,
        thresholds=arrays.get("thresholds"),
        quantile=quantile,
        iou=iou,
        presence=presence,
        chance=chance,
        settings=settings,
        progress=progress,
    )
    found.save(out)
    return found


def _given(concepts: Concepts | str | Path, quantile: float, presence: Presence, chance: int) -> Mapping[str, Any]:
    """Return the settings that every dissection stores in its summary."""
    root = expanded(concepts).absolute() if isinstance(concepts, str | Path) else concepts.root
    return {"concepts": str(root), "quantile": quantile, "presence": presence, "chance": chance}
