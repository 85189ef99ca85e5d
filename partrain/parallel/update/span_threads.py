"""Threads that update the spans of a flat vector, each span as a whole.

One thread updates a span, so the bits do not depend on the number of threads.
"""

from __future__ import annotations

import math
import queue
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from partrain.kernels.update_rules import Rule
from partrain.network.muon import num_multiply_adds
from partrain.network.optimizer import Coefficients, ParameterOptimizer
from partrain.network.parameter_groups import ParameterGroups, Span
from partrain.parallel.update.piece_plan import MAX_THREADS, NANOSECONDS_PER_THREAD
from partrain.parallel.update.thread_team import ThreadTeam

Array = NDArray[Any]

# Of a product of matrices, on one core; an estimate.
_MULTIPLY_ADDS_PER_NANOSECOND = 45


def useful_span_threads(groups: ParameterGroups, spans: Sequence[Span], num_processors: int) -> int:
    """Return the number of threads that update `spans` fastest: several, if Muon has several large matrices."""
    costs = [
        num_multiply_adds(groups.shape_at(span.first)) / _MULTIPLY_ADDS_PER_NANOSECOND
        for span in spans
        if groups.groups[span.group].rule == Rule.MUON
    ]
    if not costs:
        return 1
    useful = min(int(sum(costs) / NANOSECONDS_PER_THREAD), math.ceil(sum(costs) / max(costs)))
    return max(1, min(num_processors, MAX_THREADS, useful))


class SpanThreads:
    """Updates spans by an optimizer, in this thread and in others that sleep between updates.

    Parameters
    ----------
    optimizer : changes its parameters and moments.
    spans : the elements to update; with Muon, whole matrices.
    number : the number of threads.

    Side effects
    ------------
    The first update starts threads; `close` ends them.
    """

    def __init__(self, optimizer: ParameterOptimizer, spans: Sequence[Span], number: int) -> None:
        self._optimizer, self._spans, self.number = optimizer, spans, number
        self._largest_first = sorted(spans, key=lambda span: span.first - span.last)
        self._update: _Update | None = None
        self._team = ThreadTeam(number)

    def update(self, gradient_sum: Array, num_examples: int, step: int) -> None:
        """Make step `step` (counted from 1) with the sum of the gradients of `num_examples`."""
        if self.number == 1:
            self._optimizer.update(gradient_sum, num_examples, step, self._spans)
            return
        self._update = _Update(gradient_sum, self._optimizer.coefficients(num_examples, step))
        for span in self._largest_first:
            self._update.waiting.put(span)
        self._team.work(self._participate)

    def close(self) -> None:
        """End the threads."""
        self._team.close()

    def _participate(self, number: int) -> int:
        update = self._update  # a thread that wakes late may find the next one
        assert update is not None
        while (span := update.claim()) is not None:
            try:
                self._optimizer.update_span(span, update.gradient_sum, update.rows[span.group])
            except BaseException as error:  # of any kind: the first thread waits for each span
                update.outcomes.put(error)
            else:
                update.outcomes.put(None)
        for _ in self._spans if number == 0 else ():
            if (outcome := update.outcomes.get()) is not None:
                raise outcome
        return 0


@dataclass(frozen=True)
class _Update:
    """One update, as its threads share it.

    Attributes
    ----------
    gradient_sum, rows : see `ParameterOptimizer.update_span`.
    waiting : the spans that no thread has begun.
    outcomes : for each finished span None, or the error.
    """

    gradient_sum: Array
    rows: Sequence[Coefficients]
    waiting: queue.SimpleQueue[Span] = field(default_factory=queue.SimpleQueue)
    outcomes: queue.SimpleQueue[BaseException | None] = field(default_factory=queue.SimpleQueue)

    def claim(self) -> Span | None:
        """Return a span for the calling thread, or None if all are taken."""
        try:
            return self.waiting.get_nowait()
        except queue.Empty:
            return None
