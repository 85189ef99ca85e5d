"""The training loop.

The coordinator makes steps and commits each as a whole: step number, metrics, evaluation. Logging, validation and
saving are separate objects.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from partrain.analysis.privacy_record import describe_privacy
from partrain.data.split_name import SplitName
from partrain.errors import FailedRun, MomentsLost
from partrain.kernels.bits_version import BITS_FIELD, BITS_VERSION
from partrain.parallel.split_evaluation import Evaluation, evaluate_split
from partrain.store.checkpoint import Checkpoint
from partrain.store.run_directory import RunDirectory
from partrain.system.fault_injection import kill_point
from partrain.system.machine import proportional_memory
from partrain.system.messages import Progress
from partrain.training.plateau import Plateau
from partrain.training.resources import TrainingResources
from partrain.training.run_output import RunOutput
from partrain.training.session import Session
from partrain.training.step.composition import compose_series, compose_step, make_model
from partrain.training.step.model_state import ModelState
from partrain.training.step.training_step import StepResult
from partrain.training.step_metrics import StepMetrics, make_accuracy
from partrain.training.validation import Validation, describe_validation


class Coordinator:
    """Trains a network from its initial values, or from a checkpoint.

    Parameters
    ----------
    resources : the plan, the shared arrays and the group that computes.
    session : the command that trains.
    output : receives metrics and states.

    Attributes
    ----------
    step : the last committed step. Only committed steps are saved: after an exception within a step, `model.step`
        differs from this, and the model is not saved.
    model : parameters and moments.
    logger : writes metrics.
    validation : evaluates during training.
    step_metrics : computes the metrics of a step's batch.
    """

    def __init__(self, resources: TrainingResources, session: Session, output: RunOutput) -> None:
        plan, training = resources.plan, resources.plan.config.training
        self._plan, self._resources, self._session = plan, resources, session
        self._run, self._schedule, self._states = output.run, output.schedule, output.states
        self._config_digest = output.config_digest
        self.logger = output.logger
        self.model = make_model(plan, resources.arrays, session.update_threads, resources.owners)
        self._step = compose_step(plan, resources.arrays, resources.group, self.model)
        self._series = compose_series(plan, resources.arrays, resources.group, self._step)
        has_validation = plan.dataset.validation.size > 0
        self._evaluator = _Evaluator(resources, session, self.model)
        # Not `self.evaluate`: objects that refer to each other would keep the shared arrays in memory.
        evaluate = functools.partial(self._evaluator.evaluate, SplitName.VALIDATION) if has_validation else None
        average = functools.partial(self._evaluator.evaluate_average, SplitName.VALIDATION)
        self.validation = Validation(training.stop_early, self._schedule, evaluate, average)
        self._plateau: Plateau | None = None
        if training.schedule.name == "plateau":
            self._plateau = Plateau(training.schedule, training.optimizer.lr)
        is_regular, accuracy = self._schedule.is_regular, make_accuracy(plan)
        self.step_metrics = StepMetrics(plan.network, training.per_example, is_regular, accuracy)
        self.step = 0

    @property
    def peak_memory_bytes(self) -> int:
        """The largest measured memory of all processes together."""
        return self._evaluator.peak_memory_bytes

    @property
    def completed(self) -> bool:
        """Whether the training has finished, at its last step or early."""
        return self.step >= self._plan.num_steps or self.stopped_early is not None

    @property
    def stopped_early(self) -> str | None:
        """The reason why the training ended before its last step; None if it did not."""
        if self.step >= self._plan.num_steps:
            return None
        if self._plan.budget_steps is not None and self.step >= self._plan.budget_steps:
            privacy = self._plan.config.training.privacy
            assert privacy is not None
            return f"one more step would exceed epsilon {privacy.target_epsilon:g} at delta {privacy.delta:g}"
        return self.validation.stop_reason

    def begin_with(self, parameters: NDArray[Any]) -> None:
        """Start from these parameters (K,) instead of random ones, and save them: a resume from step 0 needs them.

        Raises
        ------
        OSError
            The parameters cannot be saved.
        """
        self.model.set_parameters(parameters)
        self.save_start()

    def save_start(self) -> None:
        """Save the state before the first step.

        Raises
        ------
        OSError
            The state cannot be saved.
        """
        self._states.save_first(self._state())

    def restore(self, state: Checkpoint, rows: Sequence[dict[str, Any]], earlier_seconds: float) -> None:
        """Continue from a checkpoint.

        Parameters
        ----------
        state : a checkpoint that this class saved.
        rows : the run's metrics up to the checkpoint's step.
        earlier_seconds : the seconds that the run took up to that step.
        """
        metadata = state.metadata
        self.model.restore(state.tensors, state.step)
        self.step = self._states.saved_step = state.step
        self.validation.restore(metadata["best"], metadata.get("stop_early"))
        if self._plateau is not None:
            self._plateau.restore(metadata["plateau"])
            self.model.optimizer.reduced_lr = self._plateau.lr
        self.step_metrics.restore(metadata.get("gradient_noise_scale"))
        self.logger.resume(state.step, rows, earlier_seconds)

    def train(self, last_step: int | None = None) -> None:
        """Make all steps up to the last one, or until a signal or a callback asks to stop. Save at the end.

        Parameters
        ----------
        last_step : where to stop; None: at the last step of the plan.

        Raises
        ------
        FailedRun
            A value is not finite, the workers failed, or the last save failed.

        Side effects
        ------------
        Writes metrics and checkpoints into the run.
        """
        plan, session = self._plan, self._session
        last_step = plan.num_steps if last_step is None else last_step
        progress = session.messages.progress(
            first_step=self.step,
            last_step=last_step,
            num_epochs=plan.config.training.epochs,
            training_seconds=lambda: session.clock.read()["train"],
        )
        with contextlib.ExitStack() as at_end:
            self.logger.open()
            at_end.callback(self.logger.close)
            at_end.callback(lambda: progress.close(is_complete=self.completed))
            at_end.callback(self.model.close)
            at_end.enter_context(session.clock.timing("train"))
            at_end.callback(self._save, is_last=True)
            session.report_recovery(self.step)
            while self.step < last_step and not self.completed and not session.is_asked_to_stop:
                kill_point("coordinator: before a step")
                self._make_steps(last_step, progress)

    def _make_steps(self, last_step: int, progress: Progress) -> None:
        """Make the next step; or steps up to one that the coordinator must see, if workers can make them."""
        step = self.step + 1
        if self._series is None or not self._series.can_begin(step) or self._measures_norms(step):
            self._finish(self._step.make(step, with_norms=self._measures_norms(step)), progress)
            return
        self._series.make(
            step,
            is_last=lambda step: step == last_step or self._must_see(step),
            is_reported=self._schedule.is_logged,
            on_step=lambda result: self._finish(result, progress),
            is_wanted=lambda: self._session.interruption.received is None and self._run_is_in_place,
        )

    @property
    def _run_is_in_place(self) -> bool:
        return self._run is None or not self._run.is_locked or self._run.is_in_place

    def _measures_norms(self, step: int) -> bool:
        return self._plan.config.training.per_example.statistics and self._schedule.is_logged(step)

    def _must_see(self, step: int) -> bool:
        """Return whether the coordinator must see the model after `step`, or make the step after it itself."""
        return (
            self._schedule.is_evaluation_due(step)
            or self._schedule.is_digested(step)
            or self._states.is_due(step, is_best=False)
            or self._measures_norms(step + 1)
            or (self._session.callbacks.receive_steps and self._schedule.is_logged(step))
        )

    def _finish(self, result: StepResult, progress: Progress) -> None:
        """Commit a step, and save it if that is due."""
        step, batch = result.step, result.batch
        num_examples = batch.num_examples
        if step > self.step + 1:  # steps before it were not reported
            num_examples = self._plan.num_examples_until(step) - self._plan.num_examples_until(self.step)
        is_best = self._commit(result)
        is_due = self._states.is_due(step, is_best=is_best) and not self.completed
        if self._schedule.is_logged(step) and self.model.step == step:
            self.follow_run()
            is_due = self._states.notice_removal() or is_due
        if is_due:
            self._save(is_last=False)
        kill_point("coordinator: after a step")
        progress.step(step, -(-step // self._plan.steps_per_epoch), batch.loss, num_examples)
        self._session.callbacks.call()

    def test(self) -> tuple[Evaluation, dict[str, float]]:
        """Evaluate the model on the test split; return the evaluation, and all metrics, also of averaged weights."""
        evaluation = self._evaluator.evaluate(SplitName.TEST)
        return evaluation, evaluation.metrics() | self._evaluator.evaluate_average(SplitName.TEST)

    def _commit(self, result: StepResult) -> bool:
        """Log and evaluate a step, then commit it. Return whether its validation result is the best so far."""
        step, plan, messages = result.step, self._plan, self._session.messages
        callbacks = self._session.callbacks
        if self._schedule.is_logged(step):
            metrics = self.step_metrics.compute(step, result.batch)
            metrics |= {"lr": self.model.learning_rate(step)}
            row = self.logger.log_step(step, metrics, seconds_ago=time.monotonic() - result.finished_at)
            callbacks.add("on_step", row)
        if plan.config.training.privacy and (self._schedule.is_last(step) or step % plan.steps_per_epoch == 0):
            self._log_privacy(step)
        if self._schedule.is_digested(step):
            self.logger.log_digest(step, self.model.parameters_sha256())
        validated = self.validation.run(step)
        if validated is not None:
            callbacks.add("on_evaluation", self.logger.log(step, validated))
            messages.say(f"epoch {step / plan.steps_per_epoch:.4g}, step {step}: {describe_validation(validated)}")
            self._follow_plateau(step, validated)
        self.step = step
        if self.stopped_early:
            messages.say(f"stopped early at step {step}: {self.stopped_early}")
        best = self.validation.best
        return validated is not None and best is not None and best["step"] == step

    def _follow_plateau(self, step: int, validated: dict[str, float]) -> None:
        """Reduce the learning rate if that is due. As for early stopping, only evaluations that are due count."""
        if self._plateau is None or not self._schedule.is_evaluation_due(step):
            return
        if reason := self._plateau.observe(validated):
            self.model.optimizer.reduced_lr = self._plateau.lr
            self._session.messages.say(f"step {step}: the learning rate falls to {self._plateau.lr:g}: {reason}")

    def _log_privacy(self, step: int) -> None:
        privacy = self._plan.privacy_after(step)
        assert privacy is not None
        self.logger.log(step, {"privacy/epsilon": privacy["epsilon"]})
        self._session.messages.say(f"step {step}: {describe_privacy(privacy)}")

    def _save(self, *, is_last: bool) -> None:
        """Save the last committed step. If a step was interrupted, the model differs from it, and nothing is saved."""
        if self.model.step == self.step:
            self.follow_run()
            if self._run is None or self._run.is_locked:
                self._save_checkpoint(is_last=is_last)

    def follow_run(self) -> None:
        """End the training if the run's directory was moved or removed. At the last step, a move does no harm.

        Removed documents of the run are written again.

        Raises
        ------
        RunLost
            It was removed, and nothing is saved.
        FailedRun
            It was moved, and is saved in its new place.
        """
        run = self._run
        if run is None or not run.is_locked:
            return
        before = run.path
        if run.follow():
            self._states.checkpoints = run.checkpoints
            self._save_checkpoint(is_last=True)
            moved = f"{before}: this directory was moved to {run.path} during the training"
            if not self.completed:
                raise FailedRun(
                    f"{moved}, which ends. The run is saved there at step {self.step}; to continue: "
                    f"partrain resume {run.path}"
                )
            self._session.messages.warn(moved)
        self._restore_documents(run)

    def _restore_documents(self, run: RunDirectory) -> None:
        warn = self._session.messages.warn
        try:
            for path in run.restore_documents():
                warn(f"{path}: was removed, and is written again")
        except OSError as error:
            warn(f"{run.path}: run.json or config.yaml was removed, and cannot be written again: {error.strerror}")

    def _save_checkpoint(self, *, is_last: bool) -> None:
        best = self.validation.best
        best_step = None if best is None else int(best["step"])
        try:
            self._states.save(self.step, self._state, best_step=best_step, is_last=is_last)
        except MomentsLost as error:
            if not is_last:
                raise
            # Not an error: the one that ended the training is reported.
            self._session.messages.warn(f"step {self.step} is not saved: {error}; the last checkpoint is kept")

    def _state(self) -> Checkpoint:
        """Return the state after the last committed step."""
        plan = self._plan
        metadata = {
            "step": self.step,
            "epoch": self.step / plan.steps_per_epoch,
            "seed": plan.config.seed,
            "best": self.validation.best,
            "normalisation": {"mean": plan.normalisation.mean, "std": plan.normalisation.std},
            "class_names": plan.dataset.class_names,
            "image_shape": plan.network.input_shape,
            "image_dtype": plan.dataset.image_dtype,
            "data_digest": plan.dataset.digest,
            "config_digest": self._config_digest,
            BITS_FIELD: BITS_VERSION,
        }
        optional = {
            "stop_early": self.validation.early_stopping_state,
            "plateau": None if self._plateau is None else self._plateau.state,
            "privacy": plan.privacy_after(self.step),
            "gradient_noise_scale": None if (scale := self.step_metrics.noise_scale) is None else scale.state,
        }
        metadata |= {name: value for name, value in optional.items() if value is not None}
        return Checkpoint(self.model.tensors(), metadata)


class _Evaluator:
    """Evaluates the model, and measures the memory of all processes meanwhile."""

    def __init__(self, resources: TrainingResources, session: Session, model: ModelState) -> None:
        self._resources, self._session, self._model = resources, session, model
        self.peak_memory_bytes = 0

    def evaluate_average(self, split: SplitName) -> dict[str, float]:
        """Evaluate the averaged weights; return the metrics, none if there is no average."""
        if self._model.average is None:
            return {}
        with self._model.averaged():
            return {f"ema_{name}": value for name, value in self.evaluate(split).metrics().items()}

    def evaluate(self, split: SplitName) -> Evaluation:
        resources = self._resources
        with self._session.clock.timing("evaluation"):
            kill_point("coordinator: before an evaluation")
            evaluation = evaluate_split(resources.group, resources.arrays, split, resources.plan.tiling)
            self.peak_memory_bytes = max(self.peak_memory_bytes, self._measure_memory())
            kill_point("coordinator: after an evaluation")
        return evaluation

    def _measure_memory(self) -> int:
        """Return the memory of all processes of all ranks, in bytes."""
        own, ranks = proportional_memory([os.getpid(), *self._resources.group.pids]), self._session.ranks
        return own if ranks is None else sum(ranks.group.allgather(own))
