"""Many predictions of one run, and many trainings in one process."""

from __future__ import annotations

import gc
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import partrain
from partrain.analysis import trained_run
from partrain.store.checkpoint import Checkpoint
from tests.noise_data import noise_examples

NETWORK = ["flatten", {"dense": {"units": 10}}]
PLAIN: dict[str, Any] = {"epochs": 1, "batch_size": 20}
PRIVATE = PLAIN | {"per_example": {"clip": 1.0}, "privacy": {"noise_multiplier": 1.0, "delta": 1e-4}}
BRANCHES: list[Any] = [
    {"conv": {"filters": 4, "kernel": 3, "stride": 2}},
    {"residual": {"body": [{"group_norm": {"groups": 2}}, {"conv": {"filters": 4, "kernel": 3, "padding": 1}}]}},
    {
        "residual": {
            "body": ["relu", {"residual": {"body": ["gelu"]}}],
            "shortcut": [{"conv": {"filters": 4, "kernel": 1}}],
        }
    },
    "global_avg_pool",
    {"dense": {"units": 10}},
]
IMAGES, LABELS = noise_examples(60)


def train(
    path: Path, workers: int = 0, training: dict[str, Any] = PLAIN, seed: int = 0, network: list[Any] = NETWORK
) -> partrain.Run:
    config = {"network": network, "training": training, "seed": seed, "logging": {"plots": False}}
    return partrain.train(config, data=(IMAGES, LABELS), workers=workers, run_dir=path, quiet=True)


@pytest.fixture
def num_reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list that receives the checkpoint of each reading."""
    reads: list[Path] = []
    newest = trained_run.newest_checkpoint

    def newest_checkpoint(*arguments: Any) -> tuple[Checkpoint, Path]:
        found = newest(*arguments)
        reads.append(found[1])
        return found

    monkeypatch.setattr(trained_run, "newest_checkpoint", newest_checkpoint)
    return reads


def test_predictions_read_the_checkpoint_once(tmp_path: Path, num_reads: list[Path]) -> None:
    run = partrain.open_run(train(tmp_path / "run").path)
    expected = run.predict_proba(IMAGES)
    for _ in range(3):
        assert np.array_equal(run.predict_proba(IMAGES), expected)
        assert run.class_names
    assert len(num_reads) == 1
    assert np.array_equal(pickle.loads(pickle.dumps(run)).predict_proba(IMAGES), expected)


def test_predictions_notice_each_change_of_the_files(tmp_path: Path) -> None:
    run = train(tmp_path / "run")
    before = run.predict_proba(IMAGES)
    (file,) = (run.path / "checkpoints").iterdir()
    other = train(tmp_path / "other", seed=1)
    expected = other.predict_proba(IMAGES)
    assert not np.array_equal(before, expected)
    # Another file of the same size, with the same times, in place of the first.
    status = file.stat()
    shutil.copy(other.path / "checkpoints" / file.name, tmp_path / "new")
    os.utime(tmp_path / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(tmp_path / "new", file)
    assert np.array_equal(run.predict_proba(IMAGES), expected)
    file.unlink()
    with pytest.raises(partrain.errors.RunError, match="has no checkpoint"):
        run.predict_proba(IMAGES)


def test_resumed_training_is_noticed(tmp_path: Path) -> None:
    run = train(tmp_path / "run")
    before = run.predict_proba(IMAGES)
    run.resume(epochs=3, workers=0)
    assert not np.array_equal(run.predict_proba(IMAGES), before)


@pytest.fixture
def _without_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def num_shared_mappings() -> int:
    return Path("/proc/self/maps").read_text().count("memfd")


@pytest.mark.usefixtures("_without_garbage_collection")
@pytest.mark.parametrize(
    ("training", "network"),
    [(PLAIN, NETWORK), (PRIVATE, NETWORK), (PLAIN, BRANCHES)],
    ids=["plain", "private", "with branches"],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_training_frees_the_data_when_it_ends(
    tmp_path: Path, workers: int, training: dict[str, Any], network: list[Any]
) -> None:
    before = num_shared_mappings()
    for number in range(2):
        train(tmp_path / str(number), workers, training, network=network)
        assert num_shared_mappings() == before
