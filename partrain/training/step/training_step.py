"""One training step: select a batch, compute its gradient, update the parameters.

A step is a function of its number, the parameters and the moments only, so a run can resume after any step.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import NoReturn

from partrain.errors import FailedRun
from partrain.network.network import Network
from partrain.parallel.update.parameter_update import NotFinite
from partrain.system.fault_injection import kill_point
from partrain.training.step.batches import BatchSelection
from partrain.training.step.gradient import BatchGradient, GradientComputation
from partrain.training.step.model_state import ModelState
from partrain.training.step.phase_timer import PhaseTimer
from partrain.training.step.update import ModelUpdate


@dataclass(eq=False, slots=True)
class StepResult:
    """The result of a step.

    Attributes
    ----------
    step : the number of the step, counted from 1.
    batch : the gradient of the batch, and the result of each example; valid until the next step.
    finished_at : when the step was finished; `time.monotonic`.
    """

    step: int
    batch: BatchGradient
    finished_at: float


class NotFiniteInStep(FailedRun):
    """A loss, a gradient or a parameter is not finite: usually, the learning rate is too large."""


class TrainingStep:
    """Makes training steps from three exchangeable parts.

    Parameters
    ----------
    network : gives the name of the last layer for messages.
    steps_per_epoch : steps per epoch.
    batches : selects the examples.
    gradient : computes the gradient of the batch.
    update : updates the parameters.
    model : the vectors that `update` changes.

    Attributes
    ----------
    batches, gradient, update, model : the arguments.
    """

    def __init__(
        self,
        network: Network,
        steps_per_epoch: int,
        *,
        batches: BatchSelection,
        gradient: GradientComputation,
        update: ModelUpdate,
        model: ModelState,
    ) -> None:
        self._network, self._steps_per_epoch = network, steps_per_epoch
        self.batches, self.gradient, self.update, self.model = batches, gradient, update, model

    def make(self, step: int, *, with_norms: bool = False, timer: PhaseTimer | None = None) -> StepResult:
        """Make one training step.

        Parameters
        ----------
        step : the number of the step, counted from 1; the model must be the state after the previous step.
        with_norms : whether to compute the norms of the examples' gradients; with clipping, they are always computed.
        timer : measures the phases; None: nothing is timed.

        Raises
        ------
        NotFiniteInStep
            A value is not finite.
        FailedRun
            The workers failed. `model.step` tells whether the model is unchanged.
        """
        indices_N = self.batches.select(step)
        batch = self.gradient.compute(
            indices_N, (step - 1) // self._steps_per_epoch, with_norms=with_norms, timer=timer
        )
        kill_point("coordinator: before an update")
        if not math.isfinite(batch.loss) and len(indices_N):
            self._refuse_gradient(step, self.model.first_not_finite(batch.sum()), batch.loss)
        self.model.step = None
        not_finite = self.update.apply(batch, step, timer)
        kill_point("coordinator: after an update")
        if not_finite is not None:
            self._refuse(step, not_finite, batch.loss)
        if self.model.average is not None:
            self.model.average.update(step)
        self.model.step = step
        return StepResult(step, batch, time.monotonic())

    def _refuse(self, step: int, not_finite: NotFinite, loss: float) -> NoReturn:
        if not_finite.is_gradient:
            self.model.step = step - 1
            self._refuse_gradient(step, not_finite.name, loss)
        raise NotFiniteInStep(
            f"step {step}: after the update, {not_finite.name} is not finite, although the gradient is finite; "
            "training.optimizer.lr is too large or eps too small for this dtype"
        )

    def _refuse_gradient(self, step: int, parameter: str | None, loss: float) -> NoReturn:
        last_layer = self._network.layers[-1].name
        name = f"the loss of {last_layer}'s outputs" if parameter is None else f"the gradient of {parameter}"
        raise NotFiniteInStep(
            f"step {step}: {name} is not finite (the batch's loss is {loss}); this step did not change the parameters; "
            "a lower training.optimizer.lr or a longer warm-up may help"
        )
