from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from partrain.parallel.workers import turns
from partrain.parallel.workers.commands import Command, Operation
from partrain.parallel.workers.fork_server import THREAD_VARIABLES
from partrain.parallel.workers.in_process_group import InProcessGroup
from partrain.parallel.workers.tile_computer import Computation
from tests.parallel.workers.pools import (
    TEST,
    Pools,
    batch,
    results,
    worker_pids,
)
from tests.processes import is_running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


@pytest.mark.parametrize("num_workers", [1, 2, 5])
@pytest.mark.parametrize(("kernels", "dtype"), [("fast", "float32"), ("loops", "float64")])
def test_pool_computes_the_bits_of_the_coordinator(
    make_computation: Callable[..., Computation], pools: Pools, num_workers: int, kernels: str, dtype: str
) -> None:
    computation = make_computation(kernels=kernels, dtype=dtype)
    expected = results(InProcessGroup(computation), computation, batch(1))
    pool = pools.start(num_workers, computation)
    for num_shards in (num_workers, 7):
        assert results(pool, computation, batch(num_shards)) == expected
    assert pools.log == []


def test_each_worker_is_a_process_that_computes_and_is_counted(
    make_computation: Callable[..., Computation], pools: Pools
) -> None:
    computation = make_computation()
    pool = pools.start(3, computation)
    assert len(set(worker_pids(pool))) == 3
    assert os.getpid() not in pool.pids
    for _ in range(2):
        pool.run(batch(3))
    counts = pool.num_tiles_computed
    assert list(counts) == ["worker 0", "worker 1", "worker 2"]
    assert counts == {"worker 0": 4, "worker 1": 4, "worker 2": 6}


def test_more_workers_than_processors_take_turns(
    make_computation: Callable[..., Computation], pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "TURN_RUNS", 2)
    computation = make_computation()
    expected = results(InProcessGroup(computation), computation, batch(1))
    pool = pools.start(5, computation, num_processors=2)
    assert pool.num_at_once == 2
    for _ in range(20):
        assert results(pool, computation, batch(2)) == expected
    assert set(pool.num_tiles_computed.values()) == {28}


def test_with_a_processor_for_each_all_workers_compute_at_once(
    make_computation: Callable[..., Computation], pools: Pools
) -> None:
    assert pools.start(3, make_computation(), num_processors=4).num_at_once == 3


def test_evaluation_counts_as_no_tile(make_computation: Callable[..., Computation], pools: Pools) -> None:
    computation = make_computation()
    inline = InProcessGroup(computation)
    for group in (inline, pools.start(1, computation)):
        group.run([Command(Operation.EVALUATION, TEST, 0, 50)])
        assert set(group.num_tiles_computed.values()) == {0}
    inline.run(batch(2))
    assert inline.num_tiles_computed == {"coordinator": 7}
    assert inline.pids == []
    inline.close()


def test_no_command_is_no_work(make_computation: Callable[..., Computation], pools: Pools) -> None:
    pools.start(2, make_computation()).run([])


def test_closed_pool_leaves_no_process(make_computation: Callable[..., Computation], pools: Pools) -> None:
    computation = make_computation()
    pool = pools.start(3, computation)
    pids = worker_pids(pool)
    pool.close()
    assert not [pid for pid in pids if is_running(pid)]
    pool.close()


def test_stopped_worker_does_not_hold_up_the_end(
    make_computation: Callable[..., Computation], pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("partrain.parallel.workers.pool.SHUTDOWN_SECONDS", 0.1)
    pool = pools.start(2, make_computation())
    pids = worker_pids(pool)
    os.kill(pids[0], signal.SIGSTOP)
    pool.close()
    assert not [pid for pid in pids if is_running(pid)]


def test_worker_has_one_thread_and_ignores_the_signals_of_the_group_from_birth(
    make_computation: Callable[..., Computation], pools: Pools
) -> None:
    computation = make_computation()
    expected = results(InProcessGroup(computation), computation, batch(2))
    pool = pools.start(2, computation)
    pids = worker_pids(pool)
    for pid in pool.pids:  # the fork server, too
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
    assert results(pool, computation, batch(2)) == expected
    assert worker_pids(pool) == pids
    assert pools.log == []
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text()
        assert re.search(r"^Threads:\t1$", status, re.MULTILINE)
        environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        assert {f"{name}=1" for name in THREAD_VARIABLES} <= set(environment)


def test_pool_of_other_kernels_after_a_pool_has_the_right_ones(
    make_computation: Callable[..., Computation], pools: Pools
) -> None:
    for kernels, dtype in (("fast", "float32"), ("loops", "float64"), ("fast", "float32")):
        computation = make_computation(kernels=kernels, dtype=dtype)
        expected = results(InProcessGroup(computation), computation, batch(2))
        pool = pools.start(2, computation)
        assert results(pool, computation, batch(2)) == expected
        pool.close()
