from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time

import pytest

from partrain.parallel.workers.fork_server import end_fork_server, start_fork_server
from partrain.parallel.workers.process import WorkerProcess
from tests.processes import is_running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs process descriptors")


def start_sleeper(seconds: float) -> multiprocessing.process.BaseProcess:
    start_fork_server("fast", "float32")
    process = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(seconds,), daemon=True)
    process.start()
    return process


def test_end_of_a_process_is_certain_when_the_fork_server_is_dead() -> None:
    """`multiprocessing` reports a child as dead when its fork server is dead."""
    sleeper = start_sleeper(600)
    process = WorkerProcess(sleeper)
    end_fork_server()
    assert sleeper.exitcode == 255
    assert is_running(process.pid)
    assert process.end(0.05) == "did not end with its pipe and was killed"
    assert not is_running(process.pid)


def test_process_that_ends_by_itself_is_not_killed() -> None:
    process = WorkerProcess(start_sleeper(0.1))
    assert process.end(60.0) == "ended with exit code 0"


def test_cause_of_death_names_the_signal_and_stays_known() -> None:
    process = WorkerProcess(start_sleeper(600))
    os.kill(process.pid, signal.SIGTERM)  # a child of the fork server ignores it
    os.kill(process.pid, signal.SIGSEGV)
    assert process.end(60.0) == process.end(0.0) == "was killed by SIGSEGV"
