"""Contract C1: the same bits, whatever the number of workers, whatever BLAS believes the processor to be."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.noise_data import write_idx_folder
from tests.processes import wait_until
from tests.program import ROOT, PartrainProcess, Result
from tests.small_run import ENDLESS

Split = tuple[NDArray[np.uint8], NDArray[np.uint8]]
HASWELL = {"OPENBLAS_CORETYPE": "Haswell"}
HASWELL_RUNS = 2
MNIST, LENET5 = ROOT / "configs/mnist.yaml", ROOT / "configs/lenet5.yaml"

# Two epochs, each with images and masks of its own.
RANDOM = [
    "training.augment={shift: [2, 1.5], rotation: 10, scale: 0.1, elastic: {alpha: 20, sigma: 4}}",
    "network=[dropout: {rate: 0.1}, conv: {filters: 4, kernel: 5}, dropout: {rate: 0.2}, relu, max_pool: {window: 2}, "
    "flatten, dropout: {rate: 0.3}, dense: {units: 20}, relu, dropout: {rate: 0.5}, dense: {units: 10}]",
]

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
    "augmentation and dropout in loops": (MNIST, [*RANDOM, "training.kernels=loops", "training.tile=7"], (0, 3)),
    "loops": (MNIST, ["training.kernels=loops"], (0, 2, 5)),
    "float64": (MNIST, ["training.kernels=loops", "training.dtype=float64"], (0, 2, 5)),
}


@pytest.fixture(scope="module")
def digits() -> tuple[Split, Split]:
    """500 training and 100 test examples: of MNIST where it is on this machine, else drawn."""
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


class Runs:
    """Runs the program several times, two at once, and reads what came of it."""

    def __init__(self, start: Callable[..., PartrainProcess]) -> None:
        self._start = start

    def make(self, jobs: dict[Any, tuple[list[object], dict[str, str]]]) -> dict[Any, Path]:
        """Return the runs' directories by job; a job is a command line and an environment."""
        with ThreadPoolExecutor(2) as pool:
            waits = {key: pool.submit(self._run, words, env) for key, (words, env) in jobs.items()}
            return {key: wait.result().run for key, wait in waits.items()}

    def _run(self, words: list[object], env: dict[str, str]) -> Result:
        return self._start(*words, "-q", env=env).wait()


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    def start(*words: object, env: dict[str, str]) -> PartrainProcess:
        folder = tmp_path / f"run-{len(started)}"
        started.append(folder)
        folder.mkdir()
        return PartrainProcess([str(word) for word in words], folder, env)

    started: list[Path] = []
    return Runs(start)


def summary_of(run: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return summary


def metrics_of(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("time_s", "examples_per_s")} for row in rows]


def digests(made: dict[Any, Path]) -> dict[str, list[Any]]:
    """Return which runs came to which parameters: one entry, if all came to the same."""
    by_digest: dict[str, list[Any]] = {}
    for key, run in made.items():
        by_digest.setdefault(summary_of(run)["parameters_sha256"], []).append(key)
    return by_digest


def last_checkpoint(run: Path) -> bytes:
    path = max((run / "checkpoints").glob("step-*.safetensors"))
    assert path.name == "step-00000006.safetensors"
    return path.read_bytes()


@pytest.mark.parametrize("case", CASES)
def test_number_of_workers_and_kind_of_blas_change_no_bit(
    case: str, runs: Runs, idx_folder: Path, tmp_path: Path
) -> None:
    config, changes, all_numbers = CASES[case]
    jobs: dict[Any, tuple[list[object], dict[str, str]]] = {}
    # No kernel uses BLAS, so a few numbers of workers stand for all where BLAS sees another processor.
    for blas, env, numbers in (("", {}, all_numbers), ("Haswell", HASWELL, all_numbers[-HASWELL_RUNS:])):
        for n in numbers:
            where = tmp_path / f"{blas}-{n}"
            words = ["--config", config, "--workers", n, "--run-dir", where]
            jobs[n, blas] = ([*words, *options("idx", idx_folder, *changes)], dict(env))
    made = runs.make(jobs)
    assert len(digests(made)) == 1, digests(made)
    expected_metrics, expected_bytes = (f(made[0, ""]) for f in (metrics_of, last_checkpoint))
    assert [row["step"] for row in expected_metrics if "train/loss" in row] == [1, 2, 3, 4, 5, 6]
    for run in made.values():
        assert metrics_of(run) == expected_metrics
        assert last_checkpoint(run) == expected_bytes
        summary = summary_of(run)
        assert summary["test"] == summary_of(made[0, ""])["test"]
        assert summary["best"] == summary_of(made[0, ""])["best"]


def test_arrays_train_to_the_same_bits_from_an_archive_and_from_mapped_files(
    runs: Runs, tmp_path: Path, digits: tuple[Split, Split]
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
    jobs: dict[Any, tuple[list[object], dict[str, str]]] = {}
    for source in ("data.npz", "data"):
        for n, env in ((0, {}), (3, {}), (8, HASWELL)):
            words = ["--config", LENET5, "--workers", n, "--run-dir", tmp_path / f"{source}-{n}-run"]
            jobs[source, n] = ([*words, *options("arrays", tmp_path / source)], dict(env))
    made = runs.make(jobs)
    assert len(digests(made)) == 1, digests(made)
    expected = metrics_of(made["data", 0])
    assert all(metrics_of(run) == expected for run in made.values())


def test_training_again_from_a_runs_own_configuration_has_its_bits(
    runs: Runs, idx_folder: Path, tmp_path: Path
) -> None:
    words: list[object] = ["--config", MNIST, "--workers", 3, "--run-dir", tmp_path / "first"]
    words += options("idx", idx_folder, "training.schedule.warmup_steps=2", "seed=5")
    first = runs.make({1: (words, {})})[1]
    words = ["--config", first / "config.yaml", "--workers", 2, "--run-dir", tmp_path / "second"]
    second = runs.make({2: (words, {})})[2]
    assert summary_of(second)["parameters_sha256"] == summary_of(first)["parameters_sha256"]
    assert last_checkpoint(second) == last_checkpoint(first)
    assert (second / "config.yaml").read_bytes() == (first / "config.yaml").read_bytes()


def test_another_seed_has_other_bits(runs: Runs, idx_folder: Path, tmp_path: Path) -> None:
    jobs: dict[Any, tuple[list[object], dict[str, str]]] = {}
    for seed in (0, 1):
        words: list[object] = ["--config", MNIST, "--workers", 2, "--run-dir", tmp_path / f"{seed}"]
        jobs[seed] = ([*words, *options("idx", idx_folder, f"seed={seed}")], {})
    assert len(digests(runs.make(jobs))) == 2


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
