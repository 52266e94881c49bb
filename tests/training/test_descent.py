"""A level's steps are plain stochastic gradient descent under a mask, however they are computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunescope.errors import InputError
from prunescope.processes import Processes
from prunescope.pruning import Mask
from prunescope.tasks import Task
from prunescope.tasks.order import Plan
from prunescope.tasks.task import TaskBatch
from prunescope.training import StepRange, Training, learning_rate, train
from prunescope.training.descent import Descent
from tests.training.small import half_mask, network, opened, plain_network, recipe, weights_of


def written_out(
    model: nn.Module, task: Task, training: Training, mask: Mask, course: StepRange, seed: int, **optimiser_flags: bool
) -> list[float]:
    """Train as PyTorch's tutorials do, with the mask multiplied in; return the losses."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mask.apply(model)
    plan = Plan(len(task.train), training.batch_size, seed)
    optimiser = torch.optim.SGD(
        model.parameters(), lr=1.0, momentum=training.momentum, weight_decay=1e-3, **optimiser_flags
    )
    losses = []
    model.train()
    for step, batch in enumerate(
        task.training_batches(plan, course.start, course.stop, torch.device("cpu")), course.start
    ):
        rate = course.rate or learning_rate(training, step, plan.steps_per_epoch)
        optimiser.param_groups[0]["lr"] = rate
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(batch.images), batch.targets)
        loss.backward()
        for name, kept in mask.items():
            weight = model.get_parameter(name)
            assert weight.grad is not None
            weight.grad *= kept
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("build", [network, plain_network])
@pytest.mark.parametrize("course", [StepRange(0, 6), StepRange(4, 9), StepRange(2, 8, rate=0.01)])
def test_a_level_is_the_loop_written_out_to_the_bit(
    root: Path, build: Callable[[], nn.Module], course: StepRange
) -> None:
    task, training = opened(root), recipe(schedule=["1ep"], warmup="1it")
    ours, fused, plain = build(), build(), build()
    mask = half_mask(ours)
    rows = train(ours, task, training, seed=3, mask=mask, course=course)
    losses = written_out(fused, task, training, mask, course, seed=3, fused=True)
    written_out(plain, task, training, mask, course, seed=3)
    assert torch.equal(weights_of(ours), weights_of(fused))
    torch.testing.assert_close(weights_of(ours), weights_of(plain), rtol=1e-4, atol=1e-5)
    first = 3 - course.start % 3
    assert rows["loss"].iloc[0] == pytest.approx(sum(losses[:first]) / first, rel=1e-12)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 12), st.integers(1, 30), st.sampled_from(["plain", "nesterov", "no momentum"]))
def test_pieces_of_any_size_give_the_whole_batchs_weights_and_losses(
    root: Path, micro_batch_size: int, batch_size: int, way: str
) -> None:
    changes = {"plain": {}, "nesterov": {"nesterov": True}, "no momentum": {"momentum": 0.0}}[way]
    found = []
    for most in (None, micro_batch_size):
        model = plain_network()
        training = recipe(batch_size=batch_size, device_batch_size=most, **changes)
        rows = train(model, opened(root), training, seed=0, mask=half_mask(model), course=StepRange(0, 5))
        found.append((weights_of(model), torch.tensor(rows["loss"].tolist())))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def pooled_network() -> nn.Module:
    """A network whose batch normalisation sees one value of each image, and so cannot see one image alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)
        )


def test_pieces_are_about_equal_so_that_no_statistics_are_of_one_image_left_over(root: Path) -> None:
    model, sizes = pooled_network(), []
    model.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])) if module.training else None)
    train(model, opened(root), recipe(batch_size=9, device_batch_size=4), seed=0, mask=Mask.dense(model),
          course=StepRange(0, 2))  # fmt: skip
    assert sizes == [3, 3, 3] * 2


@given(images=st.integers(1, 40), processes=st.integers(1, 5), most=st.integers(2, 12))
def test_every_process_has_as_many_pieces_none_larger_than_told(images: int, processes: int, most: int) -> None:
    counts = set()
    for rank in range(min(processes, images)):
        share = torch.arange(images)[rank::processes]
        descent = Descent(nn.Identity(), None, [], images, most, None, Processes(rank, processes))  # type: ignore[arg-type]
        micro_batches = [images.tolist() for images, _ in descent._micro_batches(TaskBatch(share, share))]
        assert [index for micro_batch in micro_batches for index in micro_batch] == share.tolist()
        assert 0 < min(map(len, micro_batches)) <= max(map(len, micro_batches)) <= most
        counts.add(len(micro_batches))
    assert len(counts) == 1


def raising(error: Exception) -> nn.Module:
    model = plain_network()

    def refuse(_module: nn.Module, _given: object) -> None:
        raise error

    model.register_forward_pre_hook(refuse)
    return model


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (pooled_network(), {"batch_size": 1}, r"cannot train on 1 images at a time \(Expected more than 1 value"),
        (raising(RuntimeError("DefaultCPUAllocator: can't allocate memory")), {}, "8 images at a time do not fit"),
        (raising(torch.OutOfMemoryError()), {}, "8 images at a time do not fit .* smaller device_batch_size"),
    ],
)
def test_a_step_that_cannot_be_taken_says_what_to_change(
    root: Path, model: nn.Module, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train(model, opened(root), recipe(**changes), seed=0, mask=Mask.dense(model), course=StepRange(0, 2))


@pytest.mark.parametrize("error", [ValueError("another"), RuntimeError("another")])
def test_other_errors_of_a_network_are_its_own(root: Path, error: Exception) -> None:
    model = raising(error)
    with pytest.raises(type(error), match="another"):
        train(model, opened(root), recipe(), seed=0, mask=Mask.dense(model), course=StepRange(0, 2))


def test_the_course_may_go_beyond_the_recipes_length(root: Path) -> None:
    model = network()
    training = recipe("1ep", schedule="cosine")
    rows = train(model, opened(root), training, seed=0, mask=Mask.dense(model), course=StepRange(0, 7, rate=0.02))
    assert rows["step"].tolist() == [3, 6, 7]
    assert (rows["learning_rate"] == 0.02).all()
    assert learning_rate(training, 5, 3) == 0.0


def test_dropout_is_a_function_of_the_seed_and_leaves_torchs_generator_alone(root: Path) -> None:
    found = []
    for seed, global_seed in ((0, 5), (0, 6), (1, 6)):
        torch.manual_seed(global_seed)
        model = plain_network(dropout=0.5)
        train(model, opened(root, augmentation="none"), recipe(batch_size=24), seed=seed, mask=half_mask(model),
              course=StepRange(0, 3))  # fmt: skip
        torch.testing.assert_close(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(global_seed)))
        found.append(weights_of(model))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])


def test_bf16_computes_in_bfloat16_and_learns_what_fp32_learns(root: Path) -> None:
    found, types = [], set()
    for precision in ("fp32", "bf16", "fp32"):
        model = network()
        model.get_submodule("stage1").register_forward_hook(lambda m, _i, out: types.add((m.training, out.dtype)))
        rows = train(model, opened(root), recipe(precision=precision), seed=0, mask=half_mask(model),
                     course=StepRange(0, 9))  # fmt: skip
        assert all(tensor.dtype != torch.bfloat16 for tensor in model.state_dict().values())
        found.append(rows["loss"].tolist())
    assert types == {(True, torch.float32), (True, torch.bfloat16), (False, torch.float32)}
    assert found[0] == found[2] != found[1]
    assert found[1] == pytest.approx(found[0], rel=0.05)


def test_a_compiled_step_takes_the_same_steps_and_leaves_the_networks_names_clean(root: Path) -> None:
    found = []
    for compiled in (False, True):
        model = plain_network()
        names = list(model.state_dict())
        rows = train(
            model,
            opened(root),
            recipe(compile="aot_eager" if compiled else False),
            seed=0,
            mask=half_mask(model),
            course=StepRange(0, 3),
        )
        assert list(model.state_dict()) == names
        found.append((weights_of(model), rows["loss"].iloc[0]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_networks_of_many_sizes_are_all_compiled(root: Path) -> None:
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()
    for width in range(1, 13):
        model = nn.Sequential(nn.Conv2d(3, width, 16), nn.Flatten(), nn.Linear(width, 2))
        training = recipe(compile="aot_eager")
        train(model, opened(root), training, seed=0, mask=Mask.dense(model), course=StepRange(0, 1))
    assert counters["stats"]["unique_graphs"] == 12


def test_where_nothing_can_be_compiled_it_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_compiler(*_: object) -> None:
        raise OSError("no compiler found\nand more")

    compile_by = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda loss, **given: compile_by(loss, **given | {"backend": without_compiler})
    )
    model = plain_network()
    with pytest.raises(InputError, match=r"cannot be compiled here \(no compiler found\); set `compile: false`"):
        train(model, opened(root), recipe(compile=True), seed=0, mask=Mask.dense(model), course=StepRange(0, 1))


def test_the_network_is_left_without_traces(root: Path) -> None:
    model, untouched = network(), network()
    train(model, opened(root), recipe(precision="bf16"), seed=0, mask=half_mask(model), course=StepRange(0, 3))
    for ours, theirs in zip(model.modules(), untouched.modules(), strict=True):
        assert type(ours) is type(theirs)
        assert vars(ours).keys() == vars(theirs).keys()


@pytest.mark.parametrize(("at", "stop"), [(2, 6), (1, 1)])
def test_a_network_that_is_no_longer_finite_is_not_acted_on(root: Path, at: int, stop: int) -> None:
    model, acted = plain_network(), []
    with pytest.raises(InputError, match="diverged"):
        train(model, opened(root), recipe(batch_size=2), seed=0, mask=Mask.dense(model),
              course=StepRange(0, stop, rate=1e39), at_step={at: lambda: acted.append(at)})  # fmt: skip
    assert acted == []


def test_weights_that_are_no_longer_finite_stop_a_level_at_its_end(root: Path) -> None:
    model = plain_network()
    rate = 1e39  # more than float32 holds
    with pytest.raises(InputError, match=r"diverged: a weight is not finite after step 0, learning rate 1e\+39"):
        train(
            model, opened(root), recipe(momentum=0.0), seed=0, mask=Mask.dense(model), course=StepRange(0, 1, rate=rate)
        )


@pytest.mark.parametrize("field", ["measure_every", "checkpoint_every"])
def test_an_interval_of_no_steps_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match="expected at least one step"):
        recipe(**{field: "0it"})
