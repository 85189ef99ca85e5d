from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from partrain.errors import FailedRun
from partrain.parallel.workers.commands import Command, Operation
from partrain.parallel.workers.in_process_group import InProcessGroup
from partrain.parallel.workers.tile_computer import Computation
from tests.parallel.workers.pools import (
    REPLACED,
    TEST,
    UNCOMPUTABLE,
    Pools,
    batch,
    cpu_ticks,
    kill,
    results,
    worker_pids,
)
from tests.processes import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_worker_that_dies_while_idle_is_replaced(
    make_computation: Callable[..., Computation], pools: Pools, number: signal.Signals
) -> None:
    computation = make_computation()
    expected = results(InProcessGroup(computation), computation, batch(3))
    pool = pools.start(3, computation)
    pool.run(batch(3))
    dead = worker_pids(pool)[1]
    kill(dead, number=number)
    assert results(pool, computation, batch(3)) == expected
    assert results(pool, computation, batch(3)) == expected
    assert len(pools.log) == 1
    assert pools.log[0].startswith(f"worker 1 was killed by {number.name}")
    assert pools.log[0].endswith("; starting a replacement")
    assert len(worker_pids(pool)) == 3
    assert dead not in worker_pids(pool)


def test_worker_that_dies_while_it_computes_has_its_tiles_computed_again(
    make_computation: Callable[..., Computation], pools: Pools
) -> None:
    computation = make_computation(kernels="loops", num_test=60_000)
    commands = [Command(Operation.EVALUATION, TEST, first, first + 30_000) for first in (0, 30_000)]
    expected = results(InProcessGroup(computation), computation, commands)
    pool = pools.start(2, computation)
    pool.run(batch(2))
    victim = worker_pids(pool)[0]
    idle_ticks = cpu_ticks(victim)

    def kill_at_work() -> None:
        wait_until(lambda: cpu_ticks(victim) >= idle_ticks + 3, "that the worker computes")
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill_at_work)
    killer.start()
    try:
        assert results(pool, computation, commands) == expected
    finally:
        killer.join()
    assert len(pools.log) == 1
    assert re.match(REPLACED, pools.log[0])


def test_worker_that_dies_with_an_unread_command_has_it_done_by_another(
    make_computation: Callable[..., Computation], pools: Pools
) -> None:
    computation = make_computation()
    expected = results(InProcessGroup(computation), computation, batch(2))
    pool = pools.start(2, computation)
    pool.run(batch(2))
    victim = worker_pids(pool)[1]
    os.kill(victim, signal.SIGSTOP)
    killer = threading.Timer(0.2, os.kill, (victim, signal.SIGKILL))
    killer.start()
    try:
        assert results(pool, computation, batch(2)) == expected
    finally:
        killer.join()
    assert len(pools.log) == 1
    assert re.match(REPLACED, pools.log[0])


def test_worker_that_dies_at_start_up_is_replaced(make_computation: Callable[..., Computation], pools: Pools) -> None:
    computation = make_computation()
    expected = results(InProcessGroup(computation), computation, batch(2))
    pool = pools.start(2, computation)
    os.kill(worker_pids(pool)[0], signal.SIGKILL)
    assert results(pool, computation, batch(2)) == expected
    pool.run(batch(2))
    assert len(pools.log) == 1
    assert re.match(REPLACED, pools.log[0])


def test_all_workers_may_die_at_once(make_computation: Callable[..., Computation], pools: Pools) -> None:
    computation = make_computation()
    expected = results(InProcessGroup(computation), computation, batch(3))
    pool = pools.start(3, computation)
    pool.run(batch(3))
    kill(*worker_pids(pool))
    assert results(pool, computation, batch(3)) == expected
    assert results(pool, computation, batch(3)) == expected
    assert len(pools.log) == 3
    assert all(re.match(REPLACED, line) for line in pools.log)


def test_more_deaths_than_allowed_end_the_run_and_name_the_signal(
    make_computation: Callable[..., Computation], pools: Pools
) -> None:
    computation = make_computation()
    pool = pools.start(2, computation, max_restarts=1)
    kill(worker_pids(pool)[0])
    pool.run(batch(2))
    kill(worker_pids(pool)[0])

    def run_until_it_fails() -> None:
        for _ in range(3):
            pool.run(batch(2))

    with pytest.raises(FailedRun, match=r"SIGKILL; the limit on replacements \(workers\.max_restarts: 1\)"):
        run_until_it_fails()


def test_no_restart_at_all_can_be_allowed(make_computation: Callable[..., Computation], pools: Pools) -> None:
    pool = pools.start(1, make_computation(), max_restarts=0)
    kill(*worker_pids(pool), number=signal.SIGSEGV)
    with pytest.raises(FailedRun, match="SIGSEGV"):
        pool.run(batch(1))
    assert worker_pids(pool) == []


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_command_that_raises_twice_ends_the_run_with_the_workers_traceback(
    make_computation: Callable[..., Computation], pools: Pools, num_workers: int
) -> None:
    pool = pools.start(num_workers, make_computation())
    with pytest.raises(FailedRun) as raised:
        pool.run([*batch(2), UNCOMPUTABLE])
    message = str(raised.value)
    assert re.match(r"worker \d failed; its own traceback:\n\nTraceback", message)
    assert "in carry_out" in message
    assert "KeyError" in message
    assert len(pools.log) == 1
    assert re.match(r"worker \d raised an exception; retrying its tiles once:\nTraceback", pools.log[0])


def test_command_that_raised_is_tried_by_another_worker(
    make_computation: Callable[..., Computation], pools: Pools
) -> None:
    pool = pools.start(2, make_computation())
    with pytest.raises(FailedRun) as raised:
        pool.run([UNCOMPUTABLE])
    assert str(raised.value).split()[:2] != pools.log[0].split()[:2]


def test_worker_that_cannot_begin_ends_the_run_with_its_traceback(
    make_computation: Callable[..., Computation], pools: Pools, tmp_path: Path
) -> None:
    computation = make_computation()
    object.__setattr__(computation, "normalisation", None)
    pool = pools.start(2, computation)
    with pytest.raises(FailedRun, match="AttributeError: 'NoneType'"):
        pool.run(batch(2))


@pytest.mark.parametrize("num_kills", [0, 1])
def test_out_of_memory_is_suspected_only_where_the_system_counted_it(
    make_computation: Callable[..., Computation], pools: Pools, monkeypatch: pytest.MonkeyPatch, num_kills: int
) -> None:
    counts = [7]
    monkeypatch.setattr("partrain.parallel.workers.process.num_oom_kills", lambda: counts[0])
    pool = pools.start(1, make_computation())
    counts[0] += num_kills
    kill(*worker_pids(pool))
    pool.run(batch(1))
    suspicion = " (probably out of memory)" * num_kills
    assert pools.log == [f"worker 0 was killed by SIGKILL{suspicion}; starting a replacement"]
