"""What the command `series` refuses before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import refused

NETWORK = "prunescope:resnet8x4"


@pytest.mark.parametrize(
    "options",
    [
        ("--weights", "a.pt"),
        ("--iou", "0.1"),
        ("--match",),
        ("--classes", "5"),
        ("--size", "32"),
        ("--name", "mine"),
        ("--images", "20"),
        ("--mean", "0.5,0.5,0.5"),
    ],
)
def test_an_option_that_the_file_of_a_series_decides_is_refused(tmp_path: Path, options: tuple[str, ...]) -> None:
    said = refused("series", tmp_path / "series.yaml", "--out", tmp_path / "out", *options)
    assert f"{options[0]}: the file {tmp_path / 'series.yaml'} describes the series; change it there" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "give at least one --weights FILE, or a YAML file"),
        (("--weights", "a.pt"), "give --concepts DIR, or a YAML file"),
        (
            ("--weights", "a.pt", "--weights", "b.pt", "--masks", "m.pt", "--concepts", "c", "--layer", "stage3"),
            "--masks is given for 1 and --weights for 2 files",
        ),
        (("--weights", "a.pt", "--concepts", "c", "--size", "32"), "--size applies to the images in --data"),
        (("--weights", "a.pt", "--concepts", "c", "--data", "{cifar10"), "--data '{cifar10': "),
        (("--weights", "a.pt", "--concepts", "c", "--layer", "stage3"), "c: there is no such folder"),
    ],
)
def test_what_is_missing_or_contradicts_itself_is_named(
    tmp_path: Path, options: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused("series", NETWORK, "--out", "out", *options)
    assert not (tmp_path / "out" / "study.yaml").exists()
