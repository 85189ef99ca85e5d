"""What a training run says at its end: its last step, time and rate; its best epoch; how to resume it."""

from __future__ import annotations

import re
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from partrain.parallel.split_evaluation import Evaluation
from partrain.training import coordinator
from tests.program import Result
from tests.whole_runs import outcome, read_json, write_config


def last_progress(stderr: str) -> list[str]:
    """Return the last line of progress, as step, number of steps, rate and time left."""
    line = r"^epoch \d/\d  step (\d+)/(\d+)  loss [\d.]+  ([\d,]+) examples/s  (\S+) left$"
    return list(re.findall(line, stderr, re.MULTILINE)[-1])


def test_completed_run_says_its_time_its_best_epoch_and_its_path(
    call_partrain: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = coordinator.evaluate_split

    def evaluate_slowly(*arguments: Any) -> Evaluation:
        time.sleep(0.2)
        return evaluate(*arguments)

    monkeypatch.setattr(coordinator, "evaluate_split", evaluate_slowly)
    run = tmp_path / "run"
    result = call_partrain("--config", write_config(tmp_path), "--run-dir", run, "--workers", 0)
    summary = read_json(run / "summary.json")
    step, num_steps, rate, left = last_progress(result.stderr)
    assert (step, num_steps, left) == ("20", "20", "00:00")
    assert float(rate.replace(",", "")) > summary["examples_per_second"] / 2
    last = result.stderr.splitlines()[-1]
    assert re.fullmatch(
        rf"completed in [\d.]+ s; best validation accuracy [\d.]+% at epoch [\d.]+; the run is {run}", last
    )
    best = summary["best"]
    assert f"{best['validation/accuracy']:.2%} at epoch {best['step'] / 10:.4g};" in last
    assert last in (run / "train.log").read_text()


def test_run_that_stops_early_ends_its_progress_at_its_last_step(
    call_partrain: Callable[..., Result], tmp_path: Path
) -> None:
    config = write_config(tmp_path, {"training.stop_early": {"patience": 1, "min_delta": 1000}})
    result = call_partrain("--config", config, "--run-dir", tmp_path / "run", "--workers", 0)
    stop = read_json(tmp_path / "run" / "summary.json")["steps"]
    assert stop < 20
    assert last_progress(result.stderr)[:2] == [str(stop), str(stop)]
    assert result.stderr.splitlines()[-1].startswith("completed in ")


def test_interrupted_run_says_where_it_is_saved_and_how_to_resume_it(
    call_partrain: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Path
) -> None:
    run, steps = tmp_path / "my runs" / "run", []

    def interrupt(point: str) -> None:
        steps.extend([point] if point == "coordinator: after a step" else [])
        if len(steps) == 5:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(coordinator, "kill_point", interrupt)
        result = call_partrain("--config", write_config(tmp_path), "--run-dir", run, "--workers", 0)
    assert result.exit_code == 130
    assert last_progress(result.stderr)[:2] == ["5", "20"]
    last = result.stderr.splitlines()[-1]
    beginning = "error: ended by SIGINT; the run is saved at step 5; to continue: "
    assert last.startswith(beginning)
    program, *words = shlex.split(last.removeprefix(beginning))
    assert program == "partrain"
    assert call_partrain(*words, "--workers", 0).exit_code == 0
    assert outcome(run) == outcome(undisturbed)
