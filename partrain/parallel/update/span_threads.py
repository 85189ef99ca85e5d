"""Threads that update the spans of a flat vector, each span as a whole.

One thread updates a span, so the bits do not depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from partrain.kernels.update_rules import Rule
from partrain.network.muon import num_multiply_adds
from partrain.network.optimizer import ParameterOptimizer
from partrain.network.parameter_groups import ParameterGroups, Span
from partrain.parallel.update.piece_plan import MAX_THREADS, NANOSECONDS_PER_THREAD
from partrain.parallel.update.thread_team import PieceThreads

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
        self._optimizer, self.number = optimizer, number
        self._largest_first = sorted(spans, key=lambda span: span.first - span.last)
        self._threads = PieceThreads(number)

    def update(self, gradient_sum: Array, num_examples: int, step: int) -> None:
        """Make step `step` (counted from 1) with the sum of the gradients of `num_examples`."""
        optimizer, rows = self._optimizer, self._optimizer.coefficients(num_examples, step)
        self._threads.run(self._largest_first, lambda span: optimizer.update_span(span, gradient_sum, rows[span.group]))

    def close(self) -> None:
        """End the threads."""
        self._threads.close()
