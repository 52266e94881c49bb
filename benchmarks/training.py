"""Measure the cost of a training step with a mask relative to a plain PyTorch step.

    python benchmarks/training.py [--rounds 15] [--quick] [--gpu]

Several ways to take a step are measured in the same run and take turns step by step. Each way has its own ResNet-50 in
channels-last format; all start with the same weights and a mask that keeps 17 % of them. A ratio is the median over the
rounds of one way's time divided by the time of the bare step in the same round. The bare step is forward, backward and
torch.optim.SGD without any mask, as in PyTorch's tutorials. With `--gpu`, the steps are measured on the GPU instead of
the CPU.

The speed of the input pipeline is measured by benchmarks/pipeline.py, and what studies save by sharing their dense
networks by benchmarks/ways.py.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as hooks

from prunescope.networks import build_network
from prunescope.processes import Processes
from prunescope.pruning import Mask, prune
from prunescope.randomness import leaving_generators, seed_layers
from prunescope.tasks.task import TaskBatch
from prunescope.training import Training
from prunescope.training.acceleration import accelerating
from prunescope.training.descent import Descent, optimiser_of

CLASSES = 1000
RATE = 0.01
OPTIMISER = {"lr": RATE, "momentum": 0.9, "weight_decay": 1e-4}
KEPT = 0.168  # the weights remaining at level 8 of the paper

Step = Callable[[], None]


def main() -> None:
    """Parse the options, run the measurements and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--gpu", action="store_true", help="measure on the GPU instead")
    parser.add_argument("--quick", action="store_true", help="few rounds, for a look")
    options = parser.parse_args()
    rounds = 3 if options.quick else options.rounds
    torch.manual_seed(0)
    print(f"ResNet-50, {KEPT:.1%} of the weights kept, {torch.get_num_threads()} threads, {rounds} rounds\n")
    if options.gpu:
        gpu = torch.device("cuda", 0)
        for precision in ("bf16", "fp32"):
            print_steps(
                f"{torch.cuda.get_device_name()}, {precision}, 224 px, batch 256", 224, 256, gpu, rounds, bound=1.01,
                precision=precision,
            )  # fmt: skip
        return
    print_steps("224 px, batch 8", 224, 8, torch.device("cpu"), rounds, bound=1.01)
    print_steps("64 px, batch 16", 64, 16, torch.device("cpu"), rounds, bound=1.04)


def print_steps(
    title: str, size: int, batch_size: int, device: torch.device, rounds: int, bound: float, precision: str = "fp32"
) -> None:
    """Measure and print a section with a row for each way of taking a step."""
    batch = TaskBatch(
        torch.randn(batch_size, 3, size, size, device=device).contiguous(memory_format=torch.channels_last),
        torch.randint(0, CLASSES, (batch_size,), device=device),
    )
    with ExitStack() as during:
        during.enter_context(leaving_generators(device))
        half = precision == "bf16"
        ways = {
            "bare": bare(batch, device, half),
            "bare, SGD(fused=True)": bare(batch, device, half, fused=True),
            "ours": ours(batch, device, precision, during),
            "ours, nothing pruned": ours(batch, device, precision, during, dense=True),
            "torch.nn.utils.prune's hooks": hooked(batch, device, half),
            "mask multiplied in at every forward": multiplied(batch, device, half),
        }
        seconds = taking_turns(ways, device, rounds)
    print(f"{title}{'':{max(0, 36 - len(title))}}      ms   / bare   / bare fused")
    for name, found in seconds.items():
        ratios = [
            statistics.median(one / other for one, other in zip(found, seconds[beside], strict=True))
            for beside in ("bare", "bare, SGD(fused=True)")
        ]
        aim = f"   at most {bound} of bare" if name == "ours" else ""
        milliseconds = statistics.median(found) * 1000
        print(f"  {name:36} {milliseconds:8.1f}   {ratios[0]:6.3f}   {ratios[1]:12.3f}{aim}")
    print()


def taking_turns(ways: dict[str, Step], device: torch.device, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each way's steps by round.

    Each way first takes two steps to warm up. Then every round takes one step of each way, and the order is rotated
    from round to round.
    """
    for step in ways.values():
        step()
        step()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        at = number % len(names)
        for name in names[at:] + names[:at]:
            wait(device)
            began = time.perf_counter()
            ways[name]()
            wait(device)
            seconds[name].append(time.perf_counter() - began)
    return seconds


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def network(device: torch.device) -> tuple[nn.Module, Mask]:
    """Return the network and the mask that every way starts with."""
    model = build_network("torchvision:resnet50", classes=CLASSES, seed=0)
    mask = prune(model, fraction=1 - KEPT)
    model.to(device, memory_format=torch.channels_last)
    return model.train(), mask


def plain_step(model: nn.Module, batch: TaskBatch, half: bool, **flags: bool) -> Step:
    """Return a step as in PyTorch's tutorials."""
    optimiser = torch.optim.SGD(model.parameters(), **OPTIMISER, **flags)

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=half):
            loss = nn.functional.cross_entropy(model(batch.images), batch.targets)
        loss.backward()
        optimiser.step()

    return step


def bare(batch: TaskBatch, device: torch.device, half: bool, **flags: bool) -> Step:
    """Return a step that trains without a mask."""
    return plain_step(network(device)[0], batch, half, **flags)


def ours(batch: TaskBatch, device: torch.device, precision: str, during: ExitStack, dense: bool = False) -> Step:
    """Return a step as `prunescope.training.train` takes it."""
    model, mask = network(device)
    if dense:
        mask = Mask.dense(model)
    mask.apply(model)
    training = Training.model_validate(
        {"length": "1ep", "batch_size": len(batch.images), "learning_rate": RATE, "precision": precision}
    )
    processes = Processes()
    accelerator = during.enter_context(accelerating(training, device, processes, None))
    optimiser = optimiser_of(model, training, device)
    descent = Descent.prepare(model, optimiser, mask, training, training.batch_size, accelerator, processes)
    losses: list[Tensor] = []

    def step() -> None:
        seed_layers(device, 0, len(losses), 0)
        losses.append(descent.step(batch, RATE))

    return step


def hooked(batch: TaskBatch, device: torch.device, half: bool) -> Step:
    """Return a step in which a hook before every layer multiplies the layer's weight by its mask."""
    model, mask = network(device)
    for name, kept in mask.items():
        hooks.custom_from_mask(model.get_submodule(name.rpartition(".")[0]), "weight", kept.to(device))
    return plain_step(model, batch, half)


def multiplied(batch: TaskBatch, device: torch.device, half: bool) -> Step:
    """Return a step in which every weight is multiplied by its mask in place at the start of the forward pass."""
    model, mask = network(device)
    pairs = [(weight, torch.empty_like(weight).copy_(mask[name])) for name, weight in mask.parameters(model).items()]

    def multiply(*_: object) -> None:
        with torch.no_grad():
            for weight, kept in pairs:
                weight.mul_(kept)

    model.register_forward_pre_hook(multiply)
    return plain_step(model, batch, half)


if __name__ == "__main__":
    main()
