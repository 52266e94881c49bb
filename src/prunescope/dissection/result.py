"""The results of a dissection, in memory and on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from prunescope.arrays import Array
from prunescope.concepts.protocol import Concepts, primary_categories
from prunescope.dissection.basis import BASES
from prunescope.dissection.chance import Chance, best_concepts, best_numbers, chance_counts, shrinkage, unit_columns
from prunescope.dissection.examples import EXAMPLES_FILE, Examples
from prunescope.dissection.layer_files import layer_folder, refuse_other
from prunescope.dissection.layer_pass import LayerCounts
from prunescope.dissection.netdissect import to_netdissect
from prunescope.dissection.reach import out_of_reach
from prunescope.dissection.resampling import block_weights, resample_units
from prunescope.dissection.scores import (
    Score,
    block_pairs,
    pair_scores,
    resampled_columns,
    score_column,
    summarise,
    tally_arrays,
    unit_scores,
)
from prunescope.dissection.tally import Counts, Tally
from prunescope.errors import InputError, nearest
from prunescope.files import inside, write_arrays, write_json, write_table
from prunescope.notebook import as_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn


@dataclass(frozen=True)
class LayerDissection:
    """The concepts that the units of one layer detect.

    Attributes
    ----------
    layer
        The name of the layer in `named_modules()`; empty for an imported table.
    units
        A row per unit: unit, label, category, iou, threshold, dead, number, precision, recall, `CATEGORY-label`,
        `CATEGORY-iou`, shrinkage, iou_mirrored, p and q if labels were permuted, iou_low, iou_high and concept_set.
        `label`, `category` and `number` (in label.csv) are those of the unit's concept. `unit` is the index of the
        unit in the layer or, if filters were removed, in the layer of the dense network. `iou_low` and `iou_high` are
        the 95 % interval of the concept's IoU over resampled images, and `concept_set` lists the numbers of the
        concepts that are the unit's best in at least 5 % of the resamples, separated by spaces. An imported table has
        no `threshold`, `dead` and `number`, and no columns that depend on counts.
    pairs
        A row for each pair of unit and concept that have pixels in common: unit, label, number, category, truth,
        activation, intersect, iou.
    summary
        The numbers of units, interpretable units and detected concepts (in total and by category), and the settings.
        Concepts are distinguished by their numbers or, in an imported table, by category and name.
    tally
        The pixel counts, named as in `tally_arrays`, with a row for each row of `units`; None for an imported table.
    examples
        The images with the highest activations, with a row for each row of `units`; None for an imported table.
    """

    layer: str
    units: pd.DataFrame
    pairs: pd.DataFrame
    summary: dict[str, Any]
    tally: Mapping[str, Array] | None = None
    examples: Examples | None = None

    def __repr__(self) -> str:
        return f"LayerDissection({self._counts()})"

    def _repr_html_(self) -> str:
        columns = ["unit", "label", "category", "iou"]
        return as_html(self._counts(), self.units[columns].sort_values("iou", ascending=False, kind="stable").head(10))

    def _counts(self) -> str:
        counts = self.summary
        name = f"{self.layer}: " if self.layer else ""
        return (
            f"{name}{counts['units']:,} units, {counts['interpretable']:,} interpretable, "
            f"{counts['concepts']:,} concepts"
        )

    @classmethod
    def from_counts(
        cls,
        layer: str,
        counts: LayerCounts,
        truth: Array,
        permuted_truth: Array,
        present: Array | None,
        concepts: Concepts,
        left_out: Array,
        score: Score,
        iou: float,
        settings: Mapping[str, Any],
    ) -> Self:
        """Compute the scores of the units from pixel counts.

        Parameters
        ----------
        layer
            The name of the layer.
        counts
            What was accumulated for this layer over all images.
        truth
            int64 [blocks, concepts]: the number of pixels of each concept.
        permuted_truth
            int64 [permutations, concepts]: the number of pixels of each concept under each permutation of the labels.
        present
            int64 [categories]: the number of images with a label of each category; None if the share of positions in
            the masks is not the quantile, so that it is unknown which concepts are out of reach.
        concepts
            The data set.
        left_out
            int64 [permutations]: the number of images without a donor.
        score
            The score by which a unit's concept is chosen.
        iou
            The bound above which a unit is interpretable.
        settings
            The settings to store in the summary.
        """
        masks = counts.masks
        tally = Tally(truth, masks.intersect, masks.activation, masks.area)
        total = tally.total()
        pairs = pair_scores(total, concepts.labels, concepts.categories, score)
        primary = primary_categories(concepts.labels, concepts.categories)
        mirrored = Counts(total.truth, masks.mirrored_intersect, masks.mirrored_activation, total.area)
        permuted = (
            Counts(*parts, total.area)
            for parts in zip(permuted_truth, masks.permuted_intersect, masks.permuted_activation, strict=True)
        )
        chance = Chance(
            best_concepts(mirrored, primary, score),
            tuple(best_concepts(one, primary, score) for one in permuted),
            left_out,
        )
        thresholds, dead = counts.thresholds
        known = pd.DataFrame({"unit": np.arange(len(thresholds)), "threshold": thresholds, "dead": dead})
        units = unit_scores(pairs, known, concepts.categories)
        units = units.assign(shrinkage=shrinkage(tally, primary, score))
        units = units.assign(**unit_columns(units[score_column(units)].to_numpy(), chance))
        summary = chance_counts(chance, iou)
        summary |= summarise(units, concepts.categories, iou, {"layer": layer, **settings})
        if present is not None and "score" not in pairs and settings["presence"] == "image":
            image = concepts.label_size[0] * concepts.label_size[1]
            without = (len(concepts) - present[primary]) * image
            summary["out_of_reach"] = out_of_reach(
                concepts.labels["name"].tolist(), total.truth, without, len(concepts) * image, settings["quantile"], iou
            )
        arrays = tally_arrays(tally, concepts.labels, pairs)
        if chance.permuted:
            arrays["chance_iou"] = np.stack([one.score for one in chance.permuted])
            arrays["chance_concept"] = best_numbers(chance.permuted, arrays["numbers"])
        if "score" not in pairs:
            rows = {unit: unit for unit in range(len(units))}
            found = resample_units(block_pairs(arrays, rows, primary), block_weights(len(truth)), iou)
            units = units.assign(**resampled_columns(found, arrays["numbers"]))
        return cls(layer, units, pairs, summary, arrays, counts.examples)

    def numbered(self, numbers: Array) -> LayerDissection:
        """Renumber the units, as in the dense network if filters were removed.

        Parameters
        ----------
        numbers
            int64 [units]: the new number of each row of `units`, as `prunescope.pruning.unit_numbers` returns them.

        Returns
        -------
        LayerDissection
            The renumbered dissection; its rows, counts and examples are otherwise the same.

        Raises
        ------
        InputError
            If the number of elements in `numbers` differs from the number of units.
        """
        if len(numbers) != len(self.units):
            raise InputError(f"layer {self.layer!r} has {len(self.units)} units, but {len(numbers)} numbers are given")
        new = pd.Series(np.asarray(numbers, np.int64), index=self.units["unit"].to_numpy())
        tally = self.tally
        if tally is not None:
            pairs = tally["block_pairs"]
            tally = {**tally, "block_pairs": np.stack([new[pairs[:, 0]].to_numpy(), pairs[:, 1]], axis=1)}
        return replace(
            self,
            units=self.units.assign(unit=new[self.units["unit"]].to_numpy()),
            pairs=self.pairs.assign(unit=new[self.pairs["unit"]].to_numpy()),
            tally=tally,
        )

    def figure(self) -> Figure:
        """Draw the interpretable units by category and the distribution of the units' IoUs; see `Dissection.figure`."""
        return Dissection({self.layer: self}).figure()

    def unit_images(self, unit: int, concepts: Concepts | str | Path | None = None) -> Array:
        """Return the images that excite a unit most, with the unit's mask outlined.

        Parameters
        ----------
        unit
            The number of the unit, as in `units`.
        concepts
            The data set that was dissected. By default, it is opened in the folder that the summary states; data in
            memory must be given.

        Returns
        -------
        Array
            uint8 [n, ih, iw, 3], in descending order of activation; n is 4, or less if there are fewer images. The
            unit's mask is where its map, upsampled to the image, exceeds its threshold.

        Raises
        ------
        InputError
            If there is no such unit, if the examples are not stored, or if the data set cannot be opened or has another
            number of images than was dissected.
        """
        return self._example_images(unit, concepts, large=False)

    def unit_figure(self, unit: int, concepts: Concepts | str | Path | None = None) -> Figure:
        """Draw the images that excite a unit most, with the unit's mask outlined and the highest activation below.

        Parameters
        ----------
        unit, concepts
            As in `unit_images`.

        Returns
        -------
        matplotlib.figure.Figure
            The figure. A notebook shows it if it is the last value of a cell; `savefig` writes it to a file.

        Raises
        ------
        InputError
            As in `unit_images`.
        """
        from prunescope.dissection.figures import draw_images
        from prunescope.dissection.unit_views import row_of

        images = self._example_images(unit, concepts, large=True)
        row = row_of(self.units, unit)
        assert self.examples is not None
        label, category, iou = (self.units[name].iloc[row] for name in ("label", "category", "iou"))
        concept = "no concept" if pd.isna(label) else f"{label} ({category}), IoU {iou:.3f}"
        captions = [
            f"image {image}: {peak:.3g}"
            for image, peak in zip(self.examples.images[row], self.examples.peaks[row], strict=True)
        ]
        return draw_images(images, captions, f"{self.layer}, unit {unit}: {concept}")

    def unit_maps(
        self,
        unit: int,
        images: Sequence[int] | Array,
        *,
        model: nn.Module | None = None,
        concepts: Concepts | str | Path | None = None,
        device: str = "auto",
    ) -> Array:
        """Return the activation maps of a unit for some images.

        Parameters
        ----------
        unit
            The number of the unit, as in `units`.
        images
            The indices of images in the data set, or images as an array, uint8 [n, ih, iw, 3] in RGB.
        model
            The network, which is run with the preprocessing of the dissection. Without it, the images must be among the
            stored examples of the unit, `examples.images`.
        concepts
            The data set that was dissected, as in `unit_images`. It is used only with `model` and indices.
        device
            The device to run on; `auto` uses a GPU if there is one.

        Returns
        -------
        Array
            float32 [n, h, w].

        Raises
        ------
        InputError
            If there is no such unit or image, if a map is neither stored nor can be computed, or if the network does
            not fit the dissection.
        """
        from prunescope.dissection.unit_views import computed_maps, dissected_images, row_of, stored_maps

        row = row_of(self.units, unit)
        given = np.asarray(images)
        if given.ndim == 1 and given.dtype.kind in "iu" and len(given):
            if model is None:
                return stored_maps(self.examples, row, unit, given.tolist())
            data = dissected_images(self.summary["settings"], concepts)
            if given.min() < 0 or given.max() >= len(data):
                raise InputError(
                    f"images: {data.root} has {len(data)} images, numbered from 0; given: {given.tolist()}"
                )
            given = np.stack([data.image(image) for image in given.tolist()])
        if given.dtype != np.uint8 or given.ndim != 4 or given.shape[3] != 3 or 0 in given.shape:
            raise InputError(
                f"images is an array {given.dtype} {list(given.shape)}, expected the indices of images, or images as "
                "uint8 [n, height, width, 3]"
            )
        if model is None:
            raise InputError("images are given as an array; give the network as `model` to run on them")
        return computed_maps(model, self.layer, row, given, self.summary["settings"], device)

    def _example_images(self, unit: int, concepts: Concepts | str | Path | None, *, large: bool) -> Array:
        from prunescope.dissection.unit_views import dissected_images, example_images, row_of

        row = row_of(self.units, unit)
        if self.examples is None:
            raise InputError(
                f"layer {self.layer!r}: which images excite a unit most is not stored in an imported table, or where "
                "examples.safetensors was removed; dissect again"
            )
        settings = self.summary["settings"]
        data = dissected_images(settings, concepts)
        threshold = float(self.units["threshold"].iloc[row])
        return example_images(self.examples, row, threshold, settings, data, large=large)

    def save(self, directory: str | Path, *, replace: bool = False) -> Path:
        """Write the layer's files to `directory/LAYER`.

        The file summary.json is written last, so that its presence shows that all files are complete. The files of the
        tally and the examples also contain an array `units`, int64 [units], with the unit of each of their rows.

        Parameters
        ----------
        directory
            The directory to write to. If it already contains a dissection of this layer with the same settings, the
            files are overwritten.
        replace
            Whether to overwrite a dissection with other settings too.

        Returns
        -------
        Path
            The folder `directory/LAYER`, or `directory` itself for an imported table.

        Raises
        ------
        InputError
            If the directory contains a dissection with other settings (the message shows the differences), or if the
            layer's name cannot be the name of a folder.
        """
        if not replace:
            refuse_other(directory, self.layer, self.summary.get("settings", {}))
        units = {"units": self.units["unit"].to_numpy(np.int64)}
        folder = layer_folder(directory, self.layer)
        (folder / "summary.json").unlink(missing_ok=True)
        write_table(folder / "units.parquet", self.units)
        write_table(folder / "units.csv", self.units)
        write_table(folder / "pairs.parquet", self.pairs)
        write_table(folder / "netdissect.csv", to_netdissect(self.units, self.pairs, list(self.summary["by_category"])))
        if self.tally is not None:
            write_arrays(folder / "tally.safetensors", {**self.tally, **units})
        if self.examples is not None:
            write_arrays(folder / EXAMPLES_FILE, {**vars(self.examples), **units})
        write_json(folder / "summary.json", self.summary)
        return folder


@dataclass(frozen=True)
class Dissection(Mapping[str, LayerDissection]):
    """The concepts that the units of a network's layers detect.

    It is a mapping from layer names to `LayerDissection` objects.

    Attributes
    ----------
    layers
        The results of each layer.
    bases
        The results for the directions of other bases, by the names of these bases, such as `rotate-0`.
    """

    layers: dict[str, LayerDissection]
    bases: Mapping[str, Dissection] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Dissection({'; '.join(layer._counts() for layer in self.values())})"

    def _repr_html_(self) -> str:
        return as_html("Dissection", self.summary)

    def __getitem__(self, layer: str) -> LayerDissection:
        return self.layers[layer]

    def __iter__(self) -> Any:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def stating(self, **settings: Any) -> Dissection:
        """Return the same dissection with other settings in its summaries; those that are None are left out."""
        parts = {}
        for layer, part in self.items():
            stated = part.summary["settings"] | settings
            stated = {name: value for name, value in stated.items() if name not in settings or value is not None}
            parts[layer] = replace(part, summary=part.summary | {"settings": stated})
        return Dissection(parts, {name: one.stating(**settings) for name, one in self.bases.items()})

    @property
    def units(self) -> pd.DataFrame:
        """The units of all layers, with `layer` as the first column."""
        return self._joined("units")

    @property
    def pairs(self) -> pd.DataFrame:
        """The pairs of unit and concept of all layers, with `layer` as the first column."""
        return self._joined("pairs")

    @property
    def summary(self) -> pd.DataFrame:
        """Counts for each layer.

        The columns are layer, units, interpretable, concepts and dead; if known, mirrored_interpretable,
        chance_interpretable and chance_concepts; and for each category its number of detected concepts.
        """
        rows = []
        for name, layer in self.items():
            counts = {key: layer.summary[key] for key in ("units", "interpretable", "concepts", "dead")}
            optional = ("mirrored_interpretable", "chance_interpretable", "chance_concepts")
            counts |= {key: layer.summary[key] for key in optional if key in layer.summary}
            rows.append({"layer": name} | counts | layer.summary["by_category"])
        return pd.DataFrame(rows)

    def figure(self) -> Figure:
        """Draw a row for each layer: its interpretable units by category, and the distribution of the units' IoUs.

        Returns
        -------
        matplotlib.figure.Figure
            The figure. A notebook shows it if it is the last value of a cell; `savefig` writes it to a file.
        """
        from prunescope.dissection.figures import draw_layers

        return draw_layers({name: (layer.units, layer.summary) for name, layer in self.items()})

    def numbered(self, numbers: Mapping[str, Array]) -> Dissection:
        """Renumber the units of every layer; see `LayerDissection.numbered`.

        The directions of other bases keep their numbers.

        Raises
        ------
        InputError
            If a layer has no numbers, or if the numbers of a layer are more or fewer than its units.
        """
        missing = [name for name in self if name not in numbers]
        if missing:
            raise InputError(f"no unit numbers are given for layer {missing[0]!r}; {nearest(missing[0], numbers)}")
        return Dissection({name: layer.numbered(numbers[name]) for name, layer in self.items()}, self.bases)

    def save(self, directory: str | Path, *, replace: bool = False) -> Path:
        """Write the files of each layer to `directory/LAYER`; see `LayerDissection.save`.

        The results in another basis are written to `directory/basis/NAME/LAYER`, before those of the units.

        Raises
        ------
        InputError
            If the directory contains a dissection of one of the layers with other settings; nothing is written then.
        """
        for layer in self.values() if not replace else ():
            refuse_other(directory, layer.layer, layer.summary.get("settings", {}))
        for name, one in self.bases.items():
            one.save(inside(Path(directory) / BASES, name, "the basis"), replace=replace)
        for layer in self.values():
            layer.save(directory, replace=replace)
        return Path(directory)

    def _joined(self, table: str) -> pd.DataFrame:
        parts = [getattr(part, table).assign(layer=name) for name, part in self.items()]
        joined: pd.DataFrame = pd.concat(parts, ignore_index=True)
        return joined[["layer", *joined.columns.drop("layer")]]
