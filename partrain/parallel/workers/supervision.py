"""Decides which workers hang, and whether another dead worker may be replaced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from partrain.errors import FailedRun
from partrain.parallel.workers import timeouts
from partrain.parallel.workers.worker_handle import WorkerHandle


class Supervision:
    """Counts the silence of workers, and their replacements.

    Parameters
    ----------
    max_restarts : the number of workers that may be replaced, all together, before the run fails.

    Attributes
    ----------
    num_restarts : the number of workers that have been replaced so far.
    """

    def __init__(self, max_restarts: int) -> None:
        self._max_restarts = max_restarts
        self._timeouts = timeouts.CommandTimeouts()
        self.num_restarts = 0

    def record(self, operation: int, num_examples: int, seconds: float) -> None:
        """Record how long a worker took, for the timeouts of later commands."""
        self._timeouts.record(operation, num_examples, seconds)

    def add_silence(self, workers: Iterable[WorkerHandle], seconds: float) -> Iterator[tuple[WorkerHandle, str]]:
        """Add `seconds` of silence to each worker that should answer; yield those that hang, with the cause of death.

        The caller kills them.
        """
        for worker in workers:
            if not worker.has_begun:
                limit, purpose = timeouts.START_UP_SECONDS, "while starting"
            elif worker.task is not None:
                command = worker.task.command
                num_examples = command.num_examples
                limit = self._timeouts.limit_s(command.operation, num_examples)
                purpose = f"with {num_examples} examples to compute"
            else:
                continue
            worker.silent_s += seconds
            if worker.silent_s > limit:
                yield worker, f"hung: silent for {worker.silent_s:.0f} s {purpose}; killed"

    def count_restart(self, name: str, cause: str) -> None:
        """Count that the worker `name` is to be replaced.

        Raises
        ------
        FailedRun
            As many workers as allowed have been replaced already.
        """
        if self.num_restarts == self._max_restarts:
            raise FailedRun(
                f"{name} {cause}; the limit on replacements (workers.max_restarts: {self._max_restarts}) is reached"
            )
        self.num_restarts += 1
