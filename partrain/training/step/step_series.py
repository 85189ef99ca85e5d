"""Series of steps that workers make by themselves.

The coordinator plans batches and coefficients some steps ahead, sleeps, and looks at the results of completed steps now
and then. It wakes no worker within a series, and no worker wakes it. A series ends before a step for which the
coordinator must decide something, such as a save or an evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from partrain.data.split_name import SplitName
from partrain.network.exact_mean import exact_mean
from partrain.parallel.workers.commands import Operation
from partrain.parallel.workers.planned_steps import PlannedStep, StepRing
from partrain.parallel.workers.pool import WorkerPool
from partrain.training.step.batches import BatchSelection
from partrain.training.step.gradient import BatchGradient
from partrain.training.step.model_state import ModelState
from partrain.training.step.training_step import StepResult

Array = NDArray[Any]

# An interruption is late by at most about this time, because that is how far steps are planned ahead.
LEAD_SECONDS = 0.05
# The least number of steps that are planned ahead: one that is made, and the next.
LEAST_LEAD = 2
# Until the duration of a step is known: the number of steps that are planned ahead, and the time between two looks.
FIRST_LEAD = 8
FIRST_SLEEP_SECONDS = 0.002
# The longest series. Where there are more workers than processors, other workers take the next one.
MOST_STEPS = 512


class StepSeries:
    """Makes series of steps.

    Parameters
    ----------
    pool : its workers make the steps.
    arrays : the shared arrays.
    steps_per_epoch : steps per epoch.
    batch_size : the examples of a whole batch.
    batches : selects the examples.
    model : the vectors that the steps change.
    clips : whether gradients are clipped per example.
    """

    def __init__(
        self,
        pool: WorkerPool,
        arrays: Mapping[str, Array],
        steps_per_epoch: int,
        batch_size: int,
        *,
        batches: BatchSelection,
        model: ModelState,
        clips: bool,
    ) -> None:
        self._pool, self._steps_per_epoch, self._batch_size = pool, steps_per_epoch, batch_size
        self._batches, self._model = batches, model
        self._operation = Operation.GRADIENTS_WITH_NORMS if clips else Operation.GRADIENTS
        self._labels_M = arrays[f"{SplitName.TRAIN}.labels"]
        self._step_seconds: float | None = None
        self._refused: int | None = None

    def can_begin(self, step: int) -> bool:
        """Return whether a series can begin with `step`: not after a series that was refused it, or that failed."""
        return step != self._refused

    def make(
        self,
        first_step: int,
        is_last: Callable[[int], bool],
        is_reported: Callable[[int], bool],
        on_step: Callable[[StepResult], None],
        is_wanted: Callable[[], bool],
    ) -> None:
        """Make steps, from `first_step` on; `model.step` is then the last one.

        Parameters
        ----------
        first_step : the step after that of the model.
        is_last : whether the series must end with a step.
        is_reported : whether `on_step` must be called with a step.
        on_step : called with the results of these steps, of the last one, and of some others, in order. The model is
            the state after the last step of the series during its call, and not known during earlier calls.
        is_wanted : called now and then; if it returns False, the series ends after one more step.

        Raises
        ------
        FailedRun, DataError
            As for `TrainingStep.make`; all complete steps have been reported.
        """
        model = self._model
        model.update.moments.lend(first_step - 1)
        model.step = None
        series = _Series(
            self._plan, self._result, first_step, is_last, is_reported, on_step, is_wanted, self._step_seconds
        )
        end = self._pool.run_steps(first_step, self._batch_size, series.follow)
        model.update.moments.advance(end.last_step)
        model.step = end.last_step
        self._step_seconds = series.step_seconds
        if end.last_step < series.planned:
            self._refused = end.last_step + 1
        if not series.has_raised:
            series.report(end.last_step)
        if end.error is not None:
            raise end.error

    def _plan(self, step: int) -> PlannedStep:
        indices_N = self._batches.select(step)
        coefficients = self._model.optimizer.coefficients(len(indices_N), step)
        epoch = (step - 1) // self._steps_per_epoch
        return PlannedStep(step, self._operation, epoch, indices_N, coefficients)

    def _result(self, step: int, ring: StepRing) -> StepResult:
        results = ring.results(step)
        loss = exact_mean(results["losses"])
        has_norms = self._operation.has_norms
        batch = BatchGradient(results["indices"], loss, has_norms, results, self._labels_M, self._model.update)
        return StepResult(step, batch, ring.finished_at(step))


class _Series:
    """Plans the steps of one series, and reports their results."""

    def __init__(
        self,
        plan: Callable[[int], PlannedStep],
        result: Callable[[int, StepRing], StepResult],
        first_step: int,
        is_last: Callable[[int], bool],
        is_reported: Callable[[int], bool],
        on_step: Callable[[StepResult], None],
        is_wanted: Callable[[], bool],
        step_seconds: float | None,
    ) -> None:
        self._plan, self._result, self._is_last = plan, result, is_last
        self._is_reported, self._on_step, self._is_wanted = is_reported, on_step, is_wanted
        self._first_step = first_step
        self.planned = self._reported = first_step - 1
        self._is_closed = False
        self.has_raised = False
        self.step_seconds = step_seconds
        self._measured_step, self._measured_at = 0, 0.0
        self._ring: StepRing

    def follow(self, ring: StepRing) -> float:
        """See `WorkerPool.run_steps`."""
        self._ring = ring
        completed = ring.completed
        self._measure(completed)
        if not self._is_closed:
            self._plan_more(completed)
        # The last step is reported when the workers have left the series: then the model is its state.
        self.report(min(completed, self.planned - self._is_closed))
        return FIRST_SLEEP_SECONDS if self.step_seconds is None else self._lead * self.step_seconds / 2

    def report(self, last_step: int) -> None:
        """Report this step, and those before it that must be and have not been reported yet."""
        while self._reported < last_step:
            self._reported += 1
            if self._reported == last_step or self._is_reported(self._reported):
                self.has_raised = True
                self._on_step(self._result(self._reported, self._ring))
                self.has_raised = False

    @property
    def _lead(self) -> int:
        if self.step_seconds is None:
            return FIRST_LEAD
        return max(LEAST_LEAD, int(LEAD_SECONDS / self.step_seconds))

    def _plan_more(self, completed: int) -> None:
        most = min(completed + self._lead, self._reported + self._ring.capacity)
        is_wanted, steps = self._is_wanted(), []
        while self.planned < most and not self._is_closed:
            self.planned += 1
            steps.append(self._plan(self.planned))
            is_longest = self.planned - self._first_step + 1 == MOST_STEPS
            self._is_closed = is_longest or self._is_last(self.planned) or not is_wanted
        self._ring.plan(steps)
        if self._is_closed:
            self._ring.close()

    def _measure(self, completed: int) -> None:
        """Measure how long a step takes."""
        if completed < self._first_step:
            return
        now = self._ring.finished_at(completed)
        if self._measured_step:
            num_steps = completed - self._measured_step
            if num_steps:
                self.step_seconds = (now - self._measured_at) / num_steps
        self._measured_step, self._measured_at = completed, now
