"""Measure partrain against PyTorch on this machine, in alternation, and print the ratios as a table.

    python tests/benchmarks/compare_with_pytorch.py [--rounds 3] [--only WORDS]

PyTorch gets an environment of its own in a temporary folder (`pip install torch==2.13.0 numpy`), unless
`--torch-python` names one. Both sides compute on the same number of processors. A ratio is the median over the
rounds of (PyTorch's seconds an example / partrain's), each pair measured one right after the other. A pair is disturbed
if a side took more than 1.5 times as long as its best: it is measured again and does not count. OPENBLAS_CORETYPE is
taken out of the environment for both sides. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TORCH = "torch==2.13.0"
# A pair in which a side takes this many times its best is measured again; so many pairs for a round at most.
DISTURBED = 1.5
MOST_TRIES = 4


@dataclass(frozen=True)
class Row:
    """One line of the table: a configuration, and how both sides run it."""

    name: str
    config: Path
    shape: tuple[int, int, int]
    bar: float
    workers: int = 2
    processes: int = 1
    batch_size: int = 32
    steps: int = 1000
    torch_steps: int = 300
    variants: tuple[str, ...] = ("eager",)  # of PyTorch; the fastest counts
    group_norm: bool = False  # in place of batch_norm, on both sides


CONFIGS = ROOT / "configs"
OWN = HERE / "configs"
DIGIT = (1, 28, 28)
MODERN: dict[str, Any] = {"steps": 60, "torch_steps": 30, "variants": ("eager", "channels_last", "compile")}
# The configurations that train on random images.
WITH_RANDOM_IMAGES = ("three-channels.yaml", "cifar10-resnet.yaml", "batch-norm.yaml", "depthwise-separable.yaml")
ROWS = (
    Row("mnist.yaml, against one process with 2 threads", CONFIGS / "mnist.yaml", DIGIT, 3.5, steps=3126),
    Row("mnist.yaml, against DDP with 2 processes", CONFIGS / "mnist.yaml", DIGIT, 6, processes=2, steps=3126),
    Row(
        "mnist.yaml, 8 workers against DDP with 8",
        CONFIGS / "mnist.yaml",
        DIGIT,
        20,
        workers=8,
        processes=8,
        steps=3126,
        torch_steps=60,
    ),
    Row("mnist.yaml, batch 256", CONFIGS / "mnist.yaml", DIGIT, 2.5, batch_size=256, torch_steps=60),
    Row("lenet5.yaml", CONFIGS / "lenet5.yaml", DIGIT, 2),
    Row("conv 32@3x3, conv 64@3x3, pool, dense 128", OWN / "two-large-convolutions.yaml", DIGIT, 1.2, torch_steps=60),
    Row("3x32x32, three convolutions", OWN / "three-channels.yaml", (3, 32, 32), 1.0, torch_steps=60),
    Row("784-512-512-10, dense only", OWN / "dense-only.yaml", DIGIT, 1.0),
    Row("3x32x32, ResNet-20, batch norm", CONFIGS / "cifar10-resnet.yaml", (3, 32, 32), 1.5, **MODERN),
    Row("3x32x32, ResNet-20, group norm", CONFIGS / "cifar10-resnet.yaml", (3, 32, 32), 2, group_norm=True, **MODERN),
    Row("3x64x64, conv 32-64-128, batch norm", OWN / "batch-norm.yaml", (3, 64, 64), 1.5, **MODERN),
    Row("3x64x64, depthwise separable blocks", OWN / "depthwise-separable.yaml", (3, 64, 64), 2, **MODERN),
)
# The rows that need no PyTorch.
ALONE = "partrain alone"


def run_partrain(config: Path, workers: int, folder: Path, *settings: str) -> tuple[dict[str, Any], float]:
    """Train; return the run's summary and the seconds of the whole command."""
    command = [sys.executable, "-m", "partrain", "--config", str(config), "--workers", str(workers), "-q"]
    # PyTorch's part draws no pictures either.
    settings = ("logging.plots=false", *settings)
    command += ["--runs-dir", str(folder / "runs"), *(word for value in settings for word in ("--set", value))]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment(folder))
    seconds = time.perf_counter() - started
    return json.loads((Path(done.stdout.strip()) / "summary.json").read_text()), seconds


def run_torch(python: str, row: Row, variant: str, folder: Path) -> float:
    """Train with PyTorch; return the seconds an example."""
    job = {
        "network": yaml.safe_load(config_of(row, folder).read_text())["network"],
        "shape": row.shape,
        "variant": variant,
        "processes": row.processes,
        "threads": 2 if row.processes == 1 else 1,
        "batch_size": row.batch_size,
        "warm_up": 10,
        "steps": row.torch_steps,
        "rendezvous": str(folder / f"rendezvous-{time.monotonic_ns()}"),
    }
    command = [python, str(HERE / "pytorch_training.py"), json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment(folder))
    seconds = json.loads(done.stdout.splitlines()[-1])["seconds"]
    return float(seconds) / (row.torch_steps * row.batch_size)


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of both sides."""
    left_out = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
    return {name: value for name, value in os.environ.items() if name not in left_out}


def settings_of(row: Row, folder: Path) -> list[str]:
    """Return the values to set for a row: its batch and length, and no evaluation in between."""
    settings = [f"training.batch_size={row.batch_size}", "training.epochs=1000", f"training.max_steps={row.steps}"]
    if row.config.name in WITH_RANDOM_IMAGES:
        path = make_images(folder, row.shape)
        data = f"data={{name: arrays, path: {path}, train_examples: 5000, validation_examples: 0}}"
        recipe = ("optimizer={name: adam, lr: 0.001}", "schedule={name: constant}", "augment=null")
        settings += [data, *(f"training.{setting}" for setting in recipe)]
    return settings


def config_of(row: Row, folder: Path) -> Path:
    """Return the configuration of both sides."""
    if not row.group_norm:
        return row.config
    path = folder / row.config.name
    path.write_text(row.config.read_text().replace("- batch_norm", "- group_norm: {groups: 8}"))
    return path


def make_images(folder: Path, shape: tuple[int, int, int]) -> Path:
    """Write random images of ten classes, each class with a mean of its own, so that there is something to learn."""
    path = folder / f"images-{'-'.join(map(str, shape))}.npz"
    if not path.exists():
        rng = np.random.default_rng(0)
        arrays = {}
        for split, num in (("train", 5000), ("test", 500)):
            labels = rng.integers(0, 10, num)
            noise = rng.integers(0, 128, (num, *shape))
            bright = rng.integers(0, 2, (10, *shape)) if split == "train" else bright  # noqa: F821
            arrays[f"{split}_images"] = (noise + 100 * bright[labels]).astype(np.uint8)
            arrays[f"{split}_labels"] = labels
        np.savez(path, **arrays)
    return path


def measure_pair(row: Row, python: str, folder: Path) -> tuple[float, float]:
    """Measure both sides, one right after the other; return the seconds an example of partrain and of PyTorch."""
    summary, _ = run_partrain(config_of(row, folder), row.workers, folder, *settings_of(row, folder))
    theirs = min(run_torch(python, row, variant, folder) for variant in row.variants)
    return summary["train_seconds"] / summary["examples"], theirs


def undisturbed(pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the pairs of which neither side took much longer than its own best.

    PyTorch's two spinning threads collapse if anything else runs, and such a pair proves nothing.
    """
    best = [min(side) for side in zip(*pairs, strict=True)]
    return [pair for pair in pairs if all(a <= DISTURBED * b for a, b in zip(pair, best, strict=True))]


def compare(row: Row, python: str, rounds: int, folder: Path) -> str:
    """Measure pairs until enough are undisturbed, or too many are not; return the line of the table."""
    pairs = [measure_pair(row, python, folder) for _ in range(rounds)]
    while len(undisturbed(pairs)) < rounds and len(pairs) < MOST_TRIES * rounds:
        pairs.append(measure_pair(row, python, folder))
    good = undisturbed(pairs)
    ratio = statistics.median(theirs / ours for ours, theirs in good)
    sides = [[1e6 * seconds for seconds in side] for side in zip(*good, strict=True)]
    us = " | ".join(f"{min(side):.1f} | {statistics.median(side):.1f}" for side in sides)
    return f"| {row.name} | {us} | **{ratio:.1f}** | {row.bar:g} | {len(pairs) - len(good)} of {len(pairs)} |"


def compare_with_itself(rounds: int, folder: Path) -> list[str]:
    """Measure the rows of the table that need no PyTorch."""
    config = CONFIGS / "mnist.yaml"
    seconds: dict[int, list[float]] = {0: [], 1: [], 2: [], 8: []}
    memory = 0.0
    for _ in range(rounds):
        for workers, values in seconds.items():
            summary, _ = run_partrain(config, workers, folder)
            values.append(summary["train_seconds"])
            if workers == 8:
                memory = max(memory, summary["peak_memory_bytes"] / 2**20)
    short = ("training.max_steps=1", "data.validation_examples=0")
    starts = []
    for _ in range(rounds):
        summary, whole = run_partrain(config, 2, folder, *short)
        starts.append(whole - summary["evaluation_seconds"])
    os.environ["XDG_CACHE_HOME"] = str(folder / "empty-cache")
    summary, whole = run_partrain(config, 2, folder, *short)
    eight_to_two = statistics.median(a / b for a, b in zip(seconds[8], seconds[2], strict=True))
    one_to_none = statistics.median(a / b for a, b in zip(seconds[1], seconds[0], strict=True))
    return [
        f"| two epochs of mnist.yaml, 2 workers | {statistics.median(seconds[2]):.2f} s of steps |",
        f"| 8 workers against 2 | {eight_to_two:.2f} times as long (bar: 1.25) |",
        f"| 1 worker against none | {one_to_none:.2f} times as long (bar: 1.15) |",
        f"| memory of all processes (PSS), 8 workers | {memory:.0f} MiB (bar: 280) |",
        f"| command to first step and end, kernels cached | {statistics.median(starts):.2f} s (bar: 1.0) |",
        f"| the same, kernels compiled | {whole - summary['evaluation_seconds']:.1f} s (bar: 25) |",
    ]


def torch_python(given: str | None, folder: Path) -> str:
    """Return a Python that has torch; install it into a temporary environment if none is given."""
    if given is not None:
        return given
    subprocess.run([sys.executable, "-m", "venv", str(folder / "torch")], check=True)
    python = str(folder / "torch" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", TORCH, "numpy"], check=True)
    return python


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help=f"measure only rows whose name holds this, or {ALONE!r}")
    parser.add_argument("--torch-python", help="a Python that has torch")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} processors, {TORCH}, {options.rounds} rounds\n")
        if rows := [row for row in ROWS if options.only in row.name]:
            python = torch_python(options.torch_python, folder)
            print(
                "| work | partrain, µs an example: best | median | PyTorch: best | median | ratio | bar | disturbed |"
            )
            print("|---|---|---|---|---|---|---|---|")
        for row in rows:
            print(compare(row, python, options.rounds, folder), flush=True)
        if options.only in ALONE:
            print(f"\n| {ALONE} | |\n|---|---|")
            print("\n".join(compare_with_itself(options.rounds, folder)))


if __name__ == "__main__":
    main()
