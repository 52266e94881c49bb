"""A training that was stopped, however it was, ends as if it had not been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prunescope.errors import InputError
from prunescope.progress import silent
from prunescope.pruning import Mask
from prunescope.training import StepRange, train
from tests.training import child
from tests.training.small import folder_task, half_mask, opened, plain_network, recipe, weights_of

COURSE = StepRange(0, 8)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Processes are compared to the bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(
    root: Path, folder: Path | None, stop_after: int | None = None, begins: int = 1, **changes: object
) -> tuple[torch.Tensor, pd.DataFrame]:
    """Train a network with dropout, with Ctrl-C after so many steps; it has to begin at the step told."""
    model = plain_network(dropout=0.3)
    seen = []

    def progress(done: int, _total: int) -> None:
        seen.append(done)
        assert seen[0] == begins
        if done == stop_after:
            raise KeyboardInterrupt

    training = recipe(**{"measure_every": "2it"} | changes)
    rows = train(model, opened(root), training, seed=1, mask=half_mask(model), course=COURSE, checkpoints=folder,
                 progress=progress)  # fmt: skip
    return weights_of(model), rows


def stopped(root: Path, folder: Path, after: int, begins: int = 1, **changes: object) -> list[Path]:
    with pytest.raises(KeyboardInterrupt):
        trained(root, folder, after, begins, **changes)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def whole(root: Path) -> tuple[torch.Tensor, pd.DataFrame]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = trained(root, None)
    torch.set_num_threads(threads)
    return found


def assert_same(found: tuple[torch.Tensor, pd.DataFrame], whole: tuple[torch.Tensor, pd.DataFrame]) -> None:
    assert torch.equal(found[0], whole[0])
    pd.testing.assert_frame_equal(found[1], whole[1], check_exact=True)


@pytest.mark.parametrize(
    ("network", "moments", "begins"),
    [("batch statistics", ["step:1", "rename:3"], [1, 1, 5]), ("dropout", ["unlink:1"], [1, 7])],
)
def test_killed_at_any_moment_the_same_call_ends_with_the_same_weights_and_rows(
    root: Path, tmp_path: Path, network: str, moments: list[str], begins: list[int]
) -> None:
    (tmp_path / "whole").mkdir()
    child.run(root, tmp_path / "whole", network, None, silent)
    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "tests.training.child", str(root), str(killed), network]
    began = []
    for moment in [*moments, "never"]:
        ended = subprocess.run([*command, moment], capture_output=True, text=True, timeout=120)
        assert ended.returncode == (0 if moment == "never" else -signal.SIGKILL), ended.stderr
        began.append(int(ended.stdout.split()[0]))
    assert began == begins
    for name in ("weights.safetensors", "rows.csv", "snapshot.safetensors"):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len(list((killed / "checkpoints").iterdir())) == 2


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 8), max_size=3).map(sorted), st.sampled_from([None, "1it", "3it", "1ep"]))
def test_interrupted_after_any_steps_it_goes_on_to_the_bit(
    root: Path, whole: tuple[torch.Tensor, pd.DataFrame], stops: list[int], every: str | None
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "checkpoints"
        begins = 1
        for after in dict.fromkeys(stops):
            stopped(root, folder, after, begins, checkpoint_every=every)
            begins = after + 1
        assert_same(trained(root, folder, begins=begins, checkpoint_every=every), whole)


def test_ctrl_c_within_a_step_waits_for_its_end_and_leaves_a_checkpoint(
    root: Path, tmp_path: Path, whole: tuple[torch.Tensor, pd.DataFrame]
) -> None:
    model = plain_network(dropout=0.3)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(model, opened(root), recipe(measure_every="2it"), seed=1, mask=half_mask(model), course=COURSE,
              checkpoints=tmp_path, at_step={4: lambda: os.kill(os.getpid(), signal.SIGINT)})  # fmt: skip
    assert signal.getsignal(signal.SIGINT) is before
    assert [path.name[:14] for path in tmp_path.iterdir()] == ["step-000000005"]
    assert_same(trained(root, tmp_path, begins=6), whole)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(place: float) -> Callable[[Path], None]:
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(place * len(content))] ^= 1
        path.write_bytes(content)

    return flip


@pytest.mark.parametrize("damage", [truncated, emptied, flipped(0.0), flipped(0.05), flipped(0.5), flipped(0.999)])
def test_where_a_checkpoint_is_damaged_the_one_before_is_used_and_a_warning_says_so(
    root: Path, tmp_path: Path, whole: tuple[torch.Tensor, pd.DataFrame], damage: Callable[[Path], None]
) -> None:
    first, last = stopped(root, tmp_path, 7, checkpoint_every="2it")
    assert [path.name[5:14] for path in (first, last)] == ["000000006", "000000007"]
    damage(last)
    with pytest.warns(UserWarning, match=f"{last.name} is damaged; .* from the previous one, at step 6"):
        found = trained(root, tmp_path, begins=7, checkpoint_every="2it")
    assert_same(found, whole)


def test_where_all_checkpoints_are_damaged_the_level_starts_again_and_says_so(
    root: Path, tmp_path: Path, whole: tuple[torch.Tensor, pd.DataFrame]
) -> None:
    for path in stopped(root, tmp_path, 7, checkpoint_every="2it"):
        truncated(path)
    with pytest.warns(
        UserWarning, match="there is no intact earlier one, so the training of this level starts again"
    ) as told:
        found = trained(root, tmp_path)
    assert len([one for one in told if "damaged" in str(one.message)]) == 2
    assert_same(found, whole)


def test_whole_checkpoints_are_used_without_a_word(root: Path, tmp_path: Path) -> None:
    stopped(root, tmp_path, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trained(root, tmp_path, begins=4)


def test_checkpoints_come_by_time_as_well_and_only_two_are_kept(root: Path, tmp_path: Path) -> None:
    trained(root, tmp_path / "often", checkpoint_minutes=0)
    assert len(list((tmp_path / "often").iterdir())) == 2
    trained(root, tmp_path / "seldom")
    assert not (tmp_path / "seldom").exists()


def test_actions_before_the_checkpoint_are_not_repeated_and_later_ones_are_not_lost(root: Path, tmp_path: Path) -> None:
    called: list[int] = []

    def act(step: int) -> None:
        called.append(step)
        if step == 5 and called.count(5) == 1:
            raise KeyboardInterrupt

    def actions(step: int) -> Callable[[], None]:
        return lambda: act(step)

    for _ in range(2):
        model = plain_network()
        try:
            train(model, opened(root), recipe(), seed=1, mask=half_mask(model), course=COURSE, checkpoints=tmp_path,
                  at_step={step: actions(step) for step in range(9)})  # fmt: skip
        except KeyboardInterrupt:
            called.append(-1)
    assert called == [0, 1, 2, 3, 4, 5, -1, 5, 6, 7, 8]


def test_a_diverged_network_is_never_written(root: Path, tmp_path: Path) -> None:
    model = plain_network()
    with pytest.raises(InputError, match="diverged: a weight is not finite after step 0"):
        train(model, opened(root), recipe(checkpoint_every="1it"), seed=0, mask=Mask.dense(model),
              course=StepRange(0, 4, rate=1e39), checkpoints=tmp_path)  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "named"), [({"learning_rate": 0.1}, "learning_rate"), ({"length": "9ep"}, "length")]
)
def test_another_trainings_checkpoints_are_refused(
    root: Path, tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    stopped(root, tmp_path, 3)
    with pytest.raises(
        InputError, match=f"checkpoint of another training, which differs in {named}; remove {tmp_path}"
    ):
        trained(root, tmp_path, **changes)


@pytest.mark.parametrize(
    ("other", "named"), [({"augmentation": "none"}, "augmentation"), ({"in_memory": False}, "content .*, in_memory")]
)
def test_checkpoints_of_other_data_are_refused(root: Path, tmp_path: Path, other: dict[str, Any], named: str) -> None:
    stopped(root, tmp_path, 3)
    model = plain_network(dropout=0.3)
    with pytest.raises(InputError, match=f"checkpoint of another training, which differs in {named}; "):
        train(model, opened(root, **other), recipe(measure_every="2it"), seed=1, mask=half_mask(model), course=COURSE,
              checkpoints=tmp_path)  # fmt: skip


def test_checkpoints_of_images_of_other_classes_are_refused(root: Path, tmp_path: Path) -> None:
    stopped(root, tmp_path, 3)
    task, model = opened(root), plain_network(dropout=0.3)
    swapped = replace(task, train=replace(task.train, targets=1 - task.train.targets))
    with pytest.raises(InputError, match=r"checkpoint of another training, which differs in training images, "):
        train(model, swapped, recipe(measure_every="2it"), seed=1, mask=half_mask(model), course=COURSE,
              checkpoints=tmp_path)  # fmt: skip


@pytest.mark.parametrize("in_memory", [True, False])
def test_checkpoints_of_other_pixels_are_refused_wherever_the_images_are(tmp_path: Path, in_memory: bool) -> None:
    def trained_to(step: int, root: Path) -> int:
        begun: list[int] = []

        def progress(done: int, _total: int) -> None:
            begun.append(done)
            if done == step:
                raise KeyboardInterrupt

        model = plain_network()
        with suppress(KeyboardInterrupt):
            train(model, opened(root, in_memory), recipe(), seed=1, mask=half_mask(model), course=COURSE,
                  checkpoints=tmp_path / "checkpoints", progress=progress)  # fmt: skip
        return begun[0]

    root = folder_task(tmp_path / "task")
    assert trained_to(3, root) == 1
    moved = root.rename(tmp_path / "moved")
    assert trained_to(5, moved) == 4
    image = moved / "val" / "dark" / "001.png"
    Image.fromarray(255 - np.asarray(Image.open(image))).save(image)
    with pytest.raises(InputError, match=r"checkpoint of another training, which differs in content of the images;"):
        trained_to(8, moved)


def test_how_a_training_is_run_may_change_on_the_way(root: Path, tmp_path: Path) -> None:
    stopped(root, tmp_path, 3)
    found = trained(root, tmp_path, begins=4, device_batch_size=4, checkpoint_minutes=1)
    assert found[1]["step"].iloc[-1] == 8
