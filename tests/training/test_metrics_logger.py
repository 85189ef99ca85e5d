from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from partrain.store.metrics_log import MetricsLog, read_metrics
from partrain.system.timer import Stopwatch
from partrain.training.metrics_logger import MetricsLogger


def make(path: Path | None, warnings: list[str]) -> MetricsLogger:
    plan: Any = SimpleNamespace(steps_per_epoch=4, num_examples_until=lambda step: 10 * step)
    return MetricsLogger(path, plan, Stopwatch("train", "evaluation"), warnings.append)


def test_row_says_where_in_the_training_it_belongs(tmp_path: Path) -> None:
    logger = make(tmp_path / "metrics.jsonl", [])
    logger.open()
    logger.log_step(2, {"train/loss": 0.5}, seconds_ago=0.0)
    logger.log(3, {"validation/loss": 0.25})
    logger.close()
    first, second = read_metrics(tmp_path / "metrics.jsonl")
    assert (first["step"], first["epoch"], first["examples"], first["train/loss"]) == (2, 0.5, 20, 0.5)
    assert first["examples_per_s"] > 0
    assert (second["step"], second["validation/loss"]) == (3, 0.25)
    assert "examples_per_s" not in second


def test_latest_values_go_on_after_a_resume(tmp_path: Path) -> None:
    logger = make(tmp_path / "metrics.jsonl", [])
    logger.resume(2, [{"step": 2, "epoch": 0.5, "examples": 20, "time_s": 1.0, "train/loss": 0.5}], 100.0)
    assert logger.latest == {"train/loss": 0.5}
    logger.open()
    logger.log(3, {"lr": 0.1})
    logger.close()
    assert logger.latest == {"train/loss": 0.5, "lr": 0.1}
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["time_s"] >= 100


def test_lost_rows_are_counted_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(log: MetricsLog, row: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    warnings: list[str] = []
    logger = make(tmp_path / "metrics.jsonl", warnings)
    logger.open()
    monkeypatch.setattr(MetricsLog, "append", full)
    for step in (1, 2, 3):
        logger.log(step, {"lr": 0.1})
    assert len(warnings) == 1
    logger.close()
    assert warnings[1] == "3 lines of metrics were lost up to step 3"


def test_another_rank_keeps_the_values_and_writes_nothing() -> None:
    logger = make(None, [])
    logger.open()
    logger.log(1, {"lr": 0.1})
    logger.flush_durably()
    logger.close()
    assert logger.latest == {"lr": 0.1}
