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

from partrain.errors import DataError, FailedRun
from partrain.parallel.workers.commands import Command
from partrain.parallel.workers.fork_server import fork_server_pid
from partrain.parallel.workers.mailboxes import NUM_YIELDS, WAKE, Mailboxes
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
        self._starter = WorkerStarter(num_workers, computation, self._mailboxes.arrays, log)
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

    def _await(self, *, may_spin: bool) -> tuple[str | None, list[tuple[selectors.SelectorKey, int]]]:
        """Return the name of a worker that has answered, or else the readable pipes; neither after a silent slice."""
        name = spin(lambda: self._take_answer(NUM_YIELDS), SPIN_SECONDS) if may_spin else self._take_answer()
        if name:
            return name, []
        self._mailboxes.set_asleep(True)
        try:
            if name := self._take_answer():
                return name, []
            return None, self._selector.select(SLICE_SECONDS)
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
        if command.operation.is_step:
            self.num_tiles_computed[worker.name] += self._computation.tiling.num_tiles(command.last - command.first)
        self._give(worker, waiting)

    def _receive(self, worker: WorkerHandle, waiting: deque[Task]) -> None:
        """Handle what a worker has sent through its pipe: its hello, an exception, or by its death the end of file."""
        replies = worker.read()
        if not replies:
            self._retire(worker)
            self._replace(worker, worker.process.end(SHUTDOWN_SECONDS), waiting)
            return
        worker.silent_s = 0.0
        if replies.startswith(HELLO):
            worker.has_begun = True
            if replies[1:2] != b"1":
                self._log(f"{worker.name} found no preloaded kernels and loaded them itself")
            replies = replies[2:]
        replies = replies.lstrip(WAKE)
        if replies.startswith(BAD_DATA):
            raise DataError(replies[1:].decode(errors="replace"))
        if replies:
            assert replies.startswith(ERROR)
            task, worker.task = worker.task, None
            self._retry(worker, task, replies[1:].decode(errors="replace"), waiting)

    def _retry(self, worker: WorkerHandle, task: Task | None, worker_traceback: str, waiting: deque[Task]) -> None:
        """Have a task that raised an exception in `worker` tried again, in another worker if there is one."""
        if task is None or task.num_failures + 1 == MAX_FAILURES:
            raise FailedRun(f"{worker.name} failed; its own traceback:\n\n{worker_traceback.rstrip()}")
        self._log(f"{worker.name} raised an exception; retrying its tiles once:\n{worker_traceback.rstrip()}")
        task.num_failures += 1
        waiting.append(task)
        others = [other for other in self._workers.values() if other is not worker]
        idle = next((other for other in others if other.task is None), None)
        if idle or not others:
            self._give(idle or worker, waiting)
        # Otherwise the next worker that finishes takes the task.

    def _add_silence(self, seconds: float, waiting: deque[Task]) -> None:
        """Count `seconds` in which no worker was heard; kill and replace those that hang."""
        for worker, cause in self._supervision.add_silence(list(self._workers.values()), seconds):
            self._retire(worker)
            worker.process.end(0.0)
            self._replace(worker, cause, waiting)

    def _replace(self, dead: WorkerHandle, cause: str, waiting: deque[Task]) -> None:
        """Replace a worker whose end is confirmed, and put its task first in the queue.

        A dead worker must be confirmed dead: one that woke up late would write into a later step.
        """
        if dead.task is not None:
            waiting.appendleft(dead.task)
        try:
            self._supervision.count_restart(dead.name, cause)
        except FailedRun:
            del self._workers[dead.name]
            raise
        self._log(f"{dead.name} {cause}; starting a replacement")
        self._give(self._start(dead.name), waiting)

    def _retire(self, worker: WorkerHandle) -> None:
        self._selector.unregister(worker.replies)
        worker.close_pipes()

    def _start(self, name: str) -> WorkerHandle:
        number = self._names.index(name)
        self._mailboxes.clear(number)
        worker = self._workers[name] = self._starter.start(name, number)
        self._selector.register(worker.replies, selectors.EVENT_READ, name)
        return worker
