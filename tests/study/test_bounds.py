"""A number that would be refused later, or overflow, is refused when it is read, with its field or its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import prunescope
from prunescope.dissection import Budget
from prunescope.store import read_recipe
from prunescope.training.steps import Step
from tests.cli.commands import GOLDEN, refused
from tests.study.small import write_recipe

CONCEPTS = GOLDEN / "dissection" / "concepts"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "small.yaml", "task", "concepts")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("trials", ["0", "-1", "1001", "1e9", ".nan", ".inf"]),
        ("seed", ["-1", str(2**63), str(10**30), "1.5", ".inf"]),
        ("data.size", ["0", "16385", "1000000", str(10**30)]),
        ("data.workers", ["-1", "1025", "1000000"]),
        ("data.mean", ["[1.0e+300, 0, 0]", "[.nan, 0, 0]", "[0, 0]"]),
        ("data.std", ["[1.0e-300, 1, 1]", "[0, 1, 1]", "[-1, 1, 1]", "[.inf, 1, 1]"]),
        ("training.length", ["0it", "0ep", "1000000001ep", "1000000000000it", "9" * 5000 + "ep", "-1ep"]),
        ("training.batch_size", ["0", "-1", str(10**12), str(10**30)]),
        ("training.device_batch_size", ["0", str(10**30)]),
        ("training.learning_rate", ["0", "-0.1", ".nan", ".inf", "1.0e+308"]),
        ("training.momentum", ["1", "-0.1", ".nan"]),
        ("training.weight_decay", ["-1", ".nan", "1.0e+308"]),
        ("training.gamma", ["0", "1.5", ".nan"]),
        ("training.warmup", [f"{10**30}ep"]),
        ("training.schedule", [f"[{10**30}ep]"]),
        ("training.measure_every", ["0it", f"{10**30}ep"]),
        ("training.checkpoint_every", ["0it", f"{10**30}ep"]),
        ("training.checkpoint_minutes", ["-1", ".nan", "1.0e+308"]),
        ("pruning.levels", ["-1", "1001", str(10**9)]),
        ("pruning.fraction", ["0", "1", "-0.5", ".nan"]),
        ("pruning.remaining", ["[0.5, 0.5]", "[0.5, .nan]", "[1.5]", f"[{', '.join(['0.5'] * 1001)}]"]),
        ("pruning.rewind_to", ["7ep", f"{10**30}it"]),
        ("dissection.quantile", ["0", "1", "1.0e-300", "0.9999999999999999", ".nan"]),
        ("dissection.iou", ["1", "-0.1", ".nan"]),
        ("dissection.batch_size", ["0", str(10**30)]),
        ("data.task", ["{miniature: {images: 63}}", f"{{miniature: {{images: {10**9}}}}}"]),
        ("data.task", [f"{{miniature: {{images: 64, seed: {2**64}}}}}", "{miniature: {images: 64, seed: -1}}"]),
    ],
)
def test_a_number_out_of_bounds_is_refused_by_its_field(small: Path, field: str, values: list[str]) -> None:
    for value in values:
        with pytest.raises(prunescope.InputError) as error:
            read_recipe(small, [f"{field}={value}"])
        assert f": {field}" in str(error.value)
        assert len(str(error.value)) < 6500


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([f"seed={2**63 - 1}", "trials=2"], "seed is 9223372036854775807: trial 1 would have seed"),
        ([f"seed={2**55}", "pruning.criterion=random"], "seed is .*: with `criterion: random`"),
        ([f"seed={2**55}", "pruning.criterion=random", "pruning.scope=layer"], "expected at most 18446744073709550"),
        (["training.nesterov=true", "training.momentum=0"], "training.nesterov is True: it needs a momentum above 0"),
        (["data.size=15", "data.task={miniature: {images: 64}}"], "data.size is 15: images of the miniature"),
        (["data.size=1025", "dissection.concepts={miniature: {images: 64}}"], "sides from 16 to 1024 pixels"),
        (['network="/a\\0.py:f"'], "network is .*: it contains a NUL character"),
        (['dissection.concepts="/a\\0"'], "dissection.concepts is .*: it contains a NUL character"),
        (['data.task="/a\\0"'], "data.task is .*: it contains a NUL character"),
        (['data.task={cifar10: "/a\\0"}'], "data.task is .*: it contains a NUL character"),
        (['name="\\ud800"'], "name is .*: it cannot be written as UTF-8"),
        (["seed=2001-99-99"], "'2001-99-99' cannot be read as a value"),
        (["seed=0x_"], "'0x_' cannot be read as a value"),
        (["seed=" + "9" * 5000], "cannot be read as a value"),
        (["seed=0x" + "f" * 50_000], "is too large"),
        (["name=" + "[" * 300], "not valid YAML|nested too deep"),
    ],
)
def test_what_makes_no_sense_together_is_refused_when_it_is_read(small: Path, changes: list[str], said: str) -> None:
    with pytest.raises(prunescope.InputError, match=said):
        read_recipe(small, changes)


def test_the_largest_numbers_that_work_are_taken(small: Path) -> None:
    most = ["trials=2", f"seed={2**63 - 2}", "training.length=1000000000ep", "training.nesterov=true"]
    assert read_recipe(small, most).seed == 2**63 - 2
    last = (2**64 - 1 - 2) // 1000 - 1
    assert read_recipe(small, ["pruning.criterion=random", f"seed={last}"]).seed == last
    with pytest.raises(prunescope.InputError, match=f"expected at most {last}"):
        read_recipe(small, ["pruning.criterion=random", f"seed={last + 1}"])
    model = nn.Linear(4, 2)
    assert prunescope.prune(model, seed=1000 * 2**62).kept == prunescope.prune(model).kept
    filters = ["pruning.criterion=random", "pruning.scope=filters", f"seed={2**62}"]
    assert read_recipe(small, filters).seed == 2**62


def aliases(first: str, form: str) -> str:
    """Nine lines, each of which holds the one before ten times."""
    lines = [f"a0: &a0 {first}"]
    return "\n".join(lines + [f"a{n}: &a{n} {form.format(', '.join([f'*a{n - 1}'] * 10))}" for n in range(1, 10)])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (aliases("[x]", "[{}]"), "there are more than 100,000 values; use fewer aliases"),
        (aliases("{x: 1}", "{{<<: [{}]}}"), "there are more than 100,000 values; use fewer aliases"),
        ("name: small\nseed: 2001-99-99\n", "line 2: '2001-99-99' cannot be read as a value; if it is text"),
        ('extends: "./\\0.yaml"', "it contains a NUL character"),
    ],
)  # fmt: skip
def test_yaml_that_cannot_be_handled_is_refused_at_once(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(prunescope.InputError, match=said) as error:
        read_recipe(path)
    assert "mine.yaml" in str(error.value)


def test_a_recipe_that_is_a_pipe_or_extends_without_end_is_refused(small: Path) -> None:
    os.mkfifo(small.with_name("pipe.yaml"))
    with pytest.raises(prunescope.InputError, match=r"pipe\.yaml: the recipe cannot be read \(Not a regular file\)"):
        read_recipe(small.with_name("pipe.yaml"))
    for number in range(60):
        small.with_name(f"r{number}.yaml").write_text(f"extends: ./r{number + 1}.yaml\n")
    with pytest.raises(
        prunescope.InputError, match=r"at most 50 recipes may extend each other, and .*r0\.yaml starts a longer chain"
    ):
        read_recipe(small.with_name("r0.yaml"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--quantile", "1e-300"), "quantile is 1e-300"),
        (("--quantile", "nan"), "quantile is nan"),
        (("--iou", "nan"), "iou is nan"),
        (("--batch-size", str(10**30)), "batch size is"),
        (("--batch-size", "0"), "batch size is 0"),
        (("--memory", "1e300"), "--memory is 1e+300"),
        (("--spill", "inf"), "--spill is inf"),
        (("--std", "1e-300,1,1"), "std is [1e-300, 1.0, 1.0]"),
        (("--mean", "1e300,1,1"), "expected three numbers"),
        (("--seed", str(2**63)), "seed 9223372036854775808 cannot be used"),
        (("--classes", str(10**12)), "a network cannot have 1000000000000 classes"),
    ],
)
def test_an_option_out_of_bounds_is_refused_before_anything_is_written(
    tmp_path: Path, words: tuple[str, str], said: str
) -> None:
    out = tmp_path / "out"
    assert said in refused("dissect", "prunescope:resnet8x4", "--concepts", CONCEPTS, "--out", out, *words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("layers", "prunescope:resnet8x4", "--size", str(10**9)), "size is 1000000000"),
        (("layers", "prunescope:resnet8x4", "--size", "-1"), "size is -1"),
        (("concepts", "make", "miniature", "out", "--images", str(10**12)), "the number of images is 1000000000000"),
        (
            ("concepts", "make", "miniature", "out", "--images", "5", "--seed", str(2**64)),
            "seed is 18446744073709551616",
        ),
        (("concepts", "make", "miniature", "out", "--images", "5", "--size", str(10**30)), "size is 1000000"),
    ],
)
def test_other_commands_numbers_are_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(*words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: prunescope.prune(nn.Linear(4, 2), seed=2**64, criterion="random"), "seed is 18446744073709551616"),
        (lambda: prunescope.build_network("prunescope:resnet8x4", seed=2**63), "seed 9223372036854775808"),
        (lambda: prunescope.build_network("prunescope:resnet8x4", seed=1.5), "seed 1.5"),  # type: ignore[arg-type]
        (lambda: prunescope.build_network("prunescope:resnet8x4", classes=True), "True classes"),
        (lambda: prunescope.make_miniature("out", 1.5, seed=0), "the number of images is 1.5"),  # type: ignore[arg-type]
        (lambda: prunescope.make_miniature("out", 16, seed=0, workers=0), "workers is 0"),
        (lambda: prunescope.plan(["demo"], images=0), "images is 0"),
        (lambda: prunescope.plan(["demo"], images_per_second=(float("inf"), 1)), "images_per_second"),
        (lambda: Budget(memory=float("nan")), "Budget: memory is nan"),  # type: ignore[arg-type]
        (lambda: Budget(disk=-1), "Budget: disk is -1"),
        (
            lambda: prunescope.dissect_activations(np.zeros((1, 1, 1, 1)), concepts=CONCEPTS, quantile=float("nan")),
            "quantile is nan",
        ),
    ],
)
def test_arguments_out_of_bounds_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(prunescope.InputError, match=said):
        call()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["١ep", "1000000001it", "9" * 5000 + "ep"])
def test_a_step_is_written_in_plain_digits_and_has_a_bound(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Step.parse(text)
