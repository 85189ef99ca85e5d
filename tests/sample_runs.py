"""Directories of trained runs, written without training: with curves, for tests that compare runs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from partrain.store.checkpoint import Checkpoint
from partrain.store.checkpoint_directory import CheckpointDirectory

CONFIG: dict[str, Any] = {
    "format": 1,
    "name": "sample",
    "seed": 0,
    "data": {"name": "mnist", "path": None},
    "network": ["flatten", {"dense": {"units": 3}}],
    "training": {"epochs": 2, "max_steps": None, "optimizer": {"name": "adam", "lr": 0.01}},
    "logging": {"every_steps": 1},
}


def write_run(
    path: Path,
    *,
    seed: int = 0,
    lr: float = 0.01,
    num_steps: int = 40,
    final_accuracy: float = 0.98,
    status: str = "completed",
    started: str = "2026-11-24T10:00:00.000+00:00",
    config_changes: Mapping[str, Any] | None = None,
    **record: Any,
) -> Path:
    """Write a run directory; return its path.

    Parameters
    ----------
    path : the directory, which does not exist.
    seed, lr : of the configuration; the curves depend on them.
    num_steps : a line each; an evaluation every 10.
    final_accuracy : of validation and test at the end.
    status, started : in run.json; a running run holds no lock and so counts as interrupted.
    config_changes : top-level entries of the configuration.
    record : more entries of run.json.
    """
    config = json.loads(json.dumps(CONFIG)) | {"seed": seed} | dict(config_changes or {})
    config["training"]["optimizer"]["lr"] = lr
    path.mkdir(parents=True)
    (path / "checkpoints").mkdir()
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    document = {"format": 1, "status": status, "workers": 2, "started": started, "identity": config}
    write_json(path / "run.json", document | {"data": {"name": "mnist", "digest": "d1"}, "host": "vm"} | record)
    write_rows(path, rows_of_a_training(num_steps, seed, lr, final_accuracy))
    if status == "completed":
        write_json(path / "summary.json", summary(num_steps, seed, lr, final_accuracy))
    tensors = {"dense1.weight": np.zeros((3, 4), np.float32), "dense1.bias": np.zeros(3, np.float32)}
    moments = {f"adam.first_moment.{name}": tensor for name, tensor in tensors.items()}
    CheckpointDirectory(path / "checkpoints").save(Checkpoint(tensors | moments, {"step": num_steps}))
    return path


def rows_of_a_training(num_steps: int, seed: int, lr: float, final_accuracy: float) -> list[dict[str, Any]]:
    """Return rows of metrics: the loss falls, the accuracy rises."""
    rng = np.random.default_rng([seed, round(lr * 1e6)])
    noise = rng.normal(0, 0.05, num_steps).tolist()
    rows: list[dict[str, Any]] = []
    for step in range(1, num_steps + 1):
        at = {"step": step, "epoch": step / num_steps * 2, "examples": step * 32, "time_s": round(1 + step * 0.05, 3)}
        done = step / num_steps
        loss = 2.3 * math.exp(-4 * done) * (1 + noise[step - 1])
        rows.append(at | {"train/loss": loss, "train/accuracy": min(1.0, final_accuracy * done**0.1), "lr": lr})
        if step % 10 == 0 or step == num_steps:
            rows.append(at | {"validation/loss": loss * 1.1, "validation/accuracy": final_accuracy * done**0.05})
    return rows


def summary(num_steps: int, seed: int, lr: float, final_accuracy: float) -> dict[str, Any]:
    """Return the content of summary.json."""
    final = {"validation/accuracy": final_accuracy, "validation/loss": 0.05, "train/loss": 0.04}
    return {
        "format": 1,
        "steps": num_steps,
        "epochs": 2.0,
        "examples": num_steps * 32,
        "train_seconds": num_steps * 0.05,
        "startup_seconds": 1.0,
        "evaluation_seconds": 0.1,
        "total_seconds": 1.1 + num_steps * 0.05,
        "examples_per_second": 640.0,
        "peak_memory_bytes": 300_000_000,
        "final": final,
        "best": {"step": num_steps, **final},
        "test": {"loss": 0.05 + seed / 1000, "accuracy": final_accuracy + seed / 1000},
        "parameters_sha256": hashlib.sha256(f"{seed} {lr}".encode()).hexdigest(),
    }


def evaluation(labels: Iterable[int], predictions: Iterable[int], classes: Iterable[str] = "abc") -> dict[str, Any]:
    """Return the content of evaluation-test.json."""
    names, truth, predicted = list(classes), list(labels), list(predictions)
    confusion = [[0] * len(names) for _ in names]
    for label, prediction in zip(truth, predicted, strict=True):
        confusion[label][prediction] += 1
    return {
        "format": 1,
        "split": "test",
        "data_digest": "d1",
        "num_examples": len(truth),
        "accuracy": sum(map(int.__eq__, truth, predicted)) / len(truth),
        "loss": 0.1,
        "classes": names,
        "recall": [confusion[k][k] / sum(confusion[k]) if sum(confusion[k]) else None for k in range(len(names))],
        "precision": [None] * len(names),
        "confusion": confusion,
        "labels": truth,
        "predictions": predicted,
    }


def write_rows(run: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the metrics."""
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON document."""
    path.write_text(json.dumps(content))
