from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from partrain.errors import FailedRun
from partrain.parallel.workers import timeouts
from partrain.parallel.workers.commands import Command, Operation
from partrain.parallel.workers.in_process_group import InProcessGroup
from partrain.parallel.workers.mailboxes import Mailboxes
from partrain.parallel.workers.tile_computer import Computation
from partrain.parallel.workers.worker_start import WorkerStarter
from tests.parallel.workers.pools import (
    TEST,
    Pools,
    batch,
    kill,
    results,
    server_pid,
    worker_pids,
)
from tests.processes import is_running, wait_until
from tests.program import PartrainProcess, Result
from tests.small_run import ENDLESS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


def test_processes_run_no_file_of_the_current_directory(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    # The server of the tests has imported both; the fork server and the resource tracker import them.
    for name in ("threading", "selectors"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\nraise ValueError")
    assert run_partrain("--config", small_config(), "--workers", 1).exit_code == 0
    assert not (tmp_path / "ran").exists()


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


@pytest.mark.slow
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


@pytest.mark.slow
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
    worker = WorkerStarter(computation, boxes.arrays, pools.log.append).start("worker 0", 0)
    boxes.post(0, Command(Operation.EVALUATION, TEST, 0, len(predictions)).encode())
    worker.wake()
    wait_until(lambda: predictions[0] >= 0, "that it computes")
    worker.commands.close()
    wait_until(lambda: not is_running(worker.process.pid), "its end")
    assert predictions[-1] == -1
    assert worker.process.end(5.0) == "ended with exit code 0"
    worker.close_pipes()
    boxes.close()
