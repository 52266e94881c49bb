from __future__ import annotations

import pytest
import torch

from prunescope.devices import choose_device
from prunescope.errors import InputError


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_processes_on_one_machine_take_its_gpus_in_turn_whatever_their_number_among_all(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert choose_device(name) == "cuda:0"
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert choose_device(name, rank=9) == "cuda:2"
    monkeypatch.setenv("LOCAL_RANK", "5")
    assert choose_device(name) == "cuda:1"


def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["gpu", "hpu", "meta"])
def test_a_device_that_is_not_there_or_computes_nothing_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"device '{name}' cannot be used"):
        choose_device(name)
