"""Series of steps that the workers of a pool make by themselves: how they end when a worker fails."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from partrain.config.schema.optimizer import Optimizer
from partrain.errors import DataError, FailedRun
from partrain.network.optimizer import ParameterOptimizer
from partrain.parallel.update.lent_moments import LentMoments
from partrain.parallel.update.parameter_update import ParameterUpdate
from partrain.parallel.workers import timeouts
from partrain.parallel.workers.commands import Operation
from partrain.parallel.workers.in_process_group import InProcessGroup
from partrain.parallel.workers.planned_steps import PlannedStep, StepRing
from partrain.parallel.workers.pool import SeriesEnd, WorkerPool
from partrain.parallel.workers.process import WorkerProcess
from partrain.parallel.workers.tile_computer import Computation
from partrain.system.shared_arrays import MappedFile
from tests.optimizers import optimizer_of
from tests.parallel.workers.pools import REPLACED, Pools, batch, worker_pids
from tests.processes import is_running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")

Make = Callable[..., Computation]
Event = Callable[[StepRing], object]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers count as hung soon."""
    monkeypatch.setattr(timeouts, "MIN_SECONDS", 0.3)
    monkeypatch.setattr(timeouts, "SAFETY_FACTOR", 1.0)


def adam_of(computation: Computation) -> ParameterOptimizer:
    optimizer = Optimizer(lr=0.01, weight_decay=0.1)
    vector, parameters = computation.arrays["parameters"], computation.network.parameters
    return optimizer_of(vector, optimizer, parameters=parameters, tile=computation.tiling.tile_size)


def parameters_after(make: Make, num_steps: int, **options: object) -> bytes:
    """Return the parameters of the coordinator's own steps."""
    computation = make(**options)
    adam = adam_of(computation)
    update = ParameterUpdate(computation.network, "fast", computation.arrays, computation.tiling, "float32", adam, 1)
    for step in range(1, num_steps + 1):
        InProcessGroup(computation).run(batch(1))
        assert update.apply(20, step) is None
    update.close()
    return adam.parameters.tobytes()


def planned(
    step: int, computation: Computation, adam: ParameterOptimizer, operation: int = Operation.GRADIENTS
) -> PlannedStep:
    coefficients = np.array(adam.coefficients(20, step), np.float32)
    return PlannedStep(step, operation, 0, computation.arrays["indices"].copy(), coefficients)  # type: ignore[arg-type]


def run(pool: WorkerPool, computation: Computation, events: Iterator[object]) -> SeriesEnd:
    """Run a series from step 1; an event of `events` follows at each look, and it may be None."""
    LentMoments(adam_of(computation), computation.arrays).lend(0)

    def follow(ring: StepRing) -> float:
        event = next(events, None)
        if callable(event):
            event(ring)
        return 0.01

    return pool.run_steps(1, 20, follow)


def until(condition: Callable[[], object]) -> Iterator[None]:
    """Let the pool look until a condition holds."""
    while not condition():
        yield None


def close_after(computation: Computation, num_steps: int) -> Iterator[Event]:
    adam = adam_of(computation)
    yield lambda ring: ring.plan([planned(step, computation, adam) for step in range(1, num_steps + 1)])
    yield lambda ring: ring.close()


@pytest.mark.parametrize(("num_workers", "block"), [(1, 3), (2, None), (5, 6)])
def test_series_has_the_parameters_of_the_coordinators_steps(
    make_computation: Make, pools: Pools, num_workers: int, block: int | None
) -> None:
    computation = make_computation(plans_steps=True, block=block)
    pool = pools.start(num_workers, computation)
    assert run(pool, computation, close_after(computation, 2)) == SeriesEnd(2, None)
    assert computation.arrays["parameters"].tobytes() == parameters_after(make_computation, 2, block=block)
    assert sum(pool.num_tiles_computed.values()) == 14
    assert pools.log == []


def test_worker_that_is_killed_ends_the_series_with_the_last_complete_step(
    make_computation: Make, pools: Pools
) -> None:
    computation = make_computation(plans_steps=True)
    pool, adam = pools.start(3, computation), adam_of(computation)

    def events() -> Iterator[object]:
        rings: list[StepRing] = []
        yield rings.append
        rings[0].plan([planned(1, computation, adam)])
        yield from until(lambda: rings[0].completed == 1)
        os.kill(worker_pids(pool)[1], signal.SIGKILL)

    assert run(pool, computation, events()) == SeriesEnd(1, None)
    assert computation.arrays["parameters"].tobytes() == parameters_after(make_computation, 1)
    assert len(pools.log) == 1
    assert re.match(REPLACED, pools.log[0])
    pool.run(batch(3))


def test_death_that_is_one_too_many_is_the_error_of_the_series(make_computation: Make, pools: Pools) -> None:
    computation = make_computation(plans_steps=True)
    pool = pools.start(2, computation, max_restarts=0)
    end = run(pool, computation, iter([lambda ring: os.kill(worker_pids(pool)[0], signal.SIGKILL)]))
    assert end.last_step == 0
    assert isinstance(end.error, FailedRun)
    assert "worker 0 was killed by SIGKILL; the limit on replacements" in str(end.error)


def test_worker_that_the_kernel_holds_is_the_error_of_the_series(
    make_computation: Make, pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    computation = make_computation(plans_steps=True)
    pool = pools.start(2, computation)

    def held(process: WorkerProcess, timeout_s: float) -> str:
        raise FailedRun(f"process {process.pid} does not end")

    def kill(ring: StepRing) -> None:
        monkeypatch.setattr(WorkerProcess, "end", held)
        os.kill(worker_pids(pool)[0], signal.SIGKILL)

    end = run(pool, computation, iter([kill]))
    monkeypatch.undo()
    assert end.last_step == 0
    assert isinstance(end.error, FailedRun)
    assert "does not end" in str(end.error)


def test_worker_that_raises_ends_the_series_and_is_not_replaced(make_computation: Make, pools: Pools) -> None:
    computation = make_computation(plans_steps=True)
    pool, adam = pools.start(2, computation), adam_of(computation)
    before = worker_pids(pool)
    plan = [planned(1, computation, adam), planned(2, computation, adam, operation=99)]
    assert run(pool, computation, iter([lambda ring: ring.plan(plan)])) == SeriesEnd(1, None)
    assert computation.arrays["parameters"].tobytes() == parameters_after(make_computation, 1)
    assert worker_pids(pool) == before
    assert re.match(r"^worker \d raised an exception; retrying its tiles once:\nTraceback", pools.log[0])
    assert "99 is not a valid Operation" in pools.log[0]


def test_file_that_is_truncated_between_two_steps_ends_the_series(
    make_computation: Make, pools: Pools, tmp_path: Path
) -> None:
    computation = make_computation(plans_steps=True)
    images, path = computation.arrays["train.images"], tmp_path / "images"
    path.write_bytes(images.tobytes())
    computation.arrays.files["train.images"] = MappedFile(str(path), 0, images.shape, "|u1")
    pool, adam = pools.start(2, computation), adam_of(computation)

    def events() -> Iterator[object]:
        rings: list[StepRing] = []
        yield rings.append
        rings[0].plan([planned(1, computation, adam)])
        yield from until(lambda: rings[0].completed == 1)
        os.truncate(path, 0)
        rings[0].plan([planned(2, computation, adam)])

    end = run(pool, computation, events())
    assert end.last_step == 1
    assert isinstance(end.error, DataError)
    assert f"{path}: ends before example" in str(end.error)
    assert computation.arrays["parameters"].tobytes() == parameters_after(make_computation, 1)


def test_exception_of_the_coordinator_ends_the_series(make_computation: Make, pools: Pools) -> None:
    computation = make_computation(plans_steps=True)
    pool, error = pools.start(2, computation), ValueError("bad callback")

    def fail(ring: StepRing) -> None:
        raise error

    assert run(pool, computation, iter([fail])) == SeriesEnd(0, error)
    pool.run(batch(2))
    assert pools.log == []


def after_a_series(pool: WorkerPool, computation: Computation) -> None:
    """Let all workers begin, and let the pool know how long a step takes."""
    for _ in range(2):
        pool.run(batch(2))
        run(pool, computation, close_after(computation, 1))
        computation.arrays["parameters"][:] = computation.network.parameters.initial_values(0, "float32")


@pytest.mark.usefixtures("impatient")
def test_worker_that_hangs_after_its_last_step_is_killed(make_computation: Make, pools: Pools) -> None:
    computation = make_computation(plans_steps=True)
    pool, adam = pools.start(2, computation), adam_of(computation)
    after_a_series(pool, computation)
    victim = worker_pids(pool)[1]

    def events() -> Iterator[object]:
        rings: list[StepRing] = []
        yield rings.append
        rings[0].plan([planned(1, computation, adam)])
        yield from until(lambda: rings[0].completed == 1)
        os.kill(victim, signal.SIGSTOP)
        rings[0].close()

    assert run(pool, computation, events()) == SeriesEnd(1, None)
    assert computation.arrays["parameters"].tobytes() == parameters_after(make_computation, 1)
    assert not is_running(victim)
    assert re.match(r"^worker 1 hung: silent for 0 s with 20 examples to compute; killed; starting", pools.log[0])


@pytest.mark.usefixtures("impatient")
def test_worker_that_hangs_ahead_of_one_that_died_is_killed(make_computation: Make, pools: Pools) -> None:
    computation = make_computation(plans_steps=True)
    pool, adam = pools.start(2, computation), adam_of(computation)
    after_a_series(pool, computation)
    ahead, behind = worker_pids(pool)

    def events() -> Iterator[object]:
        rings: list[StepRing] = []
        yield rings.append
        os.kill(behind, signal.SIGSTOP)
        rings[0].plan([planned(1, computation, adam)])
        yield from until(lambda: max(rings[0].reports()) == [0, 1])
        os.kill(ahead, signal.SIGSTOP)
        os.kill(behind, signal.SIGKILL)

    assert run(pool, computation, events()) == SeriesEnd(0, None)
    assert computation.arrays["parameters"].tobytes() == parameters_after(make_computation, 0)
    assert not is_running(ahead)
    assert len(pools.log) == 2
