"""Accuracy by class, and the images whose prediction pruning changes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from prunescope.arrays import Array
from prunescope.dissection.resampling import RESAMPLES
from prunescope.errors import InputError
from prunescope.store.layout import StudyDirectory
from prunescope.store.stored import StoredStudy

IMAGE = ["image", "class"]
LEVEL = ["trial", "level"]
PART = 20  # resamples that are counted at once, which take 4 MB for 50,000 images


def class_accuracy(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracy of each network on each class, with its uncertainty.

    Pruning often costs some classes much more than the mean accuracy shows (Hooker et al. 2019).

    Parameters
    ----------
    predictions : DataFrame
        The columns ``trial``, ``level``, ``class`` and ``predicted``, with a row per network and validation image, such
        as `study_predictions` returns.

    Returns
    -------
    DataFrame
        A row per trial, level and class: ``images``, the number of validation images of the class; ``accuracy``, the
        share of them that is classified correctly; and ``accuracy_low`` and ``accuracy_high``, its 95 % Wilson score
        interval. The interval is over images, so that it does not contain the variation between trials.
    """
    from statsmodels.stats.proportion import proportion_confint

    right = predictions["predicted"] == predictions["class"]
    groups = right.groupby([predictions[name] for name in (*LEVEL, "class")])
    table = groups.agg(["size", "sum"]).reset_index()
    low, high = proportion_confint(table["sum"].to_numpy(), table["size"].to_numpy(), alpha=0.05, method="wilson")
    columns = {"images": table["size"], "accuracy": table["sum"] / table["size"]}
    return table[[*LEVEL, "class"]].assign(**columns, accuracy_low=low, accuracy_high=high)


def changed_images(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the pruning-identified exemplars: the images that pruned networks classify differently from dense ones.

    An image is one at a level if its modal prediction, the class that most trials predict, differs from the modal
    prediction of the dense networks (Hooker et al. 2019, "What Do Compressed Deep Neural Networks Forget?",
    arXiv:1911.05248). If several classes are predicted equally often, by the networks of the level or by the dense
    ones, there is no modal prediction, and the image does not count as changed.

    Parameters
    ----------
    predictions : DataFrame
        The columns ``trial``, ``level``, ``image``, ``class`` and ``predicted``, with a row per network and validation
        image, such as `study_predictions` returns. Level 0 is the dense network. Each level is compared over the
        trials that have predictions both at that level and at level 0.

    Returns
    -------
    DataFrame
        A row per level from 1 on and changed image: ``class``, the image's own class; ``dense`` and ``pruned``, the
        modal predictions; ``dense_agreeing`` and ``pruned_agreeing``, the numbers of trials that predict them; and
        ``trials``, the number of trials. With a single trial, every image with another prediction is listed.
    """
    dense = predictions[predictions["level"] == 0]
    found = []
    for level, pruned in predictions[predictions["level"] > 0].groupby("level"):
        trials = set(pruned["trial"]) & set(dense["trial"])
        before, after = (_modal(table[table["trial"].isin(trials)]) for table in (dense, pruned))
        both = before.merge(after, on=IMAGE, suffixes=("_dense", "_pruned"))
        both = both[both["predicted_dense"] != both["predicted_pruned"]]
        found.append(both.assign(level=level, trials=len(trials)))
    names = {"predicted_dense": "dense", "predicted_pruned": "pruned"}
    names |= {"votes_dense": "dense_agreeing", "votes_pruned": "pruned_agreeing"}
    columns = ["level", *IMAGE, *names.values(), "trials"]
    if not found:
        return pd.DataFrame({name: pd.Series(dtype="int64") for name in columns})
    table = pd.concat(found).rename(columns=names)[columns]
    return table.sort_values(["level", "image"], ignore_index=True)


def accuracy_over_images(predictions: pd.DataFrame, resamples: int = RESAMPLES) -> dict[tuple[int, int], Array]:
    """Return the accuracy of each network on bootstrap resamples of the validation images.

    All networks are measured on the same resamples, so that errors that they share cancel in differences. The resamples
    depend only on the number of images, and are the same for two studies with the same validation images.

    Parameters
    ----------
    predictions : DataFrame
        The table that `study_predictions` returns.
    resamples : int
        The number of resamples.

    Returns
    -------
    dict
        For each trial and level, float64 [resamples]: the top-1 accuracy, as a fraction.
    """
    right_of = {
        (int(str(trial)), int(str(level))): (rows["predicted"] == rows["class"]).to_numpy()
        for (trial, level), rows in predictions.groupby(LEVEL, sort=False)
    }
    right = np.stack(list(right_of.values()))  # [networks, images]
    images = right.shape[1]
    random = np.random.default_rng(0)
    counts = right.astype(np.float32)  # float32 holds whole numbers up to 2**24, far more than a resample has images
    found = np.empty((len(right), resamples))
    for first in range(0, resamples, PART):
        drawn = [
            np.bincount(random.integers(0, images, images), minlength=images)
            for _ in range(min(PART, resamples - first))
        ]
        found[:, first : first + len(drawn)] = counts @ np.array(drawn, np.float32).T
    return dict(zip(right_of, found / images, strict=True))


def study_predictions(study: StoredStudy) -> pd.DataFrame | None:
    """Read the predictions of all finished levels of a study.

    Returns
    -------
    DataFrame or None
        The columns ``trial`` and ``level``, and those of `prunescope.store.predictions.read_predictions`. Levels
        without stored predictions are left out; None if there are none at all.

    Raises
    ------
    InputError
        If a file of predictions is damaged, or if its images have other classes than in the first file. The message
        names the file.
    """
    tables: list[pd.DataFrame] = []
    for trial, level in study.finished:
        table = study.predictions(trial, level)
        if table is None:
            continue
        if tables and not table["class"].equals(tables[0]["class"]):
            first, own = (StudyDirectory(study.root).predictions(*key) for key in (_key(tables[0]), (trial, level)))
            raise InputError(
                f"{own}: the images or their classes differ from those in {first}, expected the same validation set; "
                "restore the original file, or remove it to leave out what is computed from predictions"
            )
        tables.append(table.assign(trial=trial, level=level))
    if not tables:
        return None
    joined = pd.concat(tables, ignore_index=True)
    return joined[[*LEVEL, *joined.columns.drop(LEVEL)]]


def _key(table: pd.DataFrame) -> tuple[int, int]:
    return int(table["trial"].iloc[0]), int(table["level"].iloc[0])


def _modal(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the modal prediction of each image that has one, and the number of trials that predict it, ``votes``."""
    votes = predictions.groupby([*IMAGE, "predicted"]).size().reset_index(name="votes")
    most = votes[votes["votes"] == votes.groupby("image")["votes"].transform("max")]
    return most[~most.duplicated("image", keep=False)]
