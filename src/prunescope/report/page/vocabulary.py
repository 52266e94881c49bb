"""Give every concept of a page a number and a name of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

NONE = -1


@dataclass(frozen=True)
class Vocabulary:
    """The concepts that a page can name.

    Attributes
    ----------
    table : DataFrame
        A row per concept with the columns number (-1 where it is unknown), name, category and shown. `shown` is the
        name or, where other concepts have the same one, the name with the category, as in ``window (part)``, and if
        need be with the number.
    """

    table: pd.DataFrame

    def places(self, concepts: pd.DataFrame) -> NDArray[np.int32]:
        """Return the row of the vocabulary for each row of a table with the columns label, category and number.

        It is -1 where a row names no concept. The number may be missing; the label and the category decide then.
        """
        by_name = pd.MultiIndex.from_frame(self.table[["name", "category"]])
        first = ~by_name.duplicated()
        wanted = pd.MultiIndex.from_arrays([concepts["label"].astype(object), concepts["category"].astype(object)])
        places = np.flatnonzero(first)[by_name[first].get_indexer(wanted)]
        places = np.where(by_name[first].get_indexer(wanted) < 0, NONE, places)
        if "number" in concepts:
            known = concepts["number"].notna().to_numpy()
            found = self.of_numbers(concepts["number"].fillna(NONE).to_numpy(np.int64))
            places = np.where(known & (found != NONE), found, places)
        return np.where(concepts["label"].isna(), NONE, places).astype(np.int32)

    def of_numbers(self, numbers: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the row of the vocabulary for each concept number; -1 where there is none."""
        known = self.table["number"].to_numpy()
        rows = np.flatnonzero(known != NONE)
        found = pd.Index(known[rows]).get_indexer(pd.Index(numbers))
        return np.where(found < 0, NONE, rows[found] if len(rows) else NONE).astype(np.int32)


def vocabulary(labels: pd.DataFrame | None, tables: Iterable[pd.DataFrame]) -> Vocabulary:
    """Return the vocabulary of a data set and of the concepts that tables of units name beyond it.

    Parameters
    ----------
    labels : DataFrame or None
        All concepts of the data set, indexed by number, with the columns name and category.
    tables : iterable of DataFrame
        Tables with the columns label and category, and number if it is known.
    """
    parts = []
    if labels is not None:
        parts.append(pd.DataFrame({"number": labels.index, "name": labels["name"], "category": labels["category"]}))
    for table in tables:
        named = table[table["label"].notna()]
        numbers = named["number"].fillna(NONE) if "number" in named else NONE
        part = pd.DataFrame({"number": numbers, "name": named["label"], "category": named["category"]})
        parts.append(part.drop_duplicates())
    joined = pd.concat([pd.DataFrame(columns=["number", "name", "category"]), *parts], ignore_index=True)
    joined = joined.astype({"number": np.int64, "name": str, "category": str})
    joined = pd.concat([joined[joined["number"] != NONE].drop_duplicates("number"), joined[joined["number"] == NONE]])
    named_before = joined.duplicated(["name", "category"]) & (joined["number"] == NONE)
    joined = joined[~named_before].drop_duplicates().reset_index(drop=True)
    by_name, by_both = joined["name"].value_counts(), joined.value_counts(["name", "category"])
    rows = zip(joined["number"], joined["name"], joined["category"], strict=True)
    shown = [_shown(number, name, category, by_name, by_both) for number, name, category in rows]
    return Vocabulary(joined.assign(shown=pd.Series(shown, index=joined.index, dtype=object)))


def _shown(number: int, name: str, category: str, by_name: Any, by_both: Any) -> str:
    if by_name[name] < 2:
        return name
    alone = by_both[name, category] < 2 or number == NONE
    return f"{name} ({category})" if alone else f"{name} ({category}, {number})"
