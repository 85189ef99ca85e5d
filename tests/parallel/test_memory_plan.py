from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from partrain.config.reader import parse_config, read_config
from partrain.data.dataset import Dataset, Split
from partrain.data.split_name import SplitName
from partrain.errors import ResourceError
from partrain.network.network import Network
from partrain.network.normalisation import Normalisation
from partrain.parallel import memory_plan
from partrain.parallel.memory_plan import INTERPRETERS, TEMPORARY, check_memory, memory_of_processes
from partrain.system.machine import MIB, private_memory
from partrain.training import plan as plan_module
from partrain.training.plan import TrainingPlan
from tests.program import ROOT

PLAN = {"data set": 50 * MIB, "2 workers": 20 * MIB, INTERPRETERS: 100 * MIB, TEMPORARY: 60 * MIB}  # 230 MiB


@pytest.fixture
def set_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None, int], None]:
    """Say how much memory is available, and how much the processes that run already have, in MiB."""

    def say(available: int | None, in_use: int) -> None:
        monkeypatch.setattr(memory_plan, "available_memory", lambda: None if available is None else available * MIB)
        monkeypatch.setattr(memory_plan, "private_memory", lambda pids: in_use * MIB)

    return say


@pytest.mark.parametrize(
    ("available", "in_use", "fits"),
    [(230, 0, True), (229, 0, False), (130, 100, True), (129, 100, False), (70, 5000, True), (69, 5000, False)],
)
def test_what_runs_already_is_not_counted_twice(
    set_memory: Callable[..., None], available: int, in_use: int, fits: bool
) -> None:
    set_memory(available, in_use)
    if fits:
        check_memory(PLAN)
    else:
        with pytest.raises(ResourceError, match=r"needs about 230 MiB of memory \(data set 50 MiB"):
            check_memory(PLAN)


def test_system_that_does_not_say_how_much_is_available_is_trusted(set_memory: Callable[..., None]) -> None:
    set_memory(None, 0)
    check_memory(PLAN)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_private_memory_is_that_of_this_process() -> None:
    before = private_memory([os.getpid()])
    # A mapping of its own: an array might get pages that the process already has.
    filled = mmap.mmap(-1, 32 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    filled.write(bytes([1]) * len(filled))
    assert private_memory([os.getpid()]) >= before + 30 * MIB
    assert len(filled) > private_memory([2**30]) == 0


MNIST = (50_000, 10_000, 10_000)
CONFIGS, BENCHMARKS = ROOT / "configs", ROOT / "tests/benchmarks/configs"


@pytest.mark.parametrize(
    ("config", "changes", "num_examples", "workers", "measured_mib"),
    [
        (CONFIGS / "mnist.yaml", [], MNIST, 2, 175),
        (CONFIGS / "mnist.yaml", [], MNIST, 8, 207),
        (CONFIGS / "mnist.yaml", [], MNIST, 0, 145),
        (CONFIGS / "mnist.yaml", ["logging.plots=true"], MNIST, 2, 194),
        (CONFIGS / "lenet5.yaml", [], MNIST, 2, 175),
        (BENCHMARKS / "dense-only.yaml", [], (20_000, 0, 10_000), 2, 144),
        (BENCHMARKS / "two-large-convolutions.yaml", ["training.batch_size=256"], (10_000, 0, 10_000), 2, 186),
    ],
)
def test_plan_is_within_15_percent_of_what_a_training_took(
    config: Path,
    changes: list[str],
    num_examples: tuple[int, ...],
    workers: int,
    measured_mib: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The measured figures are maxima of the anonymous and shared memory of a control group."""
    monkeypatch.setattr(plan_module, "memory_of_plots", lambda: memory_plan.PLOT_BYTES)
    resolved = read_config(str(config), ["logging.plots=false", *changes])
    splits = {
        name: Split(np.broadcast_to(np.uint8(0), (number, 1, 28, 28)), np.broadcast_to(np.int64(0), number))
        for name, number in zip(SplitName, num_examples, strict=True)
    }
    dataset = SimpleNamespace(splits=splits, memory=None, **{str(name): split for name, split in splits.items()})
    network = Network(resolved.network, (1, 28, 28), 10)
    plan = TrainingPlan(resolved, cast(Dataset, dataset), Normalisation((0.0,), (1.0,)), network)
    total = sum(plan.compute_plan().memory(workers).values()) / MIB
    assert measured_mib * 0.85 <= total <= measured_mib * 1.15


def test_fast_kernels_need_no_memory_for_the_output_of_a_relu() -> None:
    def memory(layers: list[object], kernels: str) -> int:
        mapping = {"data": {"name": "mnist"}, "network": layers, "training": {"epochs": 1, "kernels": kernels}}
        config = parse_config(mapping, source="test")
        return sum(memory_of_processes(config.training, Network(config.network, (3, 64, 64), 10), 2).values())

    conv, last = {"conv": {"filters": 16, "kernel": 3}}, ["flatten", {"dense": {"units": 10}}]
    assert memory([conv, "relu", *last], "fast") == memory([conv, *last], "fast")
    assert memory([conv, "relu", *last], "loops") > memory([conv, *last], "loops")


def test_images_that_are_augmented_and_mixed_are_counted() -> None:
    num_images_of = {
        "training.augment={shift: 1, flip: vertical}": 2,
        "training.mixup={alpha: 1}": 1,
        "training={augment: {flip: vertical}, cutmix: {alpha: 1}}": 3,
    }

    def private_bytes(*overrides: str) -> int:
        config = read_config(ROOT / "configs" / "cifar10.yaml", overrides)
        network = Network(config.network, (3, 32, 32), 10)
        return memory_plan.memory_of_processes(config.training, network, 0)["0 workers"]

    for override, num_images in num_images_of.items():
        none = "training.augment=null"
        config = read_config(ROOT / "configs" / "cifar10.yaml")
        num_examples = memory_plan.examples_per_call(config.training.tile, Network(config.network, (3, 32, 32), 10))
        assert private_bytes(none, override) - private_bytes(none) == num_images * num_examples * 3 * 32 * 32 * 4
