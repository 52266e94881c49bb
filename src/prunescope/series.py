"""Series of networks that exist already, and sweeps of one trained network; what a notebook calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import pandas as pd
from torch import nn

from prunescope.api import write_outcome
from prunescope.devices import choose_device
from prunescope.dissection.storage import Budget
from prunescope.errors import InputError, refuse_text
from prunescope.evidence import curves
from prunescope.networks import default_layers, load_weights
from prunescope.notebook import as_html
from prunescope.store.layout import StudyDirectory
from prunescope.store.reading import read_series, validate_series
from prunescope.store.series import Checkpoint, SeriesRecipe
from prunescope.store.stored import stored_units
from prunescope.study.checkpoints import Build, build_checkpoint
from prunescope.study.reporting import Report, resampling
from prunescope.study.series import run_series
from prunescope.study.watching import shown_report

Network: TypeAlias = str | nn.Module
Given: TypeAlias = str | Path | nn.Module | Mapping[str, Any] | Checkpoint


class Series:
    """Networks that exist already, such as pruned checkpoints, measured and dissected as the levels of a study.

    Nothing is trained. The results are laid out like those of a study, so that the evidence, the figures and the report
    are the same.

    Parameters
    ----------
    network
        The network, by name or as a module. A checkpoint may have its own.
    checkpoints
        The checkpoints of one trial in order: files of weights, networks, `Checkpoint` objects or mappings with their
        fields, such as `weights`, `remaining` or `units`, or `model` for a network in memory. The first one is level 0,
        which the others are compared with.
    out
        The directory of the series. Checkpoints that are complete there are not run again, and further ones can be
        added at the end.
    concepts
        Labelled images in Broden's format: a folder.
    layers
        The names of the layers to dissect; by default, those that network dissection was published on.
    data
        Images to measure the accuracy on: a folder of `val/CLASS/*`, or another task as in a recipe. Without it,
        accuracy is left out.
    at
        The positions of the checkpoints on the horizontal axis of the figures, as numbers or labels, together with
        `axis`. By default, the axis shows the weights remaining, which are counted from the weights.
    axis
        The name of that axis, such as "Bits per weight".
    classes
        The number of classes of the network, if it is not its default.
    name
        The name of the series, for figures and pages.
    device
        The device to run on; `auto` uses a GPU if there is one.
    budget
        The memory and disk space for activation maps. Checkpoints share a pass over the images as far as memory allows.
    settings
        Further fields of a series: `dissection` (a mapping of settings such as `quantile`), `mean`, `std`, `pruning`,
        `match`, and `untrained` (also dissect the network with random weights; it must be given by its name).

    Raises
    ------
    InputError
        If an argument is not valid. The message names every problem.

    Examples
    --------
    ::

        series = prunescope.Series("torchvision:resnet18", ["dense.pt", "half.pt", "fifth.pt"], "out/series",
                                   concepts="broden1_224")
        series.run()
    """

    def __init__(
        self,
        network: Network,
        checkpoints: Sequence[Given],
        out: str | Path,
        *,
        concepts: str | Path,
        layers: Sequence[str] | None = None,
        data: str | Path | Mapping[str, Any] | None = None,
        at: Sequence[float | str] | None = None,
        axis: str | None = None,
        classes: int | None = None,
        name: str = "series",
        device: str = "auto",
        budget: Budget = Budget(),  # noqa: B008 - frozen
        **settings: Any,
    ) -> None:
        refuse_text(checkpoints, "checkpoints")
        if layers is not None:
            refuse_text(layers, "layers")
        if at is not None and len(at) != len(checkpoints):
            raise InputError(f"at has {len(at)} positions for {len(checkpoints)} checkpoints; give one for each")
        models = {level: model for level, one in enumerate(checkpoints) if (model := _model_of(one)) is not None}
        if settings.get("untrained") and (isinstance(network, nn.Module) or 0 in models):
            raise InputError(
                "untrained: the random weights of a network that is given as a module are unknown; give the network by "
                "its name, such as path/to/file.py:function"
            )
        described = [_described(one) for one in checkpoints]
        for one, position in zip(described, at or (), strict=False):
            one["at"] = position
        if layers is None:
            if isinstance(network, nn.Module):
                raise InputError("layers: a network given as a module has no default layers; name those to dissect")
            layers = default_layers(network)
        dissection = {"concepts": str(concepts), "layers": list(layers)} | dict(settings.pop("dissection", {}))
        content = {
            "name": name,
            "network": network if isinstance(network, str) else _class_of(network),
            "classes": classes,
            "trials": [described],
            "axis": axis,
            "data": _data(data),
            "dissection": dissection,
            **settings,
        }
        self._prepare(validate_series(content), out, device, budget, _builder(network, models))

    @classmethod
    def read(
        cls,
        file: str | Path,
        out: str | Path,
        *,
        device: str = "auto",
        budget: Budget = Budget(),  # noqa: B008 - frozen
    ) -> Self:
        """Prepare the series that a YAML file describes, which may have several trials and networks.

        Parameters
        ----------
        file
            The path of the file; see the documentation of series for its fields.
        out, device, budget
            As for the class.

        Raises
        ------
        InputError
            If the file cannot be read or is not valid. The message names every problem with its line and field.
        """
        series = cls.__new__(cls)
        series._prepare(read_series(file), out, device, budget, build_checkpoint)
        return series

    def _prepare(self, recipe: SeriesRecipe, out: str | Path, device: str, budget: Budget, build: Build) -> None:
        self.recipe, self.out, self.device = recipe, Path(out), choose_device(device)
        self._budget, self._build = budget, build

    def __repr__(self) -> str:
        rows = self._checkpoints()
        done = sum(row[-1] == "yes" for row in rows)
        return f"Series({self.recipe.name!r}, out={str(self.out)!r}: {done:,} of {len(rows):,} checkpoints dissected)"

    def _repr_html_(self) -> str:
        columns = ["trial", "level", "checkpoint", "dissected"]
        return as_html(repr(self), pd.DataFrame(self._checkpoints(), columns=columns))

    def _checkpoints(self) -> list[tuple[int, int, str, str]]:
        """List the trial, the level and a name of each checkpoint, and whether it is dissected."""
        directory, layers = StudyDirectory(self.out), self.recipe.dissection.layers
        return [
            (
                trial,
                level,
                one.weights or one.network or self.recipe.network,
                "yes" if directory.is_dissected(trial, level, layers) else "no",
            )
            for trial, checkpoints in enumerate(self.recipe.trials)
            for level, one in enumerate(checkpoints)
        ]

    @property
    def levels(self) -> int:
        """The highest level of any trial."""
        return self.recipe.levels

    def run(self, report: Report | Literal["auto", False] = "auto") -> pd.DataFrame:
        """Dissect the checkpoints that are not complete, then write the evidence, the figures and the report.

        Parameters
        ----------
        report
            A function that is called from time to time with an `Event`, which describes the progress. By default, a
            bar and a line for each finished checkpoint are shown on standard error if it is a terminal or belongs to a
            notebook. False turns this off.

        Returns
        -------
        pd.DataFrame
            The evidence, with a row per trial, level and layer; see `curves`.
        """
        with shown_report(report, self) as told:
            run_series(self.recipe, self.out, device=self.device, budget=self._budget, build=self._build, report=told)
            write_outcome(self.out, progress=resampling(told))
        return self.evidence()

    def evidence(self) -> pd.DataFrame:
        """Return the evidence of the finished checkpoints, with a row per trial, level and layer; see `curves`."""
        return curves(self.out)

    def units(self, trial: int, level: int, layer: str | None = None) -> pd.DataFrame:
        """Return the table of units of one layer of one checkpoint, with a row per unit.

        Parameters
        ----------
        trial, level
            The trial and the index of the checkpoint, counted from 0.
        layer
            The name of the layer; by default, the first one of the series.

        Raises
        ------
        InputError
            If the checkpoint is not dissected, or if the series does not dissect this layer.
        """
        return stored_units(self.out, self.recipe.dissection.layers, trial, level, layer)


def sweep(
    network: Network,
    *,
    concepts: str | Path,
    out: str | Path,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    masks: str | Path | None = None,
    remaining: Sequence[float] = (1.0, 0.8, 0.6, 0.4, 0.2),
    layers: Sequence[str] | None = None,
    data: str | Path | Mapping[str, Any] | None = None,
    criterion: str = "magnitude",
    scope: str = "global",
    exclude: Sequence[str] = (),
    seed: int = 0,
    recalibrate: bool = True,
    name: str = "sweep",
    **options: Any,
) -> Series:
    """Prepare a sweep: prune one trained network to several levels without training, and dissect all of them.

    Parameters
    ----------
    network
        The trained network, by name (with published weights, or with `weights`) or as a module.
    concepts, out, layers, data, name
        As for `Series`.
    weights, weights_key, masks
        A file of weights, the key of the weights in it and a file of masks to apply to them, as in `build_network`.
    remaining
        The weights remaining of each level, above 0 and up to 1. The first is level 0.
    criterion, scope, exclude, seed
        How the network is pruned; see `prunescope.prune`. With the scope `filters`, whole filters are removed.
    recalibrate
        Whether the statistics of batch normalisation layers are estimated again after pruning, on the labelled images.
    options
        Further arguments of `Series`, such as `untrained`.

    Returns
    -------
    Series
        The series, whose `run` does the work.

    Raises
    ------
    InputError
        If an argument is not valid.

    Examples
    --------
    ::

        prunescope.sweep("torchvision:resnet50@DEFAULT", concepts="broden1_224", out="out/sweep").run()
    """
    refuse_text(exclude, "exclude")
    refuse_text(remaining, "remaining")
    for share in remaining:
        if not isinstance(share, Real) or not 0 < share <= 1:
            raise InputError(f"remaining has {share!r}; expected shares of the weights above 0 and up to 1, like 0.5")
    file = None if weights is None else str(weights)
    given = {"weights": file, "key": weights_key, "masks": None if masks is None else str(masks)}
    checkpoints = [{**given, "prune_to": float(share)} for share in remaining]
    pruning = {
        "criterion": criterion, "scope": scope, "exclude": list(exclude), "seed": seed, "recalibrate": recalibrate,
    }  # fmt: skip
    return Series(
        network, checkpoints, out, concepts=concepts, layers=layers, data=data, name=name, pruning=pruning, **options
    )


def _model_of(given: Given) -> nn.Module | None:
    """Return the network of a checkpoint that is in memory."""
    model = given.get("model") if isinstance(given, Mapping) else given
    return model if isinstance(model, nn.Module) else None


def _described(given: Given) -> dict[str, Any]:
    model = _model_of(given)
    if model is not None:
        others = given if isinstance(given, Mapping) else {}
        return {"network": _class_of(model)} | _described({name: others[name] for name in others if name != "model"})
    if isinstance(given, Checkpoint):
        return given.model_dump(exclude_none=True)
    if isinstance(given, Mapping):
        return {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    return {"weights": str(given)}


def _class_of(model: nn.Module) -> str:
    return f"{type(model).__module__}.{type(model).__qualname__}"


def _data(given: str | Path | Mapping[str, Any] | None) -> dict[str, Any] | None:
    if given is None:
        return None
    return dict(given) if isinstance(given, Mapping) and "task" in given else {"task": _plain(given)}


def _plain(given: str | Path | Mapping[str, Any]) -> Any:
    return dict(given) if isinstance(given, Mapping) else str(given)


def _builder(network: Network, models: Mapping[int, nn.Module]) -> Build:
    if not models and isinstance(network, str):
        return build_checkpoint
    return partial(_build, network=network, models=models)


def _build(
    recipe: SeriesRecipe, trial: int, level: int, *, network: Network, models: Mapping[int, nn.Module]
) -> nn.Module:
    """Return a copy of a network in memory with a checkpoint's weights, or build the network by its name."""
    checkpoint = recipe.trials[trial][level]
    if level not in models and (isinstance(network, str) or checkpoint.network is not None):
        return build_checkpoint(recipe, trial, level)
    model = deepcopy(models.get(level, network))
    assert isinstance(model, nn.Module)
    if checkpoint.weights is not None:
        load_weights(model, checkpoint.weights, key=checkpoint.key, masks=checkpoint.masks)
    return model
