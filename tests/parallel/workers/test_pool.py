from __future__ import annotations

import os
import re
import selectors
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from partrain.data.split_name import SplitName
from partrain.errors import FailedRun
from partrain.parallel.workers import timeouts, turns
from partrain.parallel.workers.commands import Command, Operation
from partrain.parallel.workers.fork_server import THREAD_VARIABLES
from partrain.parallel.workers.in_process_group import InProcessGroup
from partrain.parallel.workers.mailboxes import Mailboxes
from partrain.parallel.workers.pool import WorkerPool
from partrain.parallel.workers.tile_computer import Computation
from partrain.parallel.workers.tiles import Tiling
from partrain.parallel.workers.worker_start import WorkerStarter
from tests.processes import is_running, list_processes, wait_until
from tests.program import PartrainProcess
from tests.small_run import ENDLESS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")

TRAIN, TEST = SplitName.TRAIN, SplitName.TEST
# A command that no worker can carry out: the computation has no examples for validation.
UNCOMPUTABLE = Command(Operation.GRADIENTS, SplitName.VALIDATION, 0, 3)
REPLACED = r"^worker \d was killed by SIGKILL; starting a replacement$"


def batch(num_shards: int) -> list[Command]:
    return [Command(Operation.GRADIENTS, TRAIN, first, last) for first, last in Tiling(3).shards(0, 20, num_shards)]


def results(group: Any, computation: Computation, commands: list[Command]) -> dict[str, bytes]:
    """Return the bytes of all that the commands make, written over what was there."""
    names = [n for n in computation.arrays if n in ("tile_sums", "losses", "predictions") or n.startswith("dense")]
    for name in names:
        computation.arrays[name][...] = -77
    group.run(commands)
    return {name: computation.arrays[name].tobytes() for name in names}


class Pools:
    """Makes pools, keeps what they log, and closes them."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.log_line: Callable[[str], object] = self.log.append
        self._pools: list[WorkerPool] = []

    def start(
        self, num_workers: int, computation: Computation, *, max_restarts: int = 8, num_processors: int = 64
    ) -> WorkerPool:
        pool = WorkerPool(
            num_workers, computation, max_restarts=max_restarts, log=self.log_line, num_processors=num_processors
        )
        self._pools.append(pool)
        return pool

    def close(self) -> None:
        for pool in self._pools:
            pool.close()


@pytest.fixture
def pools() -> Iterator[Pools]:
    made = Pools()
    yield made
    made.close()


def server_pid() -> int:
    pid: int | None = forkserver._forkserver._forkserver_pid
    assert pid is not None
    return pid


def worker_pids(pool: WorkerPool) -> list[int]:
    return [pid for pid in pool.pids if pid != server_pid()]


def kill(*pids: int, number: int = signal.SIGKILL) -> None:
    for pid in pids:
        os.kill(pid, number)
    for pid in pids:
        wait_until(lambda pid=pid: not is_running(pid), f"the end of process {pid}")


def cpu_ticks(pid: int) -> int:
    return next((entry.cpu_ticks for entry in list_processes() if entry.pid == pid), 0)


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


def test_killed_fork_server_is_started_anew_with_the_next_worker(
    make_computation: Callable[..., Computation], pools: Pools
) -> None:
    computation = make_computation()
    expected = results(InProcessGroup(computation), computation, batch(2))
    pool = pools.start(2, computation)
    pool.run(batch(2))
    first_server, first_workers = server_pid(), worker_pids(pool)
    kill(first_server)
    assert results(pool, computation, batch(2)) == expected  # its children live
    kill(first_workers[0])
    assert results(pool, computation, batch(2)) == expected
    assert results(pool, computation, batch(2)) == expected
    assert server_pid() != first_server
    pids = pool.pids
    pool.close()
    for pid in {*pids, *first_workers} - {server_pid()}:
        wait_until(lambda pid=pid: not is_running(pid), f"the end of process {pid}")
    assert len(pools.log) == 1
    assert "starting a replacement" in pools.log[0]


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


@pytest.mark.parametrize("exception", [EOFError, ConnectionRefusedError, BrokenPipeError])
def test_fork_server_that_dies_while_it_starts_a_worker_is_started_anew(
    make_computation: Callable[..., Computation],
    pools: Pools,
    monkeypatch: pytest.MonkeyPatch,
    exception: type[Exception],
) -> None:
    start, failures = ForkServerProcess.start, [exception(), exception()]

    def failing(process: ForkServerProcess) -> None:
        if failures:
            raise failures.pop()
        start(process)

    monkeypatch.setattr(ForkServerProcess, "start", failing)
    pools.start(1, make_computation()).run(batch(1))
    assert pools.log == ["the fork server died while it started worker 0; starting another one"] * 2
    failures += [exception() for _ in range(5)]
    with pytest.raises(FailedRun, match="the fork server died 5 times"):
        pools.start(1, make_computation())


def test_fork_server_killed_just_before_a_start_is_started_anew(
    make_computation: Callable[..., Computation], pools: Pools
) -> None:
    computation = make_computation()
    expected = results(InProcessGroup(computation), computation, batch(2))
    pools.start(1, computation).run(batch(2))
    for _ in range(3):
        os.kill(server_pid(), signal.SIGKILL)  # and not waited for
        assert results(pools.start(1, computation), computation, batch(2)) == expected


def test_stopped_fork_server_holds_up_neither_a_start_nor_an_end(
    make_computation: Callable[..., Computation], pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    computation = make_computation()
    expected = results(InProcessGroup(computation), computation, batch(2))
    pool = pools.start(2, computation)
    pool.run(batch(2))
    monkeypatch.setattr(timeouts, "START_UP_SECONDS", 0.5)
    usual_log = pools.log.append
    # The next fork server gets the usual time.
    monkeypatch.setattr(pools, "log_line", lambda line: (usual_log(line), monkeypatch.undo()))
    os.kill(server_pid(), signal.SIGSTOP)
    assert results(pools.start(1, computation), computation, batch(2)) == expected
    assert pools.log == ["the fork server died while it started worker 0; starting another one"]
    os.kill(server_pid(), signal.SIGSTOP)
    pids = worker_pids(pool)
    pool.close()
    assert not [pid for pid in pids if is_running(pid)]


def test_pool_of_other_kernels_after_a_pool_has_the_right_ones(
    make_computation: Callable[..., Computation], pools: Pools
) -> None:
    for kernels, dtype in (("fast", "float32"), ("loops", "float64"), ("fast", "float32")):
        computation = make_computation(kernels=kernels, dtype=dtype)
        expected = results(InProcessGroup(computation), computation, batch(2))
        pool = pools.start(2, computation)
        assert results(pool, computation, batch(2)) == expected
        pool.close()


@pytest.mark.parametrize("moment", ["while it trains", "at start-up"])
def test_workers_of_a_killed_coordinator_are_soon_gone(
    start_partrain: Callable[..., PartrainProcess], small_config: Callable[..., Path], moment: str
) -> None:
    process = start_partrain("--config", small_config(ENDLESS), "--workers", 3, "--runs-dir", "runs")
    if moment == "while it trains":
        process.wait_for_training()
        assert len(process.workers()) == 3
    else:
        wait_until(process.workers, "the first worker", 120)
    process.send(signal.SIGKILL)
    result = process.wait()  # which looks for its processes, too
    assert result.exit_code == -signal.SIGKILL


def test_worker_looks_for_the_end_of_its_pipe_in_the_middle_of_a_command(
    make_computation: Callable[..., Computation], pools: Pools
) -> None:
    computation = make_computation(kernels="loops", dtype="float64", num_test=200_000)
    predictions = computation.arrays["predictions"]
    predictions[:] = -1
    boxes = Mailboxes(1)
    worker = WorkerStarter(1, computation, boxes.arrays, pools.log.append).start("worker 0", 0)
    boxes.post(0, Command(Operation.EVALUATION, TEST, 0, len(predictions)).encode())
    worker.wake()
    wait_until(lambda: predictions[0] >= 0, "that it computes")
    worker.commands.close()
    wait_until(lambda: not is_running(worker.process.pid), "its end")
    assert predictions[-1] == -1
    assert worker.process.end(5.0) == "ended with exit code 0"
    worker.close_pipes()
    boxes.close()
