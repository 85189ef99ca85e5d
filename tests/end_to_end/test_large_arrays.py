"""Files of arrays that are larger than memory, or are treated as if they were."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partrain.data.arrays import load_arrays
from partrain.errors import DataError
from partrain.system.messages import Progress
from tests.noise_data import noise_examples
from tests.program import ROOT, Result
from tests.small_run import write_small_config

MIB = 2**20


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep measurements in the test's folder, and kernels where they are."""
    monkeypatch.setattr("partrain.data.measurement_cache.user_cache_directory", lambda: tmp_path / "cache")


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partrain.data.mapped_arrays.STREAMED_BYTES", 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """60 training and 20 test examples as .npy files."""
    folder = tmp_path / "arrays"
    folder.mkdir()
    for split, (images, labels) in (("train", noise_examples(60)), ("test", noise_examples(20, seed=1))):
        np.save(folder / f"{split}_images.npy", images)
        np.save(folder / f"{split}_labels.npy", labels)
    return folder


def write_config(tmp_path: Path, folder: Path, **changes: Any) -> Path:
    data = {"name": "arrays", "path": str(folder), "train_examples": 50, "validation_examples": 10}
    return write_small_config(tmp_path, {"data": data, "training.epochs": 4} | changes)


def summary_of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return content


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "mixup"), [(0, None), (2, None), (2, {"alpha": 1.0})])
def test_examples_that_are_read_as_needed_train_to_the_bits_of_those_in_memory(
    call_partrain: Callable[..., Result],
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    mixup: Any,
) -> None:
    config = write_config(tmp_path, folder, **{"training.mixup": mixup})
    runs = []
    for size in (10**9, 1):
        monkeypatch.setattr("partrain.data.mapped_arrays.STREAMED_BYTES", size)
        result = call_partrain("--config", config, "--workers", workers, "--run-dir", tmp_path / f"run-{size}", "-q")
        runs.append(summary_of(result.run))
        evaluated = call_partrain("evaluate", tmp_path / f"run-{size}", "--workers", workers, "--json", "-q")
        assert json.loads(evaluated.stdout)["accuracy"] == runs[-1]["test"]["accuracy"]
    for name in ("parameters_sha256", "test", "best"):
        assert runs[0][name] == runs[1][name]


@pytest.mark.usefixtures("everything_is_large")
def test_file_is_read_whole_once_and_again_when_it_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_arrays(folder)
    with monkeypatch.context() as patch:
        patch.setattr("partrain.data.dataset.content_digest", pytest.fail)
        assert load_arrays(folder).digest == first.digest
    images = np.load(folder / "train_images.npy")
    images[30, 5, 5] ^= 1
    np.save(folder / "train_images.npy", images)
    assert load_arrays(folder).digest != first.digest


@pytest.mark.usefixtures("everything_is_large")
def test_value_that_is_not_finite_is_found_at_each_start(folder: Path) -> None:
    images = noise_examples(60)[0].astype(np.float32)
    images[3, 0, 0] = np.nan
    np.save(folder / "train_images.npy", images)
    np.save(folder / "test_images.npy", images[:20] * 0)
    for _ in range(2):
        with pytest.raises(DataError, match="the value at \\(3, 0, 0\\) is nan"):
            load_arrays(folder)


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize(("change", "workers"), [("time", 0), ("content", 0), ("cut", 0), ("gone", 0), ("cut", 2)])
def test_file_that_changes_during_training_ends_it_and_nothing_of_it_is_saved(
    call_partrain: Callable[..., Result],
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    workers: int,
) -> None:
    path = folder / "train_images.npy"
    show = Progress.step

    def show_then_change(self: Progress, step: int, *others: Any) -> None:
        show(self, step, *others)
        if step == 5:
            status = path.stat()
            if change == "gone":
                path.unlink()
            elif change == "cut":
                os.truncate(path, 2000)
            elif change == "content":  # with the time put back, as some programs do
                with open(path, "r+b") as file:
                    file.write(b"\x94")
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            else:
                os.utime(path)

    monkeypatch.setattr(Progress, "step", show_then_change)
    settings = {"checkpoints.every_steps": 4, "logging.evaluate_every_epochs": None}
    config = write_config(tmp_path, folder, **settings)
    result = call_partrain("--config", config, "--workers", workers, "--run-dir", tmp_path / "run")
    assert result.exit_code == 1
    message = "cannot be read: No such file" if change == "gone" else "was changed while it was used"
    assert f"{path}: {message}" in result.stderr
    assert "The steps after the last checkpoint were not saved" in result.stderr
    assert "Traceback" not in result.stderr
    saved = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert saved[-1] == "step-00000004.safetensors"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_file_that_is_larger_than_the_memory_it_takes(tmp_path: Path) -> None:
    """Of a training on zeros nothing is to be learnt, and a file of them takes no disk."""
    num = 640 * MIB // 3072
    folder = tmp_path / "arrays"
    folder.mkdir()
    for split, n in (("train", num), ("test", 100)):
        shape = (n, 3, 32, 32)
        np.lib.format.open_memmap(folder / f"{split}_images.npy", mode="w+", dtype=np.uint8, shape=shape)[0] = 7
        np.save(folder / f"{split}_labels.npy", np.arange(n) % 10)
    network = ["flatten", {"dense": {"units": 10}}]
    data = {"name": "arrays", "path": str(folder), "validation_examples": 100}
    config = write_small_config(tmp_path, {"data": data, "network": network, "training.max_steps": 2000})
    program = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-m", "partrain", "--config", str(config), "--workers", "2", "--run-dir", "run", "-q"]
    ended = subprocess.run(
        [sys.executable, "-c", program, *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
        timeout=240,
    )
    # Of all processes together, by what each has for itself and its share of what they have together …
    assert summary_of(tmp_path / "run")["peak_memory_bytes"] < 500 * MIB
    # … and of the largest one at any time, the pages of files among it.
    assert int(ended.stdout.split()[-1]) * 1024 < 500 * MIB
