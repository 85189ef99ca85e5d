"""The steps of a training: from the indices of a batch to new parameters.

A step is: indices of the batch → shards to the workers → sums of what comes back → Adam. All that it depends on is its
number, the parameters and the moments.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NoReturn

from partrain.data.batches import epoch_order
from partrain.data.split_name import SplitName
from partrain.errors import FailedRun
from partrain.network.adam import Adam
from partrain.parallel.update.parameter_update import NotFinite, ParameterUpdate
from partrain.parallel.workers.commands import Command, Operation
from partrain.parallel.workers.compute_group import ComputeGroup
from partrain.system.fault_injection import kill_point
from partrain.system.shared_arrays import SharedArrays
from partrain.training.plan import TrainingPlan
from partrain.training.privacy.private_step import PrivateBatch, PrivateTraining


# Without eq: comparing arrays gives arrays, so a generated == would only raise.
@dataclass(frozen=True, eq=False)
class StepResult:
    """What came of a step: the mean loss of its batch, how many examples that had, and the rate of learning."""

    loss: float
    num_examples: int
    lr: float
    private: PrivateBatch | None = None


class TrainingSteps:
    """Makes steps.

    Parameters
    ----------
    plan : what is trained.
    group : who computes tiles.
    arrays : the shared arrays of the plan, with the data set in them; its kernels are loaded.
    adam : over arrays["parameters"].

    Attributes
    ----------
    update : of the parameters; its threads are to be closed.
    has_spoilt_parameters : whether an update has made parameters that must not be saved.
    """

    def __init__(self, plan: TrainingPlan, group: ComputeGroup, arrays: SharedArrays, adam: Adam) -> None:
        config, network = plan.config, plan.network
        training, num_train = config.training, plan.dataset.train.size
        self._preparation, self._training, self._network = plan, training, network
        self._group, self._arrays, self._adam, self._tiling = group, arrays, adam, plan.tiling
        self.update = ParameterUpdate(network, training.kernels, arrays, plan.tiling, training.dtype, adam)
        self.has_spoilt_parameters = False
        self._order = functools.lru_cache(maxsize=1)(functools.partial(epoch_order, num_train, seed=config.seed))
        self._commands = functools.lru_cache(maxsize=4)(self._cut_batch)
        self._private: PrivateTraining | None = None
        if training.privacy:
            self._private = PrivateTraining(training, config.seed, num_train, group, arrays, self.update)

    def make(self, step: int, *, measures: bool) -> StepResult:
        """Make step `step` (counted from 1): compute the gradient of its batch, and move the parameters by it.

        Parameters
        ----------
        step : the one after those that the parameters have seen.
        measures : whether the norms of the examples' gradients are wanted; where they clip, they are there always.

        Raises
        ------
        FailedRun
            A value is not finite, or the workers failed.
        """
        epoch, place = divmod(step - 1, self._preparation.steps_per_epoch)
        if self._private:
            return self._make_private(self._private, step, epoch)
        batch_size = self._training.batch_size
        indices = self._order(epoch=epoch)[place * batch_size : (place + 1) * batch_size]
        num_examples = len(indices)
        self._arrays["indices"][:num_examples] = indices
        has_norms = measures or self._training.per_example.clips
        operation = Operation.GRADIENTS_WITH_NORMS if has_norms else Operation.GRADIENTS
        self._group.run(self._commands(num_examples, operation, epoch))
        loss = float(self._arrays["losses"][:num_examples].mean())
        kill_point("coordinator: before an update")
        if not math.isfinite(loss):
            self._refuse_gradient(step, self.update.find_not_finite(num_examples), loss)
        not_finite = self.update.apply(num_examples, step)
        kill_point("coordinator: after an update")
        if not_finite is not None:
            self._refuse(step, not_finite, loss)
        return StepResult(loss, num_examples, self._adam.learning_rate(step))

    def _make_private(self, private: PrivateTraining, step: int, epoch: int) -> StepResult:
        batch = private.make_step(
            step, lambda num_examples: self._commands(num_examples, Operation.GRADIENTS_WITH_NORMS, epoch)
        )
        if batch.not_finite:
            self._refuse(step, batch.not_finite, batch.loss)
        return StepResult(batch.loss, len(batch.losses_N), self._adam.learning_rate(step), batch)

    def _cut_batch(self, num_examples: int, operation: Operation, epoch: int) -> list[Command]:
        shards = self._tiling.shards(0, num_examples, self._group.num_at_once)
        return [Command(operation, SplitName.TRAIN, first, last, epoch) for first, last in shards]

    def _refuse(self, step: int, not_finite: NotFinite, loss: float) -> NoReturn:
        if not_finite.is_gradient:
            self._refuse_gradient(step, not_finite.parameter, loss)
        self.has_spoilt_parameters = True
        raise FailedRun(
            f"step {step}: the update made {not_finite.parameter} not finite, though its gradient is; "
            "training.optimizer.lr is too large or eps too small for this dtype; the last good checkpoint is still "
            "there"
        )

    def _refuse_gradient(self, step: int, parameter: str | None, loss: float) -> NoReturn:
        last_layer = self._network.layers[-1].name
        what = f"the loss of {last_layer}'s outputs" if parameter is None else f"the gradient of {parameter}"
        raise FailedRun(
            f"step {step}: {what} is not finite (the batch's loss is {loss}); the parameters were not "
            "changed by this step; a lower training.optimizer.lr or a longer warm-up may help"
        )
