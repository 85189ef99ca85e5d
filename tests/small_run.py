"""A configuration that trains in about a second."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.processes import wait_until

SMALL_CONFIG: dict[str, Any] = {
    "name": "small",
    "data": {"name": "synthetic-digits", "train_examples": 200, "validation_examples": 40},
    "network": [
        {"conv": {"filters": 2, "kernel": 5}},
        "relu",
        {"max_pool": {"window": 4}},
        "flatten",
        {"dense": {"units": 10}},
    ],
    "training": {"epochs": 1, "batch_size": 20, "tile": 3, "optimizer": {"lr": 0.01}},
}


# For runs that a test ends; they would take hours.
ENDLESS = {
    "data.train_examples": 2000,
    "training.epochs": 100_000,
    "logging": {"every_steps": 1, "evaluate_every_epochs": None},
}


def write_small_config(folder: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """Write a configuration that trains in about a second: 200 examples, 10 steps of 7 tiles.

    Parameters
    ----------
    folder : where to write `small.yaml`.
    changes : values by dotted key.
    """
    mapping: dict[str, Any] = yaml.safe_load(yaml.safe_dump(SMALL_CONFIG))
    for key, value in (changes or {}).items():
        *parents, last = key.split(".")
        section = mapping
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    # Plots take longer than all the rest.
    mapping["logging"] = {"plots": False} | mapping.get("logging", {})
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(mapping))
    return path


def train_small(folder: Path, changes: Mapping[str, Any]) -> Path:
    """Train the small configuration with these changes in this process; return the run's directory."""
    from partrain.interface.command_line import main

    words = ["--config", str(write_small_config(folder, changes)), "--workers", "0", "-q"]
    assert main([*words, "--run-dir", str(folder / "run")]) == 0
    return folder / "run"


def interrupt_after_a_logged_step(run: Path) -> None:
    """Send this process SIGINT when its run has logged a step; another thread trains."""
    metrics = run / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.stat().st_size, "a step in the metrics", 60.0)
    os.kill(os.getpid(), signal.SIGINT)
