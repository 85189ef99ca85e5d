"""The pool of worker processes: a mailbox and two pipes each, no lock, no queue, no barrier.

A killed holder of a lock would hang the others, and so would a killed reader of a queue; a killed owner of a
pipe is seen at once, as its end. Commands and answers go through mailboxes in shared memory; the pipes wake who sleeps,
and the coordinator waits on all of them with one selector. What a dead worker had been told to compute is given to the
next free one, and the worker gets a successor.

A worker that is silent for too long is killed. Only silence that the coordinator has heard counts: it listens in
slices, and a slice that took much longer than it should have is one in which the coordinator itself was stopped.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import multiprocessing
import multiprocessing.resource_tracker
import os
import selectors
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Protocol

from partrain.errors import FailedRun
from partrain.parallel.workers import timeouts
from partrain.parallel.workers.commands import Command
from partrain.parallel.workers.fork_server import (
    PRELOAD_MODULE,
    conditions_for_children,
    end_fork_server,
    fork_server_pid,
    kill_fork_server,
    start_fork_server,
)
from partrain.parallel.workers.mailboxes import TURNS, WAKE, Mailboxes
from partrain.parallel.workers.process import WorkerProcess
from partrain.parallel.workers.tile_computer import Computation, TileComputer
from partrain.parallel.workers.waiting import SPIN_SECONDS, SpinChoice, spin
from partrain.parallel.workers.worker import ERROR, HELLO, REPLY_BYTES, work
from partrain.system.fault_injection import kill_point
from partrain.system.machine import available_processors, processor_quota

# How often a command may fail with an exception: once more elsewhere, for it could have been that machine's
# memory or a signal; the second time it is the program.
MAX_ATTEMPTS = 2

# How long a worker may take to end after its pipe was closed, before it is killed. Liveness only.
SHUTDOWN_SECONDS = 5.0

# The coordinator listens for so long at a time. A slice of more than twice that is not counted as silence.
SLICE_SECONDS = 0.1

# Where there are more workers than processors, how many calls of `run` a turn lasts. In the first one of a turn the
# caches are cold, the workers sleep, and the system may wake two of them on one processor: with turns of 4 calls a step
# took 1.1 times as long as with turns of 16.
TURN_RUNS = 8

# How often a worker's start is tried where the fork server dies during it.
MAX_STARTS = 5


class ComputeGroup(Protocol):
    """Whoever carries out commands: a pool of workers, or the coordinator itself."""

    num_at_once: int  # into so many commands a batch is best cut
    num_tiles_computed: dict[str, int]

    @property
    def pids(self) -> list[int]:
        """The processes besides the coordinator."""

    def run(self, commands: Sequence[Command]) -> None:
        """Return when all commands have been carried out."""

    def close(self) -> None:
        """End all processes."""


class Inline:
    """Computes in the calling process: for debugging and profiling. The same bits as with any pool."""

    def __init__(self, computation: Computation) -> None:
        self._computer = TileComputer(computation)
        self._tiling = computation.tiling
        self.num_at_once = 1
        self.num_tiles_computed = {"coordinator": 0}

    @property
    def pids(self) -> list[int]:
        """No process."""
        return []

    def run(self, commands: Sequence[Command]) -> None:
        """Carry out all commands, in their order."""
        for command in commands:
            self._computer.carry_out(command)
            if command.operation.is_step:
                self.num_tiles_computed["coordinator"] += self._tiling.num_tiles(command.last - command.first)

    def close(self) -> None:
        """Do nothing: there are no processes."""


@dataclass
class _Task:
    command: Command
    attempts: int = 0


@dataclass
class _Worker:
    name: str
    number: int
    process: WorkerProcess
    commands: Connection
    replies: Connection
    task: _Task | None = None
    has_begun: bool = False
    silent_s: float = 0.0


class WorkerPool:
    """`num_workers` processes that carry out commands.

    Parameters
    ----------
    num_workers : how many; at least 1.
    computation : what they compute on.
    max_restarts : how many dead workers are replaced, all together, before the run fails.
    log : called with a line for the log.
    num_processors : on how many they compute; None: as many as may be used.

    Where there are more workers than processors, they take turns: a worker that shares its processor would only be in
    the other's way (measured by `partrain bench`: 8 workers on 2 processors all at once took 1.5 times as long as 2).
    A worker whose turn lasts waits for its next command without sleeping, for a moment; so does the coordinator for
    answers, when fewer workers compute than there are processors.

    Attributes
    ----------
    num_at_once : how many of the workers compute at once.
    dispatching_at, dispatched_at : when the last `run` began to give workers their first commands, and when each had
        one, as `time.monotonic` counts.

    Side effects
    ------------
    Starts the fork server of `multiprocessing`, if it does not run yet, and the workers.
    """

    def __init__(
        self,
        num_workers: int,
        computation: Computation,
        *,
        max_restarts: int,
        log: Callable[[str], None],
        num_processors: int | None = None,
    ) -> None:
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._context = multiprocessing.get_context(method)
        self._computation = computation
        self._max_restarts = max_restarts
        self._log = log
        self._num_restarts = 0
        self._patience = timeouts.Patience()
        self._selector = selectors.DefaultSelector()
        self.dispatching_at = self.dispatched_at = 0.0
        num_processors = num_processors or available_processors()
        self.num_at_once = min(num_workers, num_processors)
        self._num_processors = num_processors
        # Where the processors' time is rationed, that of the coordinator comes on top of theirs, and all are held up.
        self._workers_may_spin = self.num_at_once < num_processors or processor_quota() == math.inf
        self._spins = True
        self._more_follows = False
        self._spin_choices: defaultdict[tuple[int, int], SpinChoice] = defaultdict(SpinChoice)
        self._mailboxes = Mailboxes(num_workers)
        self.num_tiles_computed = {f"worker {k}": 0 for k in range(num_workers)}
        self._names = list(self.num_tiles_computed)
        self._turns = deque(self._names)
        self._num_runs = 0
        self._workers: dict[str, _Worker] = {}
        try:
            for name in self.num_tiles_computed:
                self._start(name)
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """The processes of the pool, the fork server among them."""
        server = [pid] if (pid := fork_server_pid()) else []
        return server + [worker.process.pid for worker in self._workers.values()]

    def run(self, commands: Sequence[Command]) -> None:
        """Return when all commands have been carried out, each by one worker at a time.

        Raises
        ------
        FailedRun
            A command raised in two workers, or more workers died or hung than `max_restarts`.
        """
        if not commands:
            return
        waiting = deque(_Task(command) for command in commands)
        num_unfinished = len(waiting)
        operation, num_examples = commands[0].operation, sum(command.last - command.first for command in commands)
        choice = self._spin_choices[operation, num_examples]
        self._spins = choice.spins
        kill_point("coordinator: before the commands")
        names = self._next_in_turn(num_unfinished)
        self._more_follows = self._turn_lasts and self._spins and self._workers_may_spin
        self.dispatching_at = time.monotonic()
        for name in names:
            self._give(self._workers[name], waiting)
        kill_point("coordinator: during the commands")
        began = now = self.dispatched_at = time.monotonic()
        num_restarts = self._num_restarts
        was_smooth = all(worker.has_begun for worker in self._workers.values())
        while num_unfinished:
            before = now
            # While all processors compute it sleeps: it would keep two workers on one of them.
            num_computing = num_unfinished - len(waiting)
            answered, ready = self._await(may_spin=self._spins and num_computing < self._num_processors)
            now = time.monotonic()
            if answered:
                num_unfinished -= 1
                self._finish(self._workers[answered], waiting)
            for key, _ in ready:
                self._receive(key.data, waiting)
            if now - before > 2 * SLICE_SECONDS:
                was_smooth = False
            elif not (answered or ready):
                self._count_silence(now - before, waiting)
        if was_smooth and num_restarts == self._num_restarts:
            choice.learn(now - self.dispatching_at)
            # As if the commands had been spread evenly: good enough for a bound, and no command is timed by itself.
            self._patience.learn(operation, num_examples, (now - began) * len(self._workers))

    def _await(self, *, may_spin: bool) -> tuple[str | None, list[tuple[selectors.SelectorKey, int]]]:
        """Return whose answer there is, or else which pipes there is something in; neither after a slice of silence."""
        name = spin(lambda: self._take_answer(TURNS), SPIN_SECONDS) if may_spin else self._take_answer()
        if name:
            return name, []
        self._mailboxes.say_asleep(True)
        try:
            if name := self._take_answer():
                return name, []
            return None, self._selector.select(SLICE_SECONDS)
        finally:
            self._mailboxes.say_asleep(False)

    def _take_answer(self, turns: int = 0) -> str | None:
        number = self._mailboxes.take_answer(turns)
        return None if number is None else self._names[number]

    def _next_in_turn(self, num_commands: int) -> list[str]:
        """Return the workers that take the first commands: as many as can compute at once, in turns."""
        if self._num_runs == TURN_RUNS:
            self._num_runs = 0
            self._turns.rotate(-self.num_at_once)
        self._num_runs += 1
        return list(itertools.islice(self._turns, min(num_commands, self.num_at_once)))

    @property
    def _turn_lasts(self) -> bool:
        """Whether who computes now will do so in the next `run`, too."""
        return self._num_runs < TURN_RUNS or self.num_at_once == len(self._names)

    def close(self) -> None:
        """End all workers: close their pipes, and kill whoever does not end by it."""
        for worker in self._workers.values():
            _close_pipes(worker)
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        for worker in self._workers.values():
            with contextlib.suppress(FailedRun):  # it is killed, if not gone: nothing is to be computed any more
                worker.process.end(max(0.0, deadline - time.monotonic()))
        self._workers.clear()
        self._selector.close()
        self._mailboxes.close()

    def _give(self, worker: _Worker, waiting: deque[_Task]) -> None:
        """Send the next waiting task, if there is one and the worker has none."""
        if worker.task is not None or not waiting:
            return
        worker.task = waiting.popleft()
        worker.silent_s = 0.0
        if self._mailboxes.post(worker.number, worker.task.command.encode(), more_follows=self._more_follows):
            with contextlib.suppress(ConnectionError):  # it has died; its pipe's end will say so to `_receive`
                os.write(worker.commands.fileno(), WAKE)

    def _finish(self, worker: _Worker, waiting: deque[_Task]) -> None:
        """Note that a worker has carried out its command, and give it the next."""
        if not worker.has_begun:
            self._receive(worker.name, waiting)  # its hello must be there
        worker.silent_s = 0.0
        task, worker.task = worker.task, None
        assert task is not None
        if task.command.operation.is_step:
            num_examples = task.command.last - task.command.first
            self.num_tiles_computed[worker.name] += self._computation.tiling.num_tiles(num_examples)
        self._give(worker, waiting)

    def _receive(self, name: str, waiting: deque[_Task]) -> None:
        """Take what a worker has sent through its pipe."""
        worker = self._workers[name]
        try:
            replies = os.read(worker.replies.fileno(), 2 * REPLY_BYTES)
        except ConnectionError:
            replies = b""
        if not replies:
            self._retire(worker)
            self._replace(worker, worker.process.end(SHUTDOWN_SECONDS), waiting)
            return
        worker.silent_s = 0.0
        if replies.startswith(HELLO):
            worker.has_begun = True
            if replies[1:2] != b"1":
                self._log(f"{name} found no preloaded kernels and loaded them itself")
            replies = replies[2:]
        replies = replies.lstrip(WAKE)
        if replies:
            assert replies.startswith(ERROR)
            task, worker.task = worker.task, None
            self._retry(worker, task, replies[1:].decode(errors="replace"), waiting)

    def _retry(self, worker: _Worker, task: _Task | None, worker_traceback: str, waiting: deque[_Task]) -> None:
        """Have a task that raised in `worker` tried once more, elsewhere if there is another worker."""
        if task is None or task.attempts + 1 == MAX_ATTEMPTS:
            raise FailedRun(f"{worker.name} failed; its own traceback:\n\n{worker_traceback.rstrip()}")
        self._log(f"{worker.name} raised, the tiles are tried once more:\n{worker_traceback.rstrip()}")
        task.attempts += 1
        waiting.append(task)
        others = [w for w in self._workers.values() if w is not worker]
        idle = next((w for w in others if w.task is None), None)
        if idle or not others:
            self._give(idle or worker, waiting)
        # else the first of the others that is done takes it

    def _count_silence(self, seconds: float, waiting: deque[_Task]) -> None:
        """Count that no worker was heard for `seconds`; kill and replace those that have been silent for too long."""
        for worker in list(self._workers.values()):
            if not worker.has_begun:
                limit, what = timeouts.START_UP_SECONDS, "to begin"
            elif worker.task is not None:
                command = worker.task.command
                limit = self._patience.limit(command.operation, command.last - command.first)
                what = f"for {command.last - command.first} examples"
            else:
                continue
            worker.silent_s += seconds
            if worker.silent_s > limit:
                self._retire(worker)
                worker.process.end(0.0)
                self._replace(worker, f"hung: it took {worker.silent_s:.0f} s {what}, and was killed", waiting)

    def _replace(self, dead: _Worker, cause: str, waiting: deque[_Task]) -> None:
        """Start a successor of a worker whose end is certain, and have its task done by somebody."""
        if dead.task is not None:
            waiting.appendleft(dead.task)
        if self._num_restarts == self._max_restarts:
            del self._workers[dead.name]
            raise FailedRun(
                f"{dead.name} {cause}, and {self._max_restarts} workers have been replaced already "
                "(workers.max_restarts)"
            )
        self._num_restarts += 1
        self._log(f"{dead.name} {cause}; a successor takes its place")
        self._give(self._start(dead.name), waiting)

    def _retire(self, worker: _Worker) -> None:
        self._selector.unregister(worker.replies)
        _close_pipes(worker)

    def _start(self, name: str) -> _Worker:
        number = self._names.index(name)
        self._mailboxes.clear(number)
        for attempt in range(1, MAX_STARTS + 1):
            try:
                process, commands, replies = self._start_process(name, number)
                break
            except (EOFError, ConnectionError) as error:
                # A worker that may have been forked all the same has lost its pipe, and ends.
                if attempt == MAX_STARTS:
                    raise FailedRun(f"{name} cannot be started: the fork server died {MAX_STARTS} times") from error
                self._log(f"the fork server died while it started {name}; another takes its place")
                end_fork_server()
        worker = self._workers[name] = _Worker(name, number, WorkerProcess(process), commands, replies)
        self._selector.register(replies, selectors.EVENT_READ, name)
        return worker

    def _start_process(self, name: str, number: int) -> tuple[BaseProcess, Connection, Connection]:
        # One for each direction: what goes both ways is a pair of sockets, and a message through it takes longer.
        far_commands, commands = self._context.Pipe(duplex=False)
        replies, far_replies = self._context.Pipe(duplex=False)
        process = self._context.Process(  # type: ignore[attr-defined]
            target=work,
            args=(
                far_commands,
                far_replies,
                self._mailboxes.arrays,
                number,
                len(self._names),
                self._computation,
                PRELOAD_MODULE,
            ),
            name=f"partrain {name}",
            daemon=True,
        )
        start_fork_server(self._computation.kernels, self._computation.dtype)
        # A fork server that is stopped would let the start wait for ever; killed, it makes it fail.
        watch = threading.Timer(timeouts.START_UP_SECONDS, kill_fork_server)
        watch.start()
        try:
            with (
                far_commands,
                far_replies,
                conditions_for_children(self._computation.kernels, self._computation.dtype),
            ):
                process.start()
        except BaseException:
            commands.close()
            replies.close()
            raise
        finally:
            watch.cancel()
            watch.join()
        return process, commands, replies


def _close_pipes(worker: _Worker) -> None:
    worker.commands.close()
    worker.replies.close()


def start_group(
    num_workers: int,
    computation: Computation,
    *,
    max_restarts: int,
    log: Callable[[str], None],
    num_processors: int | None = None,
) -> ComputeGroup:
    """Return who carries out commands: a pool, or with 0 workers this process. See `WorkerPool`."""
    if num_workers:
        return WorkerPool(num_workers, computation, max_restarts=max_restarts, log=log, num_processors=num_processors)
    return Inline(computation)
