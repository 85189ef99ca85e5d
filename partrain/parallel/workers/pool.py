"""A pool of worker processes, without locks, queues or barriers.

If the holder of a lock or the reader of a queue is killed, all others hang. So each worker has a mailbox in shared
memory, for commands and answers, and two pipes. The pipes wake a sleeping process, carry exceptions, and show the death
of a worker at once, as end of file; the coordinator waits on all of them with one selector. When a worker dies, its
command goes to the next free worker, and a new worker takes its place.

A worker that is silent for too long is killed and replaced. Silence counts only while the coordinator listens: it
listens in slices, and a slice that took much longer than intended is one in which the coordinator itself was stopped.
"""

from __future__ import annotations

import contextlib
import math
import selectors
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from partrain.errors import DataError, FailedRun
from partrain.parallel.workers.commands import Command, Operation, StepsCommand
from partrain.parallel.workers.fork_server import fork_server_pid
from partrain.parallel.workers.mailboxes import NUM_YIELDS, WAKE, Mailboxes
from partrain.parallel.workers.planned_steps import StepRing, makes_steps
from partrain.parallel.workers.supervision import Supervision
from partrain.parallel.workers.tile_computer import Computation
from partrain.parallel.workers.turns import Turns
from partrain.parallel.workers.waiting import SPIN_SECONDS, SpinPolicy, spin
from partrain.parallel.workers.worker import BAD_DATA, ERROR, HELLO
from partrain.parallel.workers.worker_handle import Task, WorkerHandle
from partrain.parallel.workers.worker_start import WorkerStarter
from partrain.system.fault_injection import kill_point
from partrain.system.machine import available_processors, processor_quota

# How often a command may raise an exception. It is retried in another worker, because the cause may have been that
# process's memory, or a signal. The second time, the program is to blame.
MAX_FAILURES = 2

# How long a worker may take to end after its pipe was closed, before it is killed.
SHUTDOWN_SECONDS = 5.0

# How long the coordinator listens at a time. A slice of more than twice that does not count as silence.
SLICE_SECONDS = 0.1


class SeriesEnd(NamedTuple):
    """The end of a series of steps that workers made by themselves.

    Attributes
    ----------
    last_step : the last step that is complete; the parameters are its parameters. It comes before the last planned step
        if a step was refused, because a value is not finite, or if a worker failed; dead workers have been replaced.
    error : what ended the series; the caller raises it when it has committed the complete steps. It is an exception
        of `follow`, or the FailedRun or DataError that `WorkerPool.run` would raise.
    """

    last_step: int
    error: BaseException | None


class WorkerPool:
    """`num_workers` processes that carry out commands.

    Parameters
    ----------
    num_workers : at least 1.
    computation : the network, the arrays and the tiling that they compute with.
    max_restarts : the number of dead workers that are replaced, all together, before the run fails.
    log : called with each line for the log.
    num_processors : the number of processors to compute on; None: all that this process may use.

    If there are more workers than processors, they take turns (`Turns`). A worker whose turn continues spins for a
    moment before it sleeps; so does the coordinator while fewer workers compute than there are processors.

    Attributes
    ----------
    num_at_once : the number of workers that compute at the same time.
    dispatching_at, dispatched_at : when the last `run` began to post the first commands, and when all were posted;
        `time.monotonic`.

    Side effects
    ------------
    Starts the workers, and the fork server of `multiprocessing` if it does not run yet.
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
        self._computation, self._log = computation, log
        self._num_processors = num_processors or available_processors()
        self.num_at_once = min(num_workers, self._num_processors)
        self.dispatching_at = self.dispatched_at = 0.0
        # Under a CPU quota, the coordinator's spinning and the workers' draw on one budget, and all are throttled.
        self._workers_may_spin = self.num_at_once < self._num_processors or processor_quota() == math.inf
        self._spins = True
        self._more_follows = False
        self._spin_policies: defaultdict[tuple[int, int], SpinPolicy] = defaultdict(SpinPolicy)
        self.num_tiles_computed = {f"worker {k}": 0 for k in range(num_workers)}
        self._names = list(self.num_tiles_computed)
        self._turns = Turns(self._names, self.num_at_once)
        self._supervision = Supervision(max_restarts)
        self._mailboxes = Mailboxes(num_workers)
        self._ring: StepRing | None = None
        if makes_steps(computation):
            self._ring = StepRing(computation.arrays, self._mailboxes.arrays["members"])
        self._starter = WorkerStarter(computation, self._mailboxes.arrays, log)
        self._selector = selectors.DefaultSelector()
        self._workers: dict[str, WorkerHandle] = {}
        try:
            for name in self._names:
                self._start(name)
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """The process ids of the fork server and the workers."""
        server = [pid] if (pid := fork_server_pid()) else []
        return server + [worker.process.pid for worker in self._workers.values()]

    def run(self, commands: Sequence[Command]) -> None:
        """Return when all commands have been carried out, each by one worker at a time.

        Raises
        ------
        FailedRun
            A command raised an exception in two workers, or more workers died or hung than `max_restarts`.
        DataError
            A worker could not read its examples.
        """
        if not commands:
            return
        waiting = deque(Task(command) for command in commands)
        num_unfinished = len(waiting)
        operation, num_examples = commands[0].operation, sum(command.last - command.first for command in commands)
        policy = self._spin_policies[operation, num_examples]
        self._spins = policy.spins
        kill_point("coordinator: before the commands")
        names = self._turns.next(num_unfinished)
        self._more_follows = self._turns.continues and self._spins and self._workers_may_spin
        self.dispatching_at = time.monotonic()
        for name in names:
            self._give(self._workers[name], waiting)
        kill_point("coordinator: during the commands")
        began = now = self.dispatched_at = time.monotonic()
        num_restarts = self._supervision.num_restarts
        undisturbed = all(worker.has_begun for worker in self._workers.values())
        while num_unfinished:
            before = now
            # While workers compute on all processors the coordinator sleeps: spinning, it would displace one of them.
            num_computing = num_unfinished - len(waiting)
            answered, ready = self._await(may_spin=self._spins and num_computing < self._num_processors)
            now = time.monotonic()
            if answered:
                num_unfinished -= 1
                self._finish(self._workers[answered], waiting)
            for key, _ in ready:
                self._receive(self._workers[key.data], waiting)
            if now - before > 2 * SLICE_SECONDS:
                undisturbed = False
            elif not (answered or ready):
                self._add_silence(now - before, waiting)
        if undisturbed and num_restarts == self._supervision.num_restarts:
            policy.record(now - self.dispatching_at)
            # Assume that the work was spread evenly; that is accurate enough for timeouts.
            self._supervision.record(operation, num_examples, (now - began) * len(self._workers))

    @property
    def makes_steps(self) -> bool:
        """Whether the workers can make steps by themselves."""
        return self._ring is not None

    def run_steps(self, first_step: int, num_examples: int, follow: Callable[[StepRing], float]) -> SeriesEnd:
        """Let workers make a series of steps by themselves, until it is closed, or a worker fails.

        Parameters
        ----------
        first_step : the first step of the series.
        num_examples : the examples of a whole batch.
        follow : called at the beginning and whenever the coordinator wakes: plans steps, reads the results of completed
            ones, and closes the ring in the end. Returns how long the coordinator may sleep, in seconds.
        """
        ring, error = self._ring, None
        assert ring is not None
        members = [self._workers[name] for name in self._turns.next_series()]
        ring.open(first_step, len(members))
        self._more_follows = self._turns.continues and self._workers_may_spin
        began = time.monotonic()
        for member, worker in enumerate(members):
            self._give(worker, deque([Task(StepsCommand(first_step, num_examples, member, len(members)))]))
        while any(worker.task is not None for worker in members):
            kill_point("coordinator: while workers make steps")
            try:
                self._await_members(ring, members, SLICE_SECONDS if error else follow(ring))
            except BaseException as raised:
                error = error or raised
                ring.abandon()
        last_step = ring.end()
        num_steps = last_step - first_step + 1
        for member, worker in enumerate(members):
            self.num_tiles_computed[worker.name] += ring.num_tiles(member, self._computation.tiling)
        if num_steps > 0:
            self._supervision.record(Operation.STEPS, num_examples, (time.monotonic() - began) / num_steps)
        return SeriesEnd(last_step, error)

    def _await_members(self, ring: StepRing, members: Sequence[WorkerHandle], seconds: float) -> None:
        """Sleep for `seconds`, or until a member leaves the series; replace members that died or hang."""
        before, reported, tasks = time.monotonic(), ring.reports(), [worker.task for worker in members]
        answered, ready = self._await(may_spin=False, seconds=min(seconds, SLICE_SECONDS))
        slept_s = time.monotonic() - before
        if answered:
            self._finish(self._workers[answered], deque())
            return
        for key, _ in ready:
            self._receive(self._workers[key.data], None)
        if not ready and slept_s <= 2 * SLICE_SECONDS:
            # Only those that the others wait for can hang; and nobody does while a step is to be planned. Members that
            # have left the series wait for nobody, and nobody for them.
            reports = ring.reports()
            slowest = min((now for worker, now in zip(members, reports, strict=True) if worker.task), default=None)
            for worker, before_sleep, now in zip(members, reported, reports, strict=True):
                if now != before_sleep or now != slowest or ring.awaits_plan:
                    worker.silent_s = 0.0
            self._add_silence(slept_s, None)
        if [worker.task for worker in members] != tasks:
            ring.abandon()

    def close(self) -> None:
        """End all workers: close their pipes, and kill those that do not end by themselves."""
        for worker in self._workers.values():
            worker.close_pipes()
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        for worker in self._workers.values():
            with contextlib.suppress(FailedRun):  # the kernel holds the process; nothing depends on its end any more
                worker.process.end(max(0.0, deadline - time.monotonic()))
        self._workers.clear()
        self._selector.close()
        self._mailboxes.close()

    def _await(
        self, *, may_spin: bool, seconds: float = SLICE_SECONDS
    ) -> tuple[str | None, list[tuple[selectors.SelectorKey, int]]]:
        """Return the name of a worker that has answered, or else the readable pipes; neither after silent `seconds`."""
        name = spin(lambda: self._take_answer(NUM_YIELDS), SPIN_SECONDS) if may_spin else self._take_answer()
        if name:
            return name, []
        self._mailboxes.set_asleep(True)
        try:
            if name := self._take_answer():
                return name, []
            return None, self._selector.select(seconds)
        finally:
            self._mailboxes.set_asleep(False)

    def _take_answer(self, num_yields: int = 0) -> str | None:
        number = self._mailboxes.take_answer(num_yields)
        return None if number is None else self._names[number]

    def _give(self, worker: WorkerHandle, waiting: deque[Task]) -> None:
        """Post the next waiting task, if there is one and the worker is free."""
        if worker.task is not None or not waiting:
            return
        worker.task = waiting.popleft()
        worker.silent_s = 0.0
        if self._mailboxes.post(worker.number, worker.task.command.encode(), more_follows=self._more_follows):
            worker.wake()

    def _finish(self, worker: WorkerHandle, waiting: deque[Task]) -> None:
        """Take note that a worker has carried out its command, and give it the next one."""
        if not worker.has_begun:
            self._receive(worker, waiting)  # the worker wrote its hello before its answer
        worker.silent_s = 0.0
        task, worker.task = worker.task, None
        assert task is not None
        command = task.command
        if isinstance(command, Command) and command.operation.is_step:
            self.num_tiles_computed[worker.name] += self._computation.tiling.num_tiles(command.last - command.first)
        self._give(worker, waiting)

    def _receive(self, worker: WorkerHandle, waiting: deque[Task] | None) -> None:
        """Handle what a worker has sent through its pipe: its hello, an exception, or by its death the end of file.

        Its task is then given to another worker; if `waiting` is None, to none: the task is a series of steps.
        """
        replies = worker.read()
        if not replies:
            self._replace(worker, self._confirmed_end(worker, SHUTDOWN_SECONDS), waiting)
            return
        worker.silent_s = 0.0
        if replies.startswith(HELLO):
            worker.has_begun = True
            if replies[1:2] != b"1":
                self._log(f"{worker.name} found no preloaded kernels and loaded them itself")
            replies = replies[2:]
        replies = replies.lstrip(WAKE)
        if replies.startswith(BAD_DATA):
            worker.task = None
            raise DataError(replies[1:].decode(errors="replace"))
        if replies:
            assert replies.startswith(ERROR)
            task, worker.task = worker.task, None
            self._retry(worker, task, replies[1:].decode(errors="replace"), waiting)

    def _retry(
        self, worker: WorkerHandle, task: Task | None, worker_traceback: str, waiting: deque[Task] | None
    ) -> None:
        """Have a task that raised an exception in `worker` tried again, in another worker if there is one."""
        if task is None or task.num_failures + 1 == MAX_FAILURES:
            raise FailedRun(f"{worker.name} failed; its own traceback:\n\n{worker_traceback.rstrip()}")
        self._log(f"{worker.name} raised an exception; retrying its tiles once:\n{worker_traceback.rstrip()}")
        if waiting is None:
            return
        task.num_failures += 1
        waiting.append(task)
        others = [other for other in self._workers.values() if other is not worker]
        idle = next((other for other in others if other.task is None), None)
        if idle or not others:
            self._give(idle or worker, waiting)
        # Otherwise the next worker that finishes takes the task.

    def _add_silence(self, seconds: float, waiting: deque[Task] | None) -> None:
        """Count `seconds` in which no worker was heard; kill and replace those that hang."""
        for worker, cause in self._supervision.add_silence(list(self._workers.values()), seconds):
            self._confirmed_end(worker, 0.0)
            self._replace(worker, cause, waiting)

    def _replace(self, dead: WorkerHandle, cause: str, waiting: deque[Task] | None) -> None:
        """Replace a worker whose end is confirmed, and put its task first in the queue.

        A dead worker must be confirmed dead: one that woke up late would write into a later step.
        """
        task, dead.task = dead.task, None
        if waiting is not None and task is not None:
            waiting.appendleft(task)
        try:
            self._supervision.count_restart(dead.name, cause)
        except FailedRun:
            del self._workers[dead.name]
            raise
        self._log(f"{dead.name} {cause}; starting a replacement")
        replacement = self._start(dead.name)
        if waiting is not None:
            self._give(replacement, waiting)

    def _confirmed_end(self, worker: WorkerHandle, timeout_s: float) -> str:
        """Listen no longer to a worker, wait for its end, kill it after `timeout_s`, and return the cause."""
        self._selector.unregister(worker.replies)
        worker.close_pipes()
        try:
            return worker.process.end(timeout_s)
        except FailedRun:  # the run fails, and the rest of a series must not wait for this worker
            worker.task = None
            raise

    def _start(self, name: str) -> WorkerHandle:
        number = self._names.index(name)
        self._mailboxes.clear(number)
        worker = self._workers[name] = self._starter.start(name, number)
        self._selector.register(worker.replies, selectors.EVENT_READ, name)
        return worker
