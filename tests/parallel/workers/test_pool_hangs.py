from __future__ import annotations

import os
import re
import selectors
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from partrain.errors import FailedRun
from partrain.parallel.workers import timeouts
from partrain.parallel.workers.in_process_group import InProcessGroup
from partrain.parallel.workers.tile_computer import Computation
from tests.parallel.workers.pools import (
    Pools,
    batch,
    results,
    worker_pids,
)
from tests.processes import is_running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers count as hung soon."""
    monkeypatch.setattr(timeouts, "MIN_SECONDS", 0.3)
    monkeypatch.setattr(timeouts, "SAFETY_FACTOR", 1.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("num_workers", [1, 3])
def test_worker_that_hangs_is_killed_and_its_tiles_are_computed_again(
    make_computation: Callable[..., Computation], pools: Pools, num_workers: int
) -> None:
    computation = make_computation()
    expected = results(InProcessGroup(computation), computation, batch(3))
    pool = pools.start(num_workers, computation)
    for _ in range(3):
        pool.run(batch(3))
    victim = worker_pids(pool)[-1]
    os.kill(victim, signal.SIGSTOP)
    assert results(pool, computation, batch(3)) == expected
    assert not is_running(victim)
    assert results(pool, computation, batch(3)) == expected
    assert len(pools.log) == 1
    assert re.match(r"^worker \d hung: silent for 0 s with \d examples to compute; killed; starting", pools.log[0])


def test_worker_that_hangs_at_its_start_is_replaced(
    make_computation: Callable[..., Computation], pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "START_UP_SECONDS", 2.0)
    computation = make_computation()
    expected = results(InProcessGroup(computation), computation, batch(2))
    pool = pools.start(2, computation)
    os.kill(worker_pids(pool)[0], signal.SIGSTOP)
    assert results(pool, computation, batch(2)) == expected
    assert all(re.match(r"^worker 0 hung: silent for 2 s (while starting|with)", line) for line in pools.log)


@pytest.mark.usefixtures("impatient")
def test_hanging_workers_count_as_restarts(make_computation: Callable[..., Computation], pools: Pools) -> None:
    pool = pools.start(1, make_computation(), max_restarts=0)
    for _ in range(3):
        pool.run(batch(1))
    os.kill(worker_pids(pool)[0], signal.SIGSTOP)
    with pytest.raises(FailedRun, match=r"worker 0 hung: .* the limit on replacements .*: 0"):
        pool.run(batch(1))


@pytest.mark.usefixtures("impatient")
def test_silence_that_the_coordinator_slept_through_does_not_count(
    make_computation: Callable[..., Computation], pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    computation = make_computation()
    expected = results(InProcessGroup(computation), computation, batch(2))
    pool = pools.start(2, computation)
    for _ in range(3):
        pool.run(batch(2))
    victim = worker_pids(pool)[0]
    os.kill(victim, signal.SIGSTOP)
    select, num_slices = selectors.DefaultSelector.select, 0

    def sleeping(selector: selectors.DefaultSelector, seconds: float) -> Any:
        nonlocal num_slices
        answers = select(selector, seconds)
        num_slices += 1
        if num_slices < 4:  # as if the coordinator had been stopped: the time goes on and nobody looks
            time.sleep(0.5)
        else:
            os.kill(victim, signal.SIGCONT)
        return answers

    monkeypatch.setattr(selectors.DefaultSelector, "select", sleeping)
    assert results(pool, computation, batch(2)) == expected
    assert num_slices >= 4
    assert pools.log == []
