"""Average the numbers of a study over its trials."""

from __future__ import annotations

import numpy as np
import pandas as pd

from prunescope.arrays import Array
from prunescope.evidence.tables import ENDS, POSITIONS


def t_interval(values: Array, alpha: float = 0.05) -> tuple[float, float]:
    """Return the ends of a t interval of the mean, which covers it with probability 1 - `alpha`.

    They are NaN if there are fewer than two values, or if a value is NaN.
    """
    from scipy.special import stdtrit

    if len(values) < 2 or np.isnan(values).any():
        return float("nan"), float("nan")
    reach = stdtrit(len(values) - 1, 1 - alpha / 2) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean() - reach), float(values.mean() + reach)


def over_trials(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of every number of a study over its trials, with its 95 % t interval.

    Parameters
    ----------
    table : DataFrame
        The table that `curves` returns, or evidence.csv.

    Returns
    -------
    DataFrame
        A row per level and layer with the columns level, layer and trials (their number), and for each number NAME of
        the table the columns NAME (the mean over the trials in which it is known), NAME_low and NAME_high. The interval
        is missing if fewer than two trials have the number.
    """
    names = value_columns(table)
    rows = []
    for (level, layer), group in table.groupby(["level", "layer"], sort=False):
        row: dict[str, object] = {"level": level, "layer": layer, "trials": len(group)}
        for name in names:
            known = group[name].dropna().to_numpy(np.float64)
            row[name] = known.mean() if len(known) else float("nan")
            row |= dict(zip((f"{name}{end}" for end in ENDS), t_interval(known), strict=True))
        rows.append(row)
    return pd.DataFrame(rows).sort_values("level", kind="stable", ignore_index=True)


def value_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns of the evidence that hold numbers, without the keys, positions and ends of intervals."""
    apart = ("trial", "level", "layer", *POSITIONS)
    return [name for name in table.columns if name not in apart and not str(name).endswith(ENDS)]
