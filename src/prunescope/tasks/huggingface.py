"""Open image data sets with Hugging Face's `datasets`: from the hub, saved by `save_to_disk`, or folders of files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunescope.errors import InputError, nearest
from prunescope.files import expanded, read_file
from prunescope.tasks.source import Source

TRAIN = ("train", "training")
VALIDATION = ("validation", "valid", "val", "dev", "test")


@dataclass(frozen=True, eq=False)
class Rows:
    """The encoded images of one split of a data set.

    Attributes
    ----------
    dataset : datasets.Dataset
        A data set that has only the column of images, which are not decoded.
    column
        The name of that column.
    origin
        The names of the data set and the split, for messages.
    roots
        The folders in which images stored as files have to lie. Relative paths are relative to the first of them.
    fingerprint
        The fingerprint that the library gives the split. For a data set on the hub it changes with the repository's
        files.
    """

    dataset: Any
    column: str
    origin: str
    roots: tuple[Path, ...]
    fingerprint: str

    def read(self, index: int) -> bytes:
        """Return the encoded image at this index, from the row itself or from the file that the row names.

        Raises
        ------
        ValueError
            If the row has no image, or names a file outside the allowed folders.
        OSError
            If the file cannot be read.
        """
        stored = self.dataset[index][self.column] or {}
        content, path = stored.get("bytes"), stored.get("path")
        if content is None:
            if path is None:
                raise ValueError("the row has no image")
            file = self.roots[0] / path
            if ".." in file.parts or not any(file.is_relative_to(root) for root in self.roots):
                raise ValueError(f"it refers to the file {path}, outside {self.roots[0]}")
            content = read_file(file)
        return bytes(content)

    def name(self, index: int) -> str:
        """Return the location of the image at this index, for messages."""
        return f"{self.origin}, image {index}"


def open_huggingface(
    name: str,
    *,
    configuration: str | None = None,
    revision: str | None = None,
    train: str | None = None,
    validation: str | None = None,
    image: str | None = None,
    label: str | None = None,
) -> tuple[Source, Source]:
    """Open a data set's training and validation images.

    Code that comes with a data set is never executed, because `datasets` refuses data sets with a loading script.

    Parameters
    ----------
    name
        The name of a data set on the hub, a folder saved by `save_to_disk`, or a folder of images or tables that
        `load_dataset` can read.
    configuration, revision
        The configuration and the revision of a data set on the hub.
    train, validation
        The names of the splits. By default the usual names are tried, such as `train`, and `validation` or `test`.
    image, label
        The names of the columns. By default these are the only column of images and the only column of classes.
        Classes are a `ClassLabel`, or distinct values, which are sorted.

    Returns
    -------
    tuple of Source
        The training images and the validation images.

    Raises
    ------
    InputError
        If `datasets` is not installed, if the data set cannot be loaded, if a split or column is missing or ambiguous,
        if an image has no class, or if the two splits have different classes.
    """
    found = load_splits(name, configuration, revision)
    splits = dict(found.with_format(None))  # the format of a saved data set may hide columns or return tensors
    roots = _roots(name)
    chosen = [
        _choose_split(name, splits, wanted, usual, field)
        for wanted, usual, field in ((train, TRAIN, "train"), (validation, VALIDATION, "validation"))
    ]
    classes: tuple[str, ...] = ()
    sources = []
    for split in chosen:
        where = f"{name}, split {split}"
        dataset = splits[split]
        images, labels = _image_column(where, dataset, image), _label_column(where, dataset, label)
        names, targets = _targets(where, dataset, labels, classes)
        if classes and names != classes:
            raise InputError(
                f"{where}: its {len(names)} classes differ from the {len(classes)} classes of split {chosen[0]}; "
                "expected the same classes in both"
            )
        classes = names
        # The fingerprint is a private attribute, but the library's documentation describes it.
        rows = Rows(_encoded(dataset, images), images, where, roots, found[split]._fingerprint)
        sources.append(Source(classes, targets, images=rows))
    return sources[0], sources[1]


def load_splits(name: str, configuration: str | None = None, revision: str | None = None) -> Any:
    """Return the splits of a data set on the hub or in a folder, a `datasets.DatasetDict`.

    Raises
    ------
    InputError
        If `datasets` is not installed, or if the data set cannot be loaded.
    """
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"the data set {name} needs the package datasets: pip install 'prunescope[datasets]'"
        ) from error
    folder = expanded(name)
    saved = folder.is_dir() and any((folder / file).is_file() for file in ("dataset_dict.json", "state.json"))
    try:
        if saved:
            found = datasets.load_from_disk(str(folder))
        else:
            found = datasets.load_dataset(str(folder) if folder.is_dir() else name, configuration, revision=revision)
    except Exception as error:  # datasets passes on errors of any type from its readers and the connection
        reason = error.__cause__ or error  # the outer error does not give the reason if a table cannot be built
        raise InputError(
            f"{name}: datasets cannot load it ({type(reason).__name__}: {reason}); expected a name on the hub, a "
            f"folder saved by save_to_disk, or a folder of images"
        ) from error
    if not isinstance(found, datasets.DatasetDict):
        raise InputError(f"{name}: is a single split; save a DatasetDict of a training and a validation split instead")
    return found


def _roots(name: str) -> tuple[Path, ...]:
    """Return the folder `name`, if there is one, and the folders in which `datasets` caches downloaded files."""
    import datasets
    from huggingface_hub import constants

    folder = expanded(name)
    caches = (Path(datasets.config.HF_DATASETS_CACHE), Path(constants.HF_HUB_CACHE))
    return tuple(expanded(path).absolute() for path in (*([folder] if folder.is_dir() else ()), *caches))


def _choose_split(name: str, splits: Mapping[str, Any], wanted: str | None, usual: Sequence[str], field: str) -> str:
    if wanted is not None and wanted not in splits:
        raise InputError(f"{name}: there is no split {wanted!r} ({field}); {nearest(wanted, splits)}")
    found = wanted or next((split for split in usual if split in splits), None)
    if found is None:
        raise InputError(
            f"{name}: there is no split called {' or '.join(usual)}; there are: {', '.join(splits)}; give the one to "
            f"use as `{field}`"
        )
    return found


def _image_column(where: str, dataset: Any, wanted: str | None) -> str:
    import datasets

    fitting = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.Image)]
    return _choose_column(where, dataset, wanted, fitting, "image", "images")


def _label_column(where: str, dataset: Any, wanted: str | None) -> str:
    import datasets

    values = [name for name, feature in dataset.features.items() if _is_class(feature)]
    labels = [name for name in values if isinstance(dataset.features[name], datasets.ClassLabel)]
    if wanted is not None:
        return _choose_column(where, dataset, wanted, values, "label", "classes (a ClassLabel, numbers or words)")
    fitting = labels or [name for name in ("label", "labels") if name in values]
    return _choose_column(where, dataset, None, fitting, "label", "classes (a ClassLabel)")


def _is_class(feature: Any) -> bool:
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return True
    return isinstance(feature, datasets.Value) and feature.dtype.removeprefix("large_").startswith(
        ("int", "uint", "string", "bool")
    )


def _choose_column(where: str, dataset: Any, wanted: str | None, fitting: list[str], field: str, what: str) -> str:
    if wanted is not None and wanted not in dataset.features:
        raise InputError(f"{where}: there is no column {wanted!r} ({field}); {nearest(wanted, dataset.features)}")
    if wanted is not None and wanted not in fitting:
        raise InputError(f"{where}: column {wanted!r} ({field}) contains {dataset.features[wanted]}, expected {what}")
    if wanted is None and len(fitting) != 1:
        columns = ", ".join(fitting or dataset.features)
        number = f"several columns contain {what}" if fitting else f"no column contains {what}; the columns are"
        raise InputError(f"{where}: {number}: {columns}; give the one to use as `{field}`")
    return wanted or fitting[0]


def _targets(where: str, dataset: Any, column: str, known: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray]:
    import datasets

    feature = dataset.features[column]
    values = dataset.select_columns([column]).with_format("arrow")[:][column].to_pylist()
    unlabelled = [index for index, value in enumerate(values) if value is None]
    if isinstance(feature, datasets.ClassLabel):
        names = tuple(feature.names)
        unlabelled = [index for index, value in enumerate(values) if value is None or not 0 <= value < len(names)]
    if unlabelled:
        raise InputError(
            f"{where}: {len(unlabelled)} of {len(values)} images have no class in column {column!r}, the first is "
            f"image {unlabelled[0]} ({values[unlabelled[0]]}); give a split with labels, for example another one for "
            "`validation`"
        )
    if isinstance(feature, datasets.ClassLabel):
        return names, np.array(values, np.int64)
    names = known or tuple(map(str, sorted(set(values))))
    indices = {name: index for index, name in enumerate(names)}
    strange = sorted({str(value) for value in values} - set(names))
    if strange:
        raise InputError(
            f"{where}: column {column!r} contains {', '.join(strange[:5])}{' ...' if len(strange) > 5 else ''}, which "
            f"the training split does not contain; expected the same classes in both"
        )
    return names, np.array([indices[str(value)] for value in values], np.int64)


def _encoded(dataset: Any, column: str) -> Any:
    import datasets

    return dataset.select_columns([column]).cast_column(column, datasets.Image(decode=False))
