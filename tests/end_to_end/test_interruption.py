"""A signal to a training run saves it and ends it."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partrain.store.checkpoint_directory import CheckpointDirectory
from partrain.system.signals import SIGNALS
from partrain.training import training_run
from tests.processes import wait_until
from tests.program import PartrainProcess, Result
from tests.small_run import ENDLESS

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def assert_saved(run: Path, status: str) -> None:
    """Check that a run was saved at the step at which it ended, and says so."""
    summary = json.loads((run / "summary.json").read_text())
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == status
    assert record["ended"] is not None
    found = CheckpointDirectory(run / "checkpoints").newest_good(pytest.fail)
    assert found is not None
    newest, path = found
    assert newest.step == summary["steps"] > 0
    assert path.name == f"step-{summary['steps']:08d}.safetensors"
    assert all(np.isfinite(tensor).all() for tensor in newest.tensors.values())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert max(row["step"] for row in rows) == summary["steps"]


@pytest.mark.parametrize("to_group", [False, True], ids=["to the process", "to its group"])
@pytest.mark.parametrize("number", SIGNALS)
def test_signal_in_the_middle_of_training_saves_and_ends(
    start_partrain: Callable[..., PartrainProcess],
    small_config: Callable[..., Path],
    number: signal.Signals,
    to_group: bool,
) -> None:
    process = start_partrain("--config", small_config(ENDLESS), "--workers", 2, "--runs-dir", "runs")
    run = process.wait_for_training()
    process.send(number, to_group=to_group)
    result = process.wait()
    assert result.exit_code == EXIT_CODES[number], result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "replacement" not in result.stderr
    assert number.name in result.stderr.splitlines()[-1]
    assert_saved(run, "interrupted")


def test_second_ctrl_c_after_a_second_does_not_wait_for_the_step(
    start_partrain: Callable[..., PartrainProcess], small_config: Callable[..., Path]
) -> None:
    process = start_partrain("--config", small_config(ENDLESS), "--workers", 2, "--runs-dir", "runs")
    process.wait_for_training()
    stopped = process.workers()[0].pid
    os.kill(stopped, signal.SIGSTOP)  # so that the step does not end
    process.send(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.popen.wait(1.1)
    process.send(signal.SIGINT)
    process.popen.wait(10)
    os.kill(stopped, signal.SIGCONT)
    assert process.wait().exit_code == 130


@pytest.mark.slow
def test_run_under_nohup_goes_on_when_the_terminal_is_gone(
    start_partrain: Callable[..., PartrainProcess], small_config: Callable[..., Path]
) -> None:
    wrapper = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh"]
    process = start_partrain("--config", small_config(ENDLESS), "--workers", 2, "--runs-dir", "runs", wrapper=wrapper)
    run = process.wait_for_training()
    process.send(signal.SIGHUP, to_group=True)
    size = (run / "metrics.jsonl").stat().st_size
    wait_until(lambda: (run / "metrics.jsonl").stat().st_size > size + 500, "that it goes on")
    process.send(signal.SIGTERM, to_group=True)
    assert process.wait().exit_code == 143
    assert_saved(run, "interrupted")


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_before_training_leaves_no_run(
    start_partrain: Callable[..., PartrainProcess],
    small_config: Callable[..., Path],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    config = small_config({"data.train_examples": 30_000})
    process = start_partrain("--config", config, "--workers", 2, "--runs-dir", "runs")
    process.wait_for("drawing")
    process.send(number, to_group=True)
    result = process.wait()
    assert result.exit_code == EXIT_CODES[number], result.stderr
    assert "Traceback" not in result.stderr
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize("place", ["first_record", "Coordinator", "RunDirectory.write_run_json"])
def test_signal_between_creating_the_run_and_training_leaves_no_run(
    call_partrain: Callable[..., Result],
    small_config: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    original = functools.reduce(getattr, place.split("."), training_run)

    def interrupted(*args: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return original(*args, **options)

    monkeypatch.setattr(f"partrain.training.training_run.{place}", interrupted)
    result = call_partrain("--config", small_config(), "--workers", 0, "--runs-dir", tmp_path / "runs")
    assert result.exit_code == 143
    assert list((tmp_path / "runs").iterdir()) == []


def test_signal_while_workers_end_does_not_hang(
    start_partrain: Callable[..., PartrainProcess], small_config: Callable[..., Path]
) -> None:
    program = """
import signal, sys
from partrain.interface.command_line import main
from partrain.parallel.workers.worker_handle import WorkerHandle

def close_and_signal(worker):
    close_pipes(worker)
    if worker.number == 0:
        signal.raise_signal(signal.SIGTERM)

close_pipes, WorkerHandle.close_pipes = WorkerHandle.close_pipes, close_and_signal
sys.exit(main(sys.argv[1:]))
"""
    arguments = ("--config", small_config(), "--workers", 3, "--runs-dir", "runs")
    process = start_partrain(*arguments, code=program)
    assert process.wait(timeout=40).exit_code in (0, 143)
