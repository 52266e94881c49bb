"""Training keeps pruned weights at zero, is a function of its seed, and can start where a rewound network must."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch

from prunescope.errors import InputError
from prunescope.pruning import Mask, prune
from prunescope.tasks import open_task
from prunescope.tasks.order import Plan
from prunescope.training import Step, StepRange, learning_rate, train
from tests.training.small import folder_task, network, opened, recipe, weights_of


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_task(tmp_path_factory.mktemp("task"))


@pytest.mark.parametrize(("text", "iterations"), [("2ep", 20), ("500it", 500), ("1ep20it", 30), ("0it", 0)])
def test_steps_are_written_as_people_say_them(text: str, iterations: int) -> None:
    assert Step.parse(text).iterations(10) == iterations
    assert str(Step.parse(text)) == text


@pytest.mark.parametrize("text", ["", "5", "ep", "5it1ep", "-1ep", "1.5ep", " 5ep", "5ep\n"])
def test_other_text_is_no_step(text: str) -> None:
    with pytest.raises(ValueError, match="expected epochs, iterations or both"):
        Step.parse(text)


def test_the_papers_learning_rates() -> None:
    paper = recipe(
        "90ep", batch_size=1024, learning_rate=0.4, warmup="5ep", schedule=["30ep", "60ep", "80ep"], momentum=0.9
    )
    rates = [learning_rate(paper, epoch * 100, 100) for epoch in (0, 5, 29, 30, 60, 80, 89)]
    assert rates == pytest.approx([0.4 / 500, 0.4, 0.4, 0.04, 0.004, 0.0004, 0.0004])


def test_a_cosine_falls_from_the_full_rate_to_nearly_zero() -> None:
    rates = [learning_rate(recipe("2ep", warmup="1it", schedule="cosine"), step, 50) for step in range(100)]
    assert rates[0] == rates[1] == 0.05
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 1e-4


def test_every_epoch_sees_every_image_once_in_another_order() -> None:
    plan = Plan(images=24, batch_size=8, seed=1)
    epochs = [torch.cat([places for _, places in plan.batches(3 * e, 3 * e + 3)]) for e in range(2)]
    assert all(sorted(epoch.tolist()) == list(range(24)) for epoch in epochs)
    assert not torch.equal(*epochs)


@pytest.mark.parametrize("start", [1, 3, 4])
def test_the_data_order_goes_on_from_any_step(start: int) -> None:
    plan = Plan(images=24, batch_size=8, seed=1)
    whole = list(plan.batches(0, 7))
    for (epoch, places), (epoch_again, places_again) in zip(whole[start:], plan.batches(start, 7), strict=True):
        assert epoch == epoch_again
        assert torch.equal(places, places_again)


def test_a_pruned_weight_is_exactly_zero_after_every_step(root: Path) -> None:
    model = network()
    mask = prune(model, fraction=0.7)
    seen = []

    def check() -> None:
        seen.append(all((model.get_parameter(name)[~mask[name]] == 0).all() for name in mask))

    train(
        model,
        opened(root),
        recipe(),
        seed=0,
        mask=mask,
        course=StepRange(0, 9),
        at_step=dict.fromkeys(range(10), check),
    )
    assert seen == [True] * 10
    assert all((model.get_parameter(name)[mask[name]] != 0).all() for name in mask)


def test_it_learns(root: Path) -> None:
    model = network()
    rows = train(model, opened(root), recipe("8ep"), seed=0, mask=Mask.dense(model), course=StepRange(0, 24))
    assert list(rows["step"]) == [3 * epoch for epoch in range(1, 9)]
    assert rows["loss"].iloc[-1] < rows["loss"].iloc[0]
    assert rows["top1"].iloc[-1] >= 0.9
    assert rows["top1"].iloc[:-1].isna().all()


def test_two_runs_give_the_same_weights_to_the_bit_and_another_seed_does_not(root: Path) -> None:
    found = []
    for seed in (3, 3, 4):
        model = network()
        train(model, opened(root), recipe(), seed=seed, mask=Mask.dense(model), course=StepRange(0, 9))
        found.append(weights_of(model))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_rewinding_to_a_step_and_training_on_under_the_same_mask_repeats_the_run(root: Path) -> None:
    """Without momentum, going on from step k with the weights of step k is the same as never having stopped."""
    task, training = opened(root), recipe(momentum=0.0)
    whole, kept = network(), {}
    mask = Mask.dense(whole)

    def keep() -> None:
        kept.update({name: tensor.clone() for name, tensor in whole.state_dict().items()})

    train(whole, task, training, seed=0, mask=mask, course=StepRange(0, 9), at_step={4: keep})
    again = network(seed=9)
    again.load_state_dict(kept)
    train(again, task, training, seed=0, mask=mask, course=StepRange(4, 9))
    assert torch.equal(weights_of(whole), weights_of(again))


@pytest.mark.parametrize("augmentation", ["none", "flip", "shift-flip", "imagenet"])
def test_images_do_not_depend_on_the_number_of_workers(root: Path, augmentation: str) -> None:
    plan, device = Plan(24, 8, seed=5), torch.device("cpu")
    found = []
    for workers in (0, 2):
        task = opened(root, in_memory=False, augmentation=augmentation, workers=workers)
        found.append([batch.images for batch in task.training_batches(plan, 1, 4, device)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert found[0][0].shape == (8, 3, 16, 16)


@pytest.mark.parametrize("in_memory", [True, False])
def test_augmentation_moves_and_flips_pixels_and_changes_nothing_else(tmp_path: Path, in_memory: bool) -> None:
    folder_task(tmp_path)
    plan, device = Plan(24, 24, seed=5), torch.device("cpu")
    plain, flipped, shifted = (
        next(opened(tmp_path, in_memory, augmentation).training_batches(plan, 0, 1, device)).images
        for augmentation in ("none", "flip", "shift-flip")
    )
    turned = [torch.equal(one, other.flip(2)) for one, other in zip(flipped, plain, strict=True)]
    same = [torch.equal(one, other) for one, other in zip(flipped, plain, strict=True)]
    assert all(one != other for one, other in zip(turned, same, strict=True))
    assert 0 < sum(turned) < 24
    for one, other in zip(shifted, plain, strict=True):
        whole = torch.nn.functional.pad(other, (4,) * 4, value=-2.0)
        windows = [w[:, y : y + 16, x : x + 16] for w in (whole, whole.flip(2)) for y in range(9) for x in range(9)]
        assert any(torch.equal(one, window) for window in windows)


def test_measuring_does_not_depend_on_the_batch_size_or_on_where_images_are_held(root: Path) -> None:
    from prunescope.training import measure

    model = network().eval()
    found = [measure(model, opened(root, in_memory=held), size) for held in (True, False) for size in (1, 5, 12)]
    assert all(one.top1 == found[0].top1 and one.top5 == 1.0 for one in found)
    assert [one.loss for one in found] == pytest.approx([found[0].loss] * 6, rel=1e-5)


def test_predictions_of_single_images_give_the_accuracy_and_the_loss(root: Path) -> None:
    from prunescope.training import measure_images

    model, task = network().eval(), opened(root)
    result, table = measure_images(model, task, 5)
    with torch.inference_mode():
        scores = torch.cat([model(images) for images, _ in task.validation_batches(len(task.val), torch.device("cpu"))])
    assert table["image"].tolist() == list(range(len(task.val)))
    assert table["class"].tolist() == task.val.targets.tolist()
    assert table["predicted"].tolist() == scores.argmax(1).tolist()
    assert (table["class"] == table["predicted"]).mean() == result.top1
    assert -np.log(table["probability"].to_numpy(np.float64)).mean() == pytest.approx(result.loss, rel=1e-5)
    assert [str(kind) for kind in table.dtypes] == ["int32", "int32", "int32", "float32"]


def test_a_diverging_run_stops_with_its_step_and_learning_rate(root: Path) -> None:
    model = network()
    with pytest.raises(InputError, match=r"diverged: the loss is (nan|inf) at step \d+, learning rate 1e\+30"):
        train(model, opened(root), recipe(learning_rate=1e30), seed=0, mask=Mask.dense(model), course=StepRange(0, 9))


def test_workers_end_with_a_training_that_is_stopped_even_while_its_error_is_kept(root: Path) -> None:
    model, others = network(), set(multiprocessing.active_children())
    task = opened(root, in_memory=False, workers=1)
    with pytest.raises(InputError, match="diverged") as kept:
        train(model, task, recipe(learning_rate=1e30), seed=0, mask=Mask.dense(model), course=StepRange(0, 99))
    assert kept.tb is not None
    assert not set(multiprocessing.active_children()) - others


def test_a_folder_without_validation_images_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "train").symlink_to(root / "train")
    with pytest.raises(InputError, match=r"val: there is no such folder"):
        opened(tmp_path)


def test_other_classes_in_val_are_refused(tmp_path: Path) -> None:
    folder_task(tmp_path)
    (tmp_path / "val" / "dark").rename(tmp_path / "val" / "drak")
    with pytest.raises(InputError, match="dark, drak"):
        opened(tmp_path)


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_is_named(tmp_path: Path, in_memory: bool, workers: int) -> None:
    folder_task(tmp_path)
    damaged = tmp_path / "train" / "light" / "003.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    model = network()
    with pytest.raises(InputError, match=r"light/003\.png: cannot be read as an image"):
        train(
            model,
            opened(tmp_path, in_memory, workers=workers),
            recipe(),
            seed=0,
            mask=Mask.dense(model),
            course=StepRange(0, 9),
        )


def test_images_of_another_size_cannot_be_held_in_memory(root: Path) -> None:
    with pytest.raises(InputError, match="16 x 16, expected 32 x 32"):
        open_task(root, size=32, augmentation="none", mean=(0, 0, 0), std=(1, 1, 1), in_memory=True)
