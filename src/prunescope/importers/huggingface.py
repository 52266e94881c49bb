"""Import data sets for semantic segmentation that Hugging Face's `datasets` can load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from prunescope.errors import InputError, nearest
from prunescope.files import expanded, read_file
from prunescope.importers.decoding import Coding, Decoder
from prunescope.importers.masks import MaskReader
from prunescope.importers.names import read_names
from prunescope.importers.writing import Found, ImportOptions, write_found
from prunescope.tasks.huggingface import VALIDATION, load_splits

_IMAGES = ("image", "images", "pixel_values", "img")
_MASKS = ("annotation", "mask", "segmentation", "segmentation_mask", "semantic_mask", "annotations", "label", "labels")
_NAMES = "id2label.json"


def import_huggingface(
    name: str | Path,
    out: str | Path,
    *,
    names: str | Path | Mapping[Any, str] | None = None,
    image: str | None = None,
    mask: str | None = None,
    splits: Sequence[str] | None = None,
    coding: Coding | None = None,
    category: str = "object",
    configuration: str | None = None,
    revision: str | None = None,
    **options: Unpack[ImportOptions],
) -> Path:
    """Write a data set in Broden's format from a data set for semantic segmentation.

    Parameters
    ----------
    name
        The name of a data set on the hub, or a folder that `datasets` can load. Its code is never executed.
    out
        The folder to write, which must be absent or empty.
    names
        The names of the masks' values; see `import_masks`. By default, they are read from id2label.json in the folder.
    image, mask
        The names of the columns with the images and the masks. By default, these are columns of images with a usual
        name, such as "image" and "annotation".
    splits
        The splits to use; by default, all. Images of splits called validation, val, dev or test get the split "val".
    coding, category
        As in `import_masks`.
    configuration, revision
        The configuration and the revision of a data set on the hub.
    **options
        Options of `prunescope.importers.writing.ImportOptions`, such as `resize`.

    Returns
    -------
    Path
        The data set's folder.

    Raises
    ------
    InputError
        If the data set cannot be loaded, if a split or column is missing or ambiguous, if there are no names, or if an
        image or a mask cannot be used.
    """
    beside = expanded(name) / _NAMES
    if names is None and not beside.is_file():
        raise InputError(f"{name}: the names of the masks' values are not known; give names (--names FILE)")
    decoder = Decoder(read_names(beside if names is None else names), coding)
    found = load_splits(str(name), configuration, revision)
    for split in splits or ():
        if split not in found:
            raise InputError(f"{name}: there is no split {split!r}; {nearest(split, found)}")
    chosen = {split: found[split] for split in splits or found}
    columns = {split: _columns(f"{name}, split {split}", rows, image, mask) for split, rows in chosen.items()}
    items = [(split, at) for split, rows in chosen.items() for at in range(len(rows))]
    encoded = {split: _encoded(rows, columns[split]) for split, rows in chosen.items()}
    reader = _Reader(encoded, columns, MaskReader(decoder, category))
    about = {"format": "huggingface", "name": str(name), "splits": list(chosen), "category": category}
    return write_found(out, items, reader, decoder.names.concepts, [category], about, **options)


@dataclass(frozen=True)
class _Reader:
    """Makes a labelled image from a row, given the name of its split and its index."""

    splits: Mapping[str, Any]
    columns: Mapping[str, tuple[str, str]]  # for each split, the columns of the images and of the masks
    read: MaskReader

    def __call__(self, item: tuple[str, int]) -> Found:
        """Read the row and decode its mask."""
        split, at = item
        row, name = self.splits[split][at], f"{split}/{at:06d}"
        image, mask = (_content(row[column], f"{name}, {column}") for column in self.columns[split])
        return self.read((name, image, mask, "val" if split in VALIDATION else "train"))


def _columns(where: str, rows: Any, image: str | None, mask: str | None) -> tuple[str, str]:
    """Return the names of the columns with the images and with the masks."""
    import datasets

    columns = [column for column, kind in rows.features.items() if isinstance(kind, datasets.Image)]
    first = _column(where, columns, image, _IMAGES, "image")
    return first, _column(where, [column for column in columns if column != first], mask, _MASKS, "mask")


def _encoded(rows: Any, columns: tuple[str, str]) -> Any:
    """Return the rows with these columns only, which are not decoded."""
    import datasets

    plain = rows.with_format(None).select_columns(list(columns))
    for column in columns:
        plain = plain.cast_column(column, datasets.Image(decode=False))
    return plain


def _content(stored: Any, where: str) -> bytes:
    if not stored or (stored.get("bytes") is None and not stored.get("path")):
        raise InputError(f"{where}: the row has no image; remove the row, or choose another column")
    if stored.get("bytes") is not None:
        return bytes(stored["bytes"])
    try:
        return read_file(stored["path"])
    except OSError as error:
        raise InputError(f"{where}: {stored['path']} cannot be read: {error.strerror}; put the file there") from error


def _column(where: str, columns: Sequence[str], wanted: str | None, usual: Sequence[str], what: str) -> str:
    if wanted is not None:
        if wanted not in columns:
            raise InputError(f"{where}: there is no column of images {wanted!r} ({what}); {nearest(wanted, columns)}")
        return wanted
    found = [name for name in usual if name in columns] or list(columns)
    if not found or (len(found) > 1 and found[0] not in usual):
        raise InputError(
            f"{where}: it is not clear which column holds the {what}s; give {what}, {nearest('', columns)}"
        )
    return found[0]
