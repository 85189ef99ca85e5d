"""Workers, fork server or coordinator are killed or stopped: the run ends with the same bits."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from partrain.store.run_directory import RunDirectory
from tests.processes import is_running, wait_until
from tests.program import RUN_SECONDS, PartrainProcess
from tests.whole_runs import LONG, outcome, points_of, write_config

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")

SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))]
Start = Callable[..., PartrainProcess]

# The program with timeouts that a test can wait for.
IMPATIENT = """
import sys
from partrain.interface.command_line import main
from partrain.parallel.workers import timeouts
timeouts.MIN_SECONDS, timeouts.SAFETY_FACTOR = 1.0, 1.0
sys.exit(main())
"""


# The program with a coordinator that sends, in step 8, a command that no worker can carry out.
UNCOMPUTABLE = """
import itertools, sys
from partrain.interface.command_line import main
from partrain.parallel.workers.commands import Command
from partrain.parallel.workers.pool import WorkerPool
run, encode, calls = WorkerPool.run, Command.encode, itertools.count(1)
def encode_or_spoil(command):
    operation, split, *positions = encode(command)
    return operation, 7 if is_spoilt else split, *positions  # there is no split 7
def count_and_run(pool, commands):
    global is_spoilt
    is_spoilt = next(calls) == 10
    run(pool, commands)
Command.encode, WorkerPool.run = encode_or_spoil, count_and_run
sys.exit(main())
"""

# The program with a clock that moves by a day, back or forward, whenever it is read.
RESTLESS_CLOCK = """
import itertools, sys, time
clock, days = time.time, itertools.cycle((0, -1, 1))
time.time = lambda: clock() + 86_400 * next(days)
time.time_ns = lambda: int(1e9 * time.time())
from partrain.interface.command_line import main
sys.exit(main())
"""


def kill(*pids: int) -> int:
    """Kill processes that may have ended; return how many had not."""
    num_killed = 0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            num_killed += 1
    return num_killed


# ---- at named points


@pytest.mark.parametrize("point", points_of("worker"))
def test_worker_killed_at_this_point_changes_no_bit(
    start_partrain: Start, tmp_path: Path, undisturbed: Path, point: str
) -> None:
    token = tmp_path / "one death"
    token.touch()
    passing = 1 if point in ("worker: start-up", "worker: shutting down") else 9
    env = {"PARTRAIN_KILL_AT": f"{point}|{passing}|{token}"}
    words = ("--config", write_config(tmp_path), "--workers", 3, "--run-dir", tmp_path / "run")
    result = start_partrain(*words, env=env).wait()
    assert result.exit_code == 0, result
    assert not token.exists(), "no worker was killed"
    assert outcome(tmp_path / "run") == outcome(undisturbed)
    said = re.findall(r"^worker \d was killed by SIGKILL; starting a replacement$", result.stderr, re.MULTILINE)
    assert len(said) == (point != "worker: shutting down")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "passing"),
    [
        ("coordinator: while workers make steps", 1),
        ("coordinator: while workers make steps", 2),
        ("coordinator: before the commands", 1),
        ("coordinator: during the commands", 1),
    ],
)
def test_coordinator_killed_while_workers_compute_is_resumed_with_others(
    start_partrain: Start, tmp_path: Path, undisturbed: Path, point: str, passing: int
) -> None:
    run = tmp_path / "run"
    words = ("--config", write_config(tmp_path), "--workers", 2, "--run-dir", run)
    assert start_partrain(*words, env={"PARTRAIN_KILL_AT": f"{point}|{passing}"}).wait().exit_code == -signal.SIGKILL
    assert RunDirectory.open(run).status() == "interrupted"
    assert start_partrain("resume", run, "--workers", 3).wait().exit_code == 0
    assert outcome(run) == outcome(undisturbed)


def test_worker_that_keeps_dying_ends_the_run_cleanly(start_partrain: Start, tmp_path: Path) -> None:
    config = write_config(tmp_path, {"workers": {"max_restarts": 3}})
    env = {"PARTRAIN_KILL_AT": "worker: before answering|5"}
    run = tmp_path / "run"
    result = start_partrain("--config", config, "--workers", 2, "--run-dir", run, env=env).wait()
    assert result.exit_code == 1
    assert re.search(r"error: worker \d was killed by SIGKILL; the limit on replacements .*: 3", result.stderr)
    assert RunDirectory.open(run).status() == "failed"
    assert start_partrain("resume", run, "--workers", 2).wait().exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_workers_that_keep_dying_at_random_points_change_no_bit(
    start_partrain: Start, tmp_path: Path, undisturbed_long: Path, seed: int
) -> None:
    rng = random.Random(seed)
    point = rng.choice([p for p in points_of("worker") if p not in ("worker: start-up", "worker: shutting down")])
    env = {"PARTRAIN_KILL_AT": f"{point}|{rng.randint(15, 25)}"}  # each worker dies there, and each successor
    run = tmp_path / "run"
    words = ("--config", write_config(tmp_path, LONG), "--workers", rng.randint(2, 4), "--run-dir", run)
    result = start_partrain(*words, env=env).wait()
    assert result.exit_code == 0, result
    assert result.stderr.count("was killed by SIGKILL; starting a replacement") >= 15
    assert outcome(run) == outcome(undisturbed_long)


def test_command_that_fails_twice_ends_the_run_cleanly(
    start_partrain: Start, tmp_path: Path, undisturbed: Path
) -> None:
    run = tmp_path / "run"
    words = ("--config", write_config(tmp_path), "--workers", 2, "--run-dir", run)
    result = start_partrain(*words, code=UNCOMPUTABLE).wait()
    assert result.exit_code == 1, result
    assert re.search(r"^error: worker \d failed; its own traceback:\n\nTraceback", result.stderr, re.MULTILINE)
    assert "IndexError" in result.stderr
    assert RunDirectory.open(run).status() == "failed"
    assert start_partrain("resume", run, "--workers", 2).wait().exit_code == 0
    assert outcome(run) == outcome(undisturbed)


def test_changes_of_the_clock_have_no_effect(start_partrain: Start, tmp_path: Path, undisturbed: Path) -> None:
    run = tmp_path / "run"
    code = RESTLESS_CLOCK
    env = {"PARTRAIN_KILL_AT": "coordinator: before a step|16"}
    words = ("--config", write_config(tmp_path), "--workers", 2, "--run-dir", run)
    assert start_partrain(*words, code=code, env=env).wait().exit_code == -signal.SIGKILL
    result = start_partrain("resume", run, "--workers", 2, code=code).wait()
    assert result.exit_code == 0, result
    assert "hung" not in result.stderr
    assert outcome(run) == outcome(undisturbed)
    times = [json.loads(line)["time_s"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert times == sorted(times)


# ---- stopped processes


@pytest.fixture
def impatient(start_partrain: Start, tmp_path: Path, undisturbed_long: Path) -> PartrainProcess:
    """A long run in progress, whose coordinator gives a worker one second to answer.

    It has evaluated, too: for the first command of a kind it would wait for as long as for a worker that starts.
    """
    words = ("--config", write_config(tmp_path, LONG), "--workers", 2, "--runs-dir", "runs")
    process = start_partrain(*words, code=IMPATIENT)
    metrics = process.wait_for_training() / "metrics.jsonl"
    wait_until(lambda: "validation/loss" in metrics.read_text(), "an evaluation in the metrics", RUN_SECONDS)
    return process


@pytest.mark.slow
def test_worker_that_hangs_is_killed_and_replaced(
    impatient: PartrainProcess, undisturbed_long: Path, tmp_path: Path
) -> None:
    victim = impatient.workers()[0].pid
    os.kill(victim, signal.SIGSTOP)
    wait_until(lambda: not is_running(victim), "that it is killed")
    result = impatient.wait()
    assert re.search(
        r"^worker \d hung: silent for \d+ s with \d+ examples to compute; killed; start", result.stderr, re.M
    )
    assert outcome(tmp_path / result.run) == outcome(undisturbed_long)


def test_stopped_worker_does_not_outlive_its_coordinator(start_partrain: Start, tmp_path: Path) -> None:
    process = start_partrain("--config", write_config(tmp_path, LONG), "--workers", 2, "--runs-dir", "runs")
    process.wait_for_training()
    os.kill(process.workers()[0].pid, signal.SIGSTOP)
    process.send(signal.SIGKILL)
    assert process.wait().exit_code == -signal.SIGKILL  # and none of its processes is left


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [False, True], ids=["alone", "with its group"])
def test_stopped_coordinator_kills_no_worker_when_it_continues(
    impatient: PartrainProcess, undisturbed_long: Path, tmp_path: Path, whole_group: bool
) -> None:
    impatient.send(signal.SIGSTOP, to_group=whole_group)
    time.sleep(3)  # three times its patience
    impatient.send(signal.SIGCONT, to_group=whole_group)
    result = impatient.wait()
    assert "replacement" not in result.stderr
    assert outcome(tmp_path / result.run) == outcome(undisturbed_long)


# ---- whatever may be killed from outside


def test_killed_fork_server_changes_no_bit(start_partrain: Start, tmp_path: Path, undisturbed_long: Path) -> None:
    process = start_partrain("--config", write_config(tmp_path, LONG), "--workers", 2, "--runs-dir", "runs")
    process.wait_for_training()
    workers = [entry.pid for entry in process.workers()]
    assert kill(*process.fork_servers()) == 1
    assert kill(workers[0]) == 1
    result = process.wait()
    assert "worker 0 died of an unknown cause" in result.stderr
    assert outcome(tmp_path / result.run) == outcome(undisturbed_long)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_kills_of_workers_and_coordinators_change_no_bit(
    start_partrain: Start, tmp_path: Path, undisturbed_long: Path, seed: int
) -> None:
    rng = random.Random(seed)
    run = tmp_path / "run"
    process = start_partrain("--config", write_config(tmp_path, LONG), "--workers", 2, "--run-dir", run)
    num_kills = 0
    for _ in range(3):
        wait_until(lambda process=process: "parameters" in process.stderr, "that it trains", RUN_SECONDS)
        for _ in range(rng.randint(2, 5)):
            time.sleep(rng.uniform(0, 0.15))
            workers = [entry.pid for entry in process.workers()]
            num_kills += kill(*rng.sample(workers, min(len(workers), rng.randint(0, 2))))
        num_kills += kill(process.popen.pid)
        assert process.wait().exit_code in (0, -signal.SIGKILL)
        process = start_partrain("resume", run, "--workers", rng.randint(1, 3))
    assert process.wait().exit_code == 0
    assert num_kills >= 8
    assert outcome(run) == outcome(undisturbed_long)
