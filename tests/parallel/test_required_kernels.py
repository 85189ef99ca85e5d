from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import partrain
from partrain.config.reader import parse_config
from partrain.kernels.compiler.loading import load
from partrain.network.network import Network
from partrain.network.normalisation import Normalisation
from partrain.parallel.compute_plan import ComputePlan
from partrain.parallel.required_kernels import required_kernels
from tests.small_run import SMALL_CONFIG, write_small_config

BOTH = pytest.mark.parametrize("kernels", ["fast", "loops"])
LAYERS: list[Any] = SMALL_CONFIG["network"]
DROPOUT = {"dropout": {"rate": 0.5}}


def plan_of(
    kernels: str, network: list[Any], *, trains: bool = True, augments: bool = False, **settings: Any
) -> ComputePlan:
    training = {"kernels": kernels, "augment": {"shift": 2} if augments else None} | settings
    mapping = {"data": {"name": "synthetic-digits"}, "network": network, "training": training}
    config = parse_config(mapping, source="test")
    built = Network(config.network, (1, 28, 28), 10)
    return ComputePlan(
        "the test", built, config.training, Normalisation((0.0,), (1.0,)), splits={}, exchange={}, trains=trains
    )


def modules_of(plan: ComputePlan, num_workers: int = 0) -> set[str]:
    """Return the files of the kernels that the coordinator must load."""
    names = (kernel.py_func.__module__ for kernel in required_kernels(plan, num_workers))  # type: ignore[attr-defined]
    return {name.removeprefix("partrain.kernels.").removeprefix("eight_lanes.") for name in names}


@BOTH
def test_only_networks_with_dropout_load_its_kernels(kernels: str) -> None:
    assert "dropout" not in modules_of(plan_of(kernels, LAYERS))
    assert "dropout" in modules_of(plan_of(kernels, [*LAYERS[:-1], DROPOUT, LAYERS[-1]]))


@BOTH
def test_only_trainings_with_augmentation_load_its_kernel(kernels: str) -> None:
    assert "augmentation" not in modules_of(plan_of(kernels, LAYERS))
    assert "augmentation" in modules_of(plan_of(kernels, LAYERS, augments=True))
    assert "augmentation" not in modules_of(plan_of(kernels, LAYERS, augments=True, trains=False))


OWN_KERNELS: dict[str, dict[str, Any]] = {
    "pixel_changes": {"augment": {"flip": "vertical"}},
    "augmentation": {"augment": {"scale": 0.1}},
    "loops_loss": {"label_smoothing": 0.1},
    "mixing": {"cutmix": {"alpha": 1}},
    "gaussian_noise": {
        "per_example": {"clip": 1.0},
        "privacy": {"noise_multiplier": 1.0, "delta": 1e-5},
    },
}


@BOTH
@pytest.mark.parametrize("module", OWN_KERNELS)
def test_a_training_loads_kernels_that_only_some_need_if_it_needs_them(kernels: str, module: str) -> None:
    others = set(OWN_KERNELS) - {module} - ({"loops_loss"} if module == "mixing" else set())
    loaded = modules_of(plan_of(kernels, LAYERS, **OWN_KERNELS[module]))
    assert module in loaded
    assert not others & loaded


def test_network_without_convolutions_loads_none_of_their_kernels() -> None:
    assert "convolution" in modules_of(plan_of("fast", LAYERS))
    assert not {name for name in modules_of(plan_of("fast", LAYERS[-2:])) if name.startswith("convolution")}


@BOTH
def test_an_evaluation_loads_no_kernels_of_the_update(kernels: str) -> None:
    training, evaluation = (set(required_kernels(plan_of(kernels, LAYERS, trains=trains), 0)) for trains in (1, 0))
    names = {kernel.py_func.__name__ for kernel in training - evaluation}  # type: ignore[attr-defined]
    assert {"adam_update", "sum_slots", "dense_backward_weights"} <= names
    assert evaluation < training


@BOTH
def test_kernels_of_workers_are_loaded_only_if_they_must_be_compiled(
    kernels: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = plan_of(kernels, LAYERS)
    load(required_kernels(plan, 0), "float32")
    load(required_kernels(plan, 1, computes_here=True), "float32")
    alone, with_workers = set(required_kernels(plan, 0)), set(required_kernels(plan, 1))
    assert with_workers < set(required_kernels(plan, 1, computes_here=True))
    assert with_workers - alone  # the mailboxes
    assert alone - with_workers  # the network


# Trains with one process after the other, each with only the kernels that it loads; a call of another one is an error.
TRAIN_IN_FORKS = """
import os, sys
from partrain.interface.command_line import main
import partrain.parallel.required_kernels

for config in sys.argv[1:]:
    if os.fork() == 0:
        os._exit(main(["--config", config, "--workers", "0", "-q"]))
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0, config
"""

TRAININGS: dict[str, dict[str, Any]] = {
    "every layer in its own stage": {
        "network": [
            "relu",
            {"max_pool": {"window": 2}},
            {"dropout": {"rate": 0.1}},
            {"conv": {"filters": 2, "kernel": 3, "padding": 1}},
            {"dropout": {"rate": 0.1}},
            "relu",
            "flatten",
            {"dropout": {"rate": 0.1}},
            "relu",
            {"dense": {"units": 10}},
        ]
    },
    "a convolution alone": {"network": [{"conv": {"filters": 10, "kernel": 28}}, "flatten"]},
    "a dense layer alone": {"network": ["flatten", {"dense": {"units": 10}}]},
    "statistics and clipping": {"training.per_example": {"statistics": True, "clip": 1.0}},
    "augmentation": {"training.augment": {"shift": 2, "elastic": {"alpha": 20, "sigma": 4}}},
    "changes of pixels": {"training.augment": {"crop": {"padding": 2}, "erase": {}}},
    "smoothed targets": {"training.label_smoothing": 0.1},
    "mixed examples": {"training.mixup": {"alpha": 1}, "training.augment": {"shift": 1, "flip": "horizontal"}},
    "privacy": {
        "training.per_example": {"clip": 1.0},
        "training.privacy": {"noise_multiplier": 1.0, "delta": 1e-5, "source": "seeded"},
    },
}


@pytest.mark.slow
@BOTH
def test_trainings_call_no_kernel_that_they_did_not_load(kernels: str, tmp_path: Path) -> None:
    configs = []
    for number, changes in enumerate(TRAININGS.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        changes = {"training.max_steps": 2, "training.kernels": kernels} | changes
        configs.append(str(write_small_config(folder, changes)))
    environment = os.environ | {"PYTHONPATH": str(Path(partrain.__file__).parents[1])}
    ended = subprocess.run(
        [sys.executable, "-c", TRAIN_IN_FORKS, *configs],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr
