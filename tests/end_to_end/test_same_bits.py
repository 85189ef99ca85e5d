"""Contract C1: the number of workers changes no bit."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.noise_data import write_idx_folder
from tests.processes import wait_until
from tests.program import ROOT, PartrainProcess
from tests.small_run import ENDLESS
from tests.whole_runs import rows_of

MakeRun = Callable[..., Path]
Split = tuple[NDArray[np.uint8], NDArray[np.uint8]]
MNIST, LENET5 = ROOT / "configs/mnist.yaml", ROOT / "configs/lenet5.yaml"

# Two epochs, each with images and masks of its own.
RANDOM = [
    "training.augment={shift: [2, 1.5], rotation: 10, scale: 0.1, elastic: {alpha: 20, sigma: 4}}",
    "network=[dropout: {rate: 0.1}, conv: {filters: 4, kernel: 5}, dropout: {rate: 0.2}, relu, max_pool: {window: 2}, "
    "flatten, dropout: {rate: 0.3}, dense: {units: 20}, relu, dropout: {rate: 0.5}, dense: {units: 10}]",
]
MIXED = [
    "training.label_smoothing=0.1",
    "training.mixup={alpha: 0.3}",
    "training.cutmix={alpha: 1, probability: 0.25}",
    "training.augment={crop: {padding: 3}, flip: both, erase: {}, brightness: 0.3, contrast: 0.2, rotation: 5}",
]

# Branches, every activation, and a normalisation of each kind; NORM stands for one that single examples may have.
_BRANCHES = (
    "network=[conv: {filters: 6, kernel: 3, stride: 2}, NORM, relu, residual: {body: [conv: {filters: 6, kernel: 3, "
    "padding: 1}, NORM, gelu, residual: {body: [silu, conv: {filters: 6, kernel: 1}]}]}, relu, residual: {body: "
    "[conv: {filters: 9, kernel: 3, stride: 2, padding: 1}, NORM], shortcut: [conv: {filters: 9, kernel: 1, "
    "stride: 2}]}, leaky_relu, dropout: {rate: 0.1}, layer_norm, flatten, dense: {units: 12}, NORM, tanh, "
    "dense: {units: 10}, sigmoid, dense: {units: 10}]"
)
BATCH_NORM, GROUP_NORM = (_BRANCHES.replace("NORM", norm) for norm in ("batch_norm", "group_norm: {groups: 3}"))

# name: configuration, changes, numbers of workers
CASES: dict[str, tuple[Path, list[str], tuple[int, ...]]] = {
    "mnist": (MNIST, [], (0, 1, 2, 3, 5, 8)),
    "a batch that no number of workers divides": (
        MNIST,
        ["training.batch_size=50", "training.tile=7"],
        (0, 3, 5, 8),
    ),
    "class weights": (MNIST, ["training.class_weights=balanced"], (0, 3)),
    "lenet5": (LENET5, [], (0, 3, 8)),
    "clipped, with statistics": (
        MNIST,
        ["training.per_example.clip=1", "training.per_example.statistics=true", "training.tile=7"],
        (0, 3, 8),
    ),
    "augmentation and dropout": (MNIST, RANDOM, (0, 1, 2, 3, 8)),
    "mixed and smoothed": (MNIST, MIXED, (0, 1, 2, 3, 8)),
    "mixed and clipped in float64": (
        MNIST,
        [*MIXED, "training.kernels=loops", "training.dtype=float64", "training.per_example.clip=1", "training.tile=7"],
        (0, 3),
    ),
    "all of it at once": (
        MNIST,
        [*RANDOM, "training.class_weights=balanced", "training.per_example.clip=1", "training.tile=7"],
        (0, 3),
    ),
    "private, of seeded noise": (
        MNIST,
        [
            *RANDOM,
            "training.per_example={clip: 1, statistics: true}",
            "training.privacy={noise_multiplier: 1, delta: 1.0e-4, source: seeded, max_batch_size: 35}",
        ],
        (0, 3, 8),
    ),
    "batch normalisation, branches, activations": (MNIST, [BATCH_NORM], (0, 1, 2, 3, 8)),
    "batch normalisation in tiles that cut no batch evenly": (MNIST, [BATCH_NORM, "training.tile=7"], (0, 3)),
    "group normalisation, clipped, with statistics": (
        MNIST,
        [GROUP_NORM, "training.per_example={clip: 1, statistics: true}"],
        (0, 3),
    ),
    "batch normalisation in loops": (MNIST, [BATCH_NORM, "training.kernels=loops"], (0, 3)),
    "augmentation and dropout in loops": (MNIST, [*RANDOM, "training.kernels=loops", "training.tile=7"], (0, 3)),
    "loops": (MNIST, ["training.kernels=loops"], (0, 2, 5)),
    "float64": (MNIST, ["training.kernels=loops", "training.dtype=float64"], (0, 2, 5)),
}


@pytest.fixture(scope="module")
def digits() -> tuple[Split, Split]:
    """500 training and 100 test examples: of MNIST if this machine has it, else synthetic."""
    folder = Path(os.environ.get("PARTRAIN_DATA_DIR", "/nowhere")) / "mnist"
    if folder.is_dir():

        def read(name: str, header_bytes: int) -> NDArray[np.uint8]:
            with gzip.open(folder / f"{name}-ubyte.gz") as file:
                return np.frombuffer(file.read(header_bytes + 500 * 784), np.uint8, offset=header_bytes)

        train = read("train-images-idx3", 16)[: 500 * 784].reshape(500, 28, 28), read("train-labels-idx1", 8)[:500]
        test = read("t10k-images-idx3", 16)[: 100 * 784].reshape(100, 28, 28), read("t10k-labels-idx1", 8)[:100]
        return train, test
    from partrain.data.synthetic_digits import draw_digits

    drawn = [draw_digits(0, n, seed=0, split=split) for n, split in ((500, "train"), (100, "test"))]
    (train_images, train_labels), (test_images, test_labels) = drawn
    return (
        (train_images.reshape(500, 28, 28), train_labels.astype(np.uint8)),
        (test_images.reshape(100, 28, 28), test_labels.astype(np.uint8)),
    )


@pytest.fixture
def idx_folder(tmp_path: Path, digits: tuple[Split, Split]) -> Path:
    return write_idx_folder(tmp_path / "digits", *digits)


def options(data: str, path: Path, *more: str) -> list[str]:
    """Return `--set` options for 6 steps on these files, the last of them in the middle of an epoch."""
    sizes = ["data.train_examples=140", "data.validation_examples=60", "training.max_steps=6"]
    values = [f"data.name={data}", f"data.path={path}", *sizes, "logging.every_steps=1", "logging.plots=false", *more]
    return [word for value in values for word in ("--set", value)]


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Train with these arguments, in a directory of its own; return the run's directory."""

    def make(*arguments: object) -> Path:
        folder = tmp_path / f"run-{next(numbers)}"
        folder.mkdir()
        words = [*map(str, arguments), "--run-dir", str(folder / "run"), "-q"]
        return PartrainProcess(words, folder).wait().run

    numbers = itertools.count()
    return make


def summary_of(run: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return summary


def digests(made: dict[Any, Path]) -> dict[str, list[Any]]:
    """Return the runs by the digest of their parameters: one entry if all are equal."""
    by_digest: dict[str, list[Any]] = {}
    for key, run in made.items():
        by_digest.setdefault(summary_of(run)["parameters_sha256"], []).append(key)
    return by_digest


def last_checkpoint(run: Path) -> bytes:
    path = max((run / "checkpoints").glob("step-*.safetensors"))
    assert path.name == "step-00000006.safetensors"
    return path.read_bytes()


@pytest.mark.parametrize("case", CASES)
def test_number_of_workers_changes_no_bit(case: str, make_run: MakeRun, idx_folder: Path) -> None:
    config, changes, numbers = CASES[case]
    words = options("idx", idx_folder, *changes)
    made = {n: make_run("--config", config, "--workers", n, *words) for n in numbers}
    assert len(digests(made)) == 1, digests(made)
    expected_metrics, expected_bytes = rows_of(made[0]), last_checkpoint(made[0])
    assert [row["step"] for row in expected_metrics if "train/loss" in row] == [1, 2, 3, 4, 5, 6]
    for run in made.values():
        assert rows_of(run) == expected_metrics
        assert last_checkpoint(run) == expected_bytes
        assert [summary_of(run)[kind] for kind in ("test", "best")] == [
            summary_of(made[0])[k] for k in ("test", "best")
        ]


def test_fresh_interpreter_has_the_bits_of_a_forked_one(make_run: MakeRun, idx_folder: Path, tmp_path: Path) -> None:
    forked = make_run("--config", MNIST, "--workers", 2, *options("idx", idx_folder))
    words = ["--config", str(MNIST), "--workers", "3", "--run-dir", "fresh", "-q", *options("idx", idx_folder)]
    fresh = tmp_path / PartrainProcess(words, tmp_path, fresh=True).wait().run
    assert last_checkpoint(fresh) == last_checkpoint(forked)
    assert rows_of(fresh) == rows_of(forked)


def test_arrays_train_to_the_same_bits_from_an_archive_and_from_mapped_files(
    make_run: MakeRun, tmp_path: Path, digits: tuple[Split, Split]
) -> None:
    arrays: dict[str, NDArray[Any]] = {}
    for split, (images, labels) in zip(("train", "test"), digits, strict=True):
        # Two channels: the image, and its mirror image at half the brightness.
        image = images[:300].astype(np.float32) / 255
        arrays[f"{split}_images"] = np.stack((image, image[..., ::-1] / 2), axis=1)
        arrays[f"{split}_labels"] = labels[:300].astype(np.int64)
    np.savez(tmp_path / "data.npz", **arrays)
    (tmp_path / "data").mkdir()
    for name, array in arrays.items():
        np.save(tmp_path / "data" / f"{name}.npy", array)
    made = {
        (source, n): make_run("--config", LENET5, "--workers", n, *options("arrays", tmp_path / source))
        for source in ("data.npz", "data")
        for n in (0, 3)
    }
    assert len(digests(made)) == 1, digests(made)
    expected = rows_of(made["data", 0])
    assert all(rows_of(run) == expected for run in made.values())


def test_training_again_from_a_runs_own_configuration_has_its_bits(make_run: MakeRun, idx_folder: Path) -> None:
    changes = options("idx", idx_folder, "training.schedule.warmup_steps=2", "seed=5")
    first = make_run("--config", MNIST, "--workers", 3, *changes)
    second = make_run("--config", first / "config.yaml", "--workers", 2)
    assert summary_of(second)["parameters_sha256"] == summary_of(first)["parameters_sha256"]
    assert last_checkpoint(second) == last_checkpoint(first)
    assert (second / "config.yaml").read_bytes() == (first / "config.yaml").read_bytes()


def test_another_seed_has_other_bits(make_run: MakeRun, idx_folder: Path) -> None:
    runs = {
        seed: make_run("--config", MNIST, "--workers", 2, *options("idx", idx_folder, f"seed={seed}"))
        for seed in (0, 1)
    }
    assert len(digests(runs)) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_eight_workers_are_eight_processes_that_all_compute(
    start_partrain: Callable[..., PartrainProcess], small_config: Callable[..., Path]
) -> None:
    config = small_config({**ENDLESS, "training.batch_size": 32, "training.tile": 4})
    process = start_partrain("--config", config, "--workers", 8, "--runs-dir", "runs")
    run = process.wait_for_training()
    workers = {entry.pid: entry.cpu_ticks for entry in process.workers()}
    assert len(workers) == 8

    def all_have_computed() -> bool:
        return all(entry.cpu_ticks > workers[entry.pid] for entry in process.workers())

    wait_until(all_have_computed, "that all workers compute", 60)
    process.send(signal.SIGINT)
    assert process.wait().exit_code == 130
    log = (run / "train.log").read_text()
    tiles = [int(n.replace(",", "")) for n in re.findall(r"worker \d computed ([\d,]+) tiles", log)]
    assert len(tiles) == 8
    assert min(tiles) > 0
