from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partrain.errors import FailedRun
from partrain.parallel.workers import compute_group
from partrain.parallel.workers.in_process_group import InProcessGroup
from partrain.store.checkpoint_directory import CheckpointDirectory
from partrain.store.metrics_log import MetricsLog
from partrain.training import training_run
from tests.program import Result
from tests.whole_runs import read_json, saved_steps


def failed_run(call: Callable[..., Result], tmp_path: Path, *arguments: object) -> tuple[Path, str]:
    result = call(*arguments, "--runs-dir", tmp_path / "runs")
    assert result.exit_code == 1, result
    assert result.stdout == ""
    assert "Traceback (most recent call last)" not in result.stderr.partition("its own traceback")[0]
    (run,) = (tmp_path / "runs").iterdir()
    message = result.stderr[result.stderr.index("error: ") + len("error: ") :].strip()
    record = read_json(run / "run.json")
    assert record["status"] == "failed"
    assert record["cause"] == message
    return run, message


@pytest.mark.parametrize("lr", ["1e20", "1e30"])
def test_value_that_is_not_finite_ends_the_run_before_it_reaches_the_parameters(
    call_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path, lr: str
) -> None:
    config = small_config({"training.optimizer.lr": float(lr)})
    run, message = failed_run(call_partrain, tmp_path, "--config", config, "--workers", 2)
    assert re.match(r"step \d+: .* not finite", message)
    assert "training.optimizer.lr" in message
    found = CheckpointDirectory(run / "checkpoints").newest_good(pytest.fail)
    assert found is not None
    assert all(np.isfinite(tensor).all() for tensor in found[0].tensors.values())
    assert f"step {found[0].step + 1}: " in message
    assert read_json(run / "summary.json")["steps"] == found[0].step


@pytest.mark.parametrize(
    ("array", "place", "named"),
    [("dense1.deltas", (0, 3), r"the gradient of dense1\.\w+"), ("losses", 2, "the loss of dense1's outputs")],
)
def test_value_that_is_not_finite_is_named_with_its_layer(
    call_partrain: Callable[..., Result],
    small_config: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    array: str,
    place: Any,
    named: str,
) -> None:
    class SpoilingGroup(InProcessGroup):
        def run(self, commands: Any) -> None:
            super().run(commands)
            self._computer._arrays[array][place] = np.inf

    monkeypatch.setattr(compute_group, "InProcessGroup", SpoilingGroup)
    _, message = failed_run(call_partrain, tmp_path, "--config", small_config(), "--workers", 0)
    assert re.match(f"step 1: {named} is not finite", message)


def test_failed_run_says_why_in_its_log(
    call_partrain: Callable[..., Result],
    small_config: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class FailingGroup(InProcessGroup):
        def run(self, commands: Any) -> None:
            raise FailedRun("the group failed")

    monkeypatch.setattr(compute_group, "InProcessGroup", FailingGroup)
    run, message = failed_run(call_partrain, tmp_path, "--config", small_config(), "--workers", 0)
    assert message == "the group failed"
    assert "error: the group failed" in (run / "train.log").read_text()


def test_defect_of_the_program_keeps_its_traceback_and_the_run_its_checkpoint(
    call_partrain: Callable[..., Result],
    small_config: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class DefectiveGroup(InProcessGroup):
        def run(self, commands: Any) -> None:
            raise ZeroDivisionError("a defect")

    monkeypatch.setattr(compute_group, "InProcessGroup", DefectiveGroup)
    with pytest.raises(ZeroDivisionError):
        call_partrain("--config", small_config(), "--workers", 0, "--runs-dir", tmp_path / "runs")
    (run,) = (tmp_path / "runs").iterdir()
    record = read_json(run / "run.json")
    assert (record["status"], record["cause"]) == ("failed", "a defect")
    assert saved_steps(run) == [0]


def test_lines_of_metrics_that_are_lost_are_said_once_and_counted(
    call_partrain: Callable[..., Result],
    small_config: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    append = MetricsLog.append

    def failing(log: MetricsLog, row: dict[str, Any]) -> None:
        if 3 <= row["step"] <= 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(log, row)

    monkeypatch.setattr(MetricsLog, "append", failing)
    config = small_config({"logging.every_steps": 1})
    result = call_partrain("--config", config, "--workers", 0, "--runs-dir", tmp_path / "runs")
    assert result.exit_code == 0
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    first, last = (line for line in warnings if "lost" in line)
    assert "the metrics of step 3 are lost" in first
    assert re.search(r": [4-9] lines of metrics were lost up to step 7$", last)


def test_disk_that_is_full_before_training_leaves_no_run(
    call_partrain: Callable[..., Result],
    small_config: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(training_run.RunDirectory, "write_run_json", full)
    result = call_partrain("--config", small_config(), "--workers", 0, "--runs-dir", tmp_path / "runs")
    assert result.exit_code in (1, 2)
    assert os.strerror(errno.ENOSPC) in result.stderr
    assert list((tmp_path / "runs").iterdir()) == []
