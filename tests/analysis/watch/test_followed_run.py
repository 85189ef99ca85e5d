from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from partrain.analysis.watch import followed_run
from partrain.analysis.watch.followed_run import FollowedRun
from tests.sample_runs import write_json, write_run

LOGGED = {"horizon": {"epochs": 2, "max_steps": None}, "logged": {"last_step": 80}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", status="running", **LOGGED)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Clocks that go on when they are told to."""
    now = [0.0]
    monkeypatch.setattr(followed_run.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(followed_run.time, "time_ns", lambda: 10**18)

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


def followed(path: Path) -> FollowedRun:
    run = FollowedRun(path)
    run.poll()
    return run


def append(path: Path, *rows: dict[str, Any]) -> None:
    with (path / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def change_record(path: Path, **changes: Any) -> None:
    write_json(path / "run.json", json.loads((path / "run.json").read_text()) | changes)


def test_a_run_is_what_its_files_say(path: Path) -> None:
    run = followed(path)
    assert (run.name, run.status, run.has_ended, run.problem) == ("run", "running", False, None)
    assert (run.step, run.last_step, run.num_epochs, run.workers) == (40, 80, 2, "2 workers")
    steps, losses = run.series("train/loss")
    assert list(steps) == list(range(1, 41))
    assert run.last("train/loss") == losses[-1]
    assert run.best("validation/accuracy", highest=True) == (40, pytest.approx(0.98))


def test_what_is_new_is_added(path: Path) -> None:
    run = followed(path)
    append(path, {"step": 41, "epoch": 1.025, "time_s": 50.0, "train/loss": 0.125, "examples_per_s": 70.0})
    run.poll()
    assert (run.step, run.epoch, run.rate, run.last("train/loss")) == (41, 1.025, 70.0, 0.125)
    change_record(path, status="failed", cause="a worker failed")
    run.poll()
    assert (run.status, run.has_ended, run.cause, run.seconds_left) == ("failed", True, "a worker failed", None)


def test_steps_that_a_resume_cut_are_gone(path: Path) -> None:
    run = followed(path)
    lines = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    replaced = path / "new"
    replaced.write_text("".join(line for line in lines if json.loads(line)["step"] <= 20))
    os.replace(replaced, path / "metrics.jsonl")
    append(path, {"step": 21, "time_s": 1.0, "train/loss": 0.25})
    run.poll()
    assert list(run.series("train/loss")[0]) == list(range(1, 22))


def test_time_left_is_that_of_the_steps_left_at_the_pace_of_this_session(tmp_path: Path) -> None:
    lineage = [{"resumed": "…", "from_step": 40, "logged": {"last_step": 100}}]
    path = write_run(tmp_path / "run", status="running", lineage=lineage, **LOGGED)
    append(path, *({"step": step, "time_s": 1000.0 + 2 * step, "train/loss": 0.1} for step in range(41, 51)))
    run = followed(path)
    assert run.last_step == 100
    assert run.seconds_left == pytest.approx(2 * 50)


def test_a_run_without_news_is_quiet_until_there_is_news(path: Path, clock: Callable[[float], None]) -> None:
    os.utime(path / "run.json", ns=(10**18, 10**18 - 5 * 10**9))
    for file in (path / "metrics.jsonl", path / "checkpoints"):
        os.utime(file, ns=(10**18, 10**18 - 7 * 10**9))
    run = followed(path)
    assert run.seconds_without_news == pytest.approx(5)
    clock(300)
    run.poll()
    assert run.seconds_without_news == pytest.approx(305)
    assert run.is_quiet
    append(path, {"step": 41, "time_s": 60.0})
    run.poll()
    assert run.seconds_without_news == 0
    assert not run.is_quiet


def test_a_run_whose_steps_are_far_apart_is_not_quiet_so_soon(path: Path, clock: Callable[[float], None]) -> None:
    run = followed(path)
    append(path, *({"step": step, "time_s": 100.0 * step, "train/loss": 0.1} for step in range(41, 61)))
    run.poll()
    clock(900)
    assert not run.is_quiet
    clock(200)
    assert run.is_quiet


def test_what_cannot_be_read_is_a_problem_and_the_rest_stays(path: Path) -> None:
    run = followed(path)
    (path / "run.json").write_text("{")
    run.poll()
    assert run.problem is not None
    assert "run.json: is damaged" in run.problem
    assert (run.status, run.step) == ("running", 40)
    run.poll()
    assert run.problem is not None  # as long as it is so
    write_json(path / "run.json", {"format": 1, "status": "interrupted"})
    run.poll()
    assert (run.problem, run.status) == (None, "interrupted")


@pytest.mark.parametrize("value", [None, "x", [], {}, True, -1, 1e400, float("nan")])
def test_values_of_any_kind_are_read_without_an_error(tmp_path: Path, value: object) -> None:
    names = ("status", "workers", "ranks", "horizon", "logged", "lineage", "cause")
    record = dict.fromkeys(names, value)
    path = write_run(tmp_path / "run", status="running")
    change_record(path, **record)
    fields = ("step", "epoch", "time_s", "train/loss", "validation/accuracy", "examples_per_s")
    append(path, *({"step": 50} | {field: value} for field in fields))
    run = followed(path)
    assert run.problem is None
    assert [run.status, run.workers, run.seconds_left, run.is_quiet, run.cause, run.num_epochs, run.last_step]
