"""Trackers are told losses, learning rates and accuracies by step."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from prunescope.errors import InputError
from prunescope.training import StepRange, train
from tests.training.small import half_mask, opened, plain_network, recipe

COURSE = StepRange(1, 8)


def test_tensorboard_holds_every_steps_loss_and_rate_and_the_accuracies_of_the_table(
    root: Path, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = plain_network()
    training = recipe(trackers=["tensorboard"], measure_every="3it", schedule="cosine")

    def progress(done: int, _total: int) -> None:
        if done == 4 and interrupted:
            raise KeyboardInterrupt

    rows = None
    for interrupted in (True, False):
        try:
            rows = train(
                model, opened(root), training, seed=0, mask=half_mask(model), course=COURSE, progress=progress,
                checkpoints=tmp_path / "checkpoints", tracking=tmp_path / "events",
            )  # fmt: skip
        except KeyboardInterrupt:
            assert interrupted
    assert rows is not None
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    losses, rates = events.Scalars("loss"), events.Scalars("learning_rate")
    assert [event.step for event in losses] == [event.step for event in rates] == list(range(2, 9))
    by_step = {event.step: event.value for event in losses}
    for first, last, row in ((2, 3, 0), (4, 6, 1), (7, 8, 2)):
        mean = sum(by_step[step] for step in range(first, last + 1)) / (last - first + 1)
        assert rows["loss"][row] == pytest.approx(mean, rel=1e-5)
    assert [event.step for event in events.Scalars("top1")] == rows["step"].tolist() == [3, 6, 8]
    told = [event.value for event in events.Scalars("validation_loss")]
    assert told == pytest.approx(rows["validation_loss"].tolist())


def test_without_the_package_the_error_says_how_to_install_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [])
    for name in [name for name in sys.modules if name.startswith("tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    model = plain_network()
    with pytest.raises(InputError, match=r"pip install 'prunescope\[tensorboard\]'"):
        train(model, opened(root), recipe(trackers=["tensorboard"]), seed=0, mask=half_mask(model), course=COURSE,
              tracking=tmp_path)  # fmt: skip


def test_a_tracker_without_a_folder_is_refused(root: Path) -> None:
    model = plain_network()
    with pytest.raises(InputError, match="tensorboard needs a folder"):
        train(model, opened(root), recipe(trackers=["tensorboard"]), seed=0, mask=half_mask(model), course=COURSE)
