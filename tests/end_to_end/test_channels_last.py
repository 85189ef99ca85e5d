"""Training on arrays with the channels last."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.noise_data import noise_examples
from tests.program import Result
from tests.small_run import write_small_config

Call = Callable[..., Result]
NETWORK: list[Any] = [{"conv": {"filters": 2, "kernel": 3}}, "relu", "flatten", {"dense": {"units": 10}}]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partrain.data.measurement_cache.user_cache_directory", lambda: tmp_path / "cache")


@pytest.fixture
def directories(tmp_path: Path) -> dict[str, Path]:
    """The same examples as directories of arrays, with the channels first and last."""
    images, labels = noise_examples(240, size=8)
    images = images.reshape(80, 3, 8, 8).astype(np.float32)
    for name, axes in (("channels_first", (0, 1, 2, 3)), ("channels_last", (0, 2, 3, 1))):
        (tmp_path / name).mkdir()
        for split, part in (("train", slice(60)), ("test", slice(60, 80))):
            np.save(tmp_path / name / f"{split}_images.npy", np.ascontiguousarray(images[part].transpose(axes)))
            np.save(tmp_path / name / f"{split}_labels.npy", labels[part])
    return {name: tmp_path / name for name in ("channels_first", "channels_last")}


def config_for(tmp_path: Path, path: Path, **keys: Any) -> Path:
    data = {"name": "arrays", "path": str(path), **keys}
    return write_small_config(tmp_path, {"data": data, "network": NETWORK, "training.epochs": 2})


def result_of(run: Path) -> Any:
    summary = json.loads((run / "summary.json").read_text())
    return [summary[key] for key in ("parameters_sha256", "test", "best")]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_arrays_with_the_channels_last_train_to_the_bits_of_those_with_the_axis_moved(
    call_partrain: Call,
    tmp_path: Path,
    directories: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    results = []
    for run, (layout, streamed_bytes) in enumerate(
        [("channels_first", 10**9), ("channels_last", 10**9), ("channels_last", 1)]
    ):
        monkeypatch.setattr("partrain.data.mapped_arrays.STREAMED_BYTES", streamed_bytes)
        config = config_for(tmp_path, directories[layout], layout=layout)
        result = call_partrain("--config", config, "--workers", workers, "--run-dir", tmp_path / f"{run}", "-q")
        assert result.exit_code == 0, result.stderr
        evaluated = call_partrain("evaluate", tmp_path / f"{run}", "--workers", workers, "--json", "-q")
        results.append((result_of(result.run), json.loads(evaluated.stdout)["accuracy"]))
    assert results[0] == results[1] == results[2]


def test_run_older_than_the_layout_goes_on_with_the_axes_it_began_with(
    call_partrain: Call, tmp_path: Path, directories: dict[str, Path]
) -> None:
    config = config_for(tmp_path, directories["channels_last"])
    refused = call_partrain("--config", config, "--run-dir", tmp_path / "run", "-q")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "which looks like (examples, rows, columns, channels)" in refused.stderr
    override = ("--set", "data.layout=channels_first")
    run = call_partrain("--config", config, "--run-dir", tmp_path / "run", "--workers", 0, "-q", *override).run
    stored = yaml.safe_load((run / "config.yaml").read_text())
    del stored["data"]["layout"]
    (run / "config.yaml").write_text(yaml.safe_dump(stored))
    assert "layout" not in json.loads((run / "run.json").read_text())["identity"]["data"]
    resumed = call_partrain("resume", run, "--epochs", 3, "--workers", 0, "-q")
    assert resumed.exit_code == 0, resumed.stderr
    assert call_partrain("evaluate", run, "--workers", 0, "-q").exit_code == 0
