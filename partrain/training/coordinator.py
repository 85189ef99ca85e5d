"""The training loop, where both wings of the house meet: the parallel computation, and the store of the run.

All that a step depends on is its number, the parameters and the moments: so a run can go on after any step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.analysis.privacy_record import describe_privacy
from partrain.data.split_name import SplitName
from partrain.errors import DataError, FailedRun
from partrain.network.adam import Adam
from partrain.network.clipping import gradient_norms
from partrain.network.parameters import digest
from partrain.parallel.split_evaluation import Evaluation, evaluate_split
from partrain.parallel.workers.compute_group import ComputeGroup
from partrain.store.checkpoint import FIRST_MOMENT_PREFIX, SECOND_MOMENT_PREFIX, Checkpoint
from partrain.store.metrics_log import MetricsLog
from partrain.store.run_directory import RunDirectory
from partrain.system.fault_injection import kill_point
from partrain.system.messages import Messages
from partrain.system.shared_arrays import SharedArrays
from partrain.system.signals import Interruption
from partrain.system.timer import Stopwatch
from partrain.training.early_stopping import EarlyStopping
from partrain.training.gradient_statistics import GradientNoiseScale, norm_metrics
from partrain.training.plan import TrainingPlan
from partrain.training.step import StepResult, TrainingSteps

Metrics = dict[str, float]


def _call(work: Callable[[], object]) -> None:
    work()


class Coordinator:
    """Trains a prepared network from its initial values.

    Parameters
    ----------
    plan : what is trained.
    run : the run's directory, its lock held; metrics and checkpoints are written there. None: nothing is kept, for
        another rank does that.
    group : who computes tiles.
    arrays : the shared arrays of the plan, with the data set in them; its kernels are loaded.
    messages, interruption : where to speak; and what to listen to, where the caller defers it.
    clock : has the activities "train", "evaluation" and "checkpoint".
    measure_memory : returns the memory of all processes in bytes.
    secure : carries out the work of a save that it is given; raises the OSError that the work raises.

    Attributes
    ----------
    step : steps done.
    best : metrics and step of the best validation so far: the highest accuracy, of equal ones the earliest.
    metrics : the latest value of each metric.
    noise_scale : that of the gradient; None where it is not measured.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        run: RunDirectory | None,
        group: ComputeGroup,
        arrays: SharedArrays,
        *,
        messages: Messages,
        interruption: Interruption,
        clock: Stopwatch,
        measure_memory: Callable[[], int],
        secure: Callable[[Callable[[], object]], object] = _call,
    ) -> None:
        config, network = plan.config, plan.network
        training = config.training
        self._config, self._preparation, self._network = config, plan, network
        self._run, self._group, self._arrays = run, group, arrays
        self._messages, self._interruption, self._clock = messages, interruption, clock
        self._measure_memory = measure_memory
        self._secure = secure
        self._num_train = plan.dataset.train.size
        self._parameters = arrays["parameters"]
        self._parameters[:] = network.parameters.initial_values(config.seed, training.dtype)
        self._adam = Adam(self._parameters, training.optimizer, training.schedule)
        self._steps = TrainingSteps(plan, group, arrays, self._adam)
        self._budget_steps = plan.budget_steps()
        self._saved_step: int | None = None
        self._settled_step = 0
        self._num_lost_rows = 0
        self._earlier_seconds = 0.0
        self._logged_examples, self._logged_seconds = 0, 0.0
        self._early_stopping = EarlyStopping(training.stop_early) if training.stop_early else None
        self._per_example = training.per_example
        self.noise_scale = GradientNoiseScale() if training.per_example.statistics else None
        self.step = 0
        self.best: Metrics | None = None
        self.metrics: Metrics = {}
        self.peak_memory_bytes = 0

    @property
    def completed(self) -> bool:
        """Whether the last step is done, or no more are to be made."""
        return self.step >= self._preparation.num_steps or self.stopped_early is not None

    @property
    def privacy(self) -> dict[str, Any] | None:
        """What the steps so far can have told of a single example, and whether the noise is a secret.

        It takes a tenth of a second to compute.
        """
        return self._preparation.privacy_after(self.step)

    @property
    def stopped_early(self) -> str | None:
        """Why the training ended before its last step, or None if it did not."""
        if self.step >= self._preparation.num_steps:
            return None
        if self._budget_steps is not None and self.step >= self._budget_steps:
            privacy = self._config.training.privacy
            assert privacy is not None
            return f"one more step would exceed epsilon {privacy.target_epsilon:g} at delta {privacy.delta:g}"
        return None if self._early_stopping is None else self._early_stopping.reason

    @property
    def steps_per_epoch(self) -> int:
        """How many steps an epoch has."""
        return self._preparation.steps_per_epoch

    def num_examples_until(self, step: int) -> int:
        """Return how many examples the first `step` steps went through."""
        epochs, steps = divmod(step, self._preparation.steps_per_epoch)
        return epochs * self._num_train + min(steps * self._config.training.batch_size, self._num_train)

    def parameters_sha256(self) -> str:
        """Return the digest of the parameters."""
        return digest(self._parameters)

    def begin_with(self, parameters: NDArray[Any]) -> None:
        """Begin with these parameters in place of drawn ones, and save them: a resume from step 0 must find them.

        Raises
        ------
        OSError
            They cannot be saved.
        """
        self._parameters[:] = parameters
        if self._run is not None:
            self._run.checkpoints.save(self._state())
        self._saved_step = self.step

    def restore(self, state: Checkpoint, rows: Sequence[dict[str, Any]], earlier_seconds: float) -> None:
        """Go on from a saved state.

        Parameters
        ----------
        state : as this class saved it.
        rows : the run's metrics up to its step.
        earlier_seconds : how long the run took until then.
        """
        views = self._network.parameters.views
        for prefix, vector in self._vectors().items():
            for name, view in views(vector).items():
                view[:] = state.tensors[prefix + name]
        self.step = self._saved_step = self._settled_step = state.step
        self.best = state.metadata["best"]
        if self._config.training.stop_early:
            self._early_stopping = EarlyStopping(self._config.training.stop_early, state.metadata["stop_early"])
        if self.noise_scale:
            self.noise_scale = GradientNoiseScale(state.metadata.get("gradient_noise_scale"))
        self._earlier_seconds = earlier_seconds
        self._logged_examples = self.num_examples_until(self.step)
        not_metrics = ("step", "epoch", "examples", "time_s")
        for row in rows:
            self.metrics |= {k: v for k, v in row.items() if k not in not_metrics and isinstance(v, int | float)}

    def train(self) -> None:
        """Make all steps up to the last one, or until a signal asks to stop; save at the end in any case.

        Raises
        ------
        FailedRun
            A value is not finite, the workers failed, or the last save did not succeed.

        Side effects
        ------------
        Writes metrics and checkpoints into the run.
        """
        progress = self._messages.progress(
            first_step=self.step,
            last_step=self._preparation.num_steps,
            num_epochs=self._config.training.epochs,
        )
        with contextlib.ExitStack() as at_end:
            if self._run is not None:
                self._metrics_log = self._open_metrics(self._run)
                at_end.callback(self._metrics_log.close)
            at_end.callback(progress.close)
            at_end.callback(self._tell_lost_rows)
            at_end.callback(self._steps.update.close)
            at_end.enter_context(self._clock.timing("train"))
            try:
                while not self.completed and self._interruption.received is None:
                    kill_point("coordinator: before a step")
                    measures = self._per_example.statistics and self._is_logged(self.step + 1)
                    result = self._steps.make(self.step + 1, measures=measures)
                    self.step += 1
                    self._follow_step(result)
                    self._settled_step = self.step
                    kill_point("coordinator: after a step")
                    epoch = -(-self.step // self._preparation.steps_per_epoch)
                    progress.step(self.step, epoch, result.loss, result.num_examples)
            finally:
                # Whatever ended the loop, the parameters are those after a whole step. If that step could not be
                # evaluated, an earlier checkpoint must do: its evaluation would be missing after a resume.
                if self._settled_step == self.step and not self._steps.has_spoilt_parameters:
                    self._save(is_last=True)

    def evaluate(self, split: SplitName) -> Evaluation:
        """Evaluate the parameters on the validation or the test split."""
        with self._clock.timing("evaluation"):
            kill_point("coordinator: before an evaluation")
            evaluation = evaluate_split(self._group, self._arrays, split, self._preparation.tiling)
            self.peak_memory_bytes = max(self.peak_memory_bytes, self._measure_memory())
            kill_point("coordinator: after an evaluation")
        return evaluation

    def _open_metrics(self, run: RunDirectory) -> MetricsLog:
        try:
            return MetricsLog(run.metrics_path)
        except OSError as error:
            raise FailedRun(f"{run.metrics_path}: cannot be written: {error.strerror}") from error

    def _is_logged(self, step: int) -> bool:
        last_step = self._preparation.num_steps
        if self._budget_steps is not None:
            last_step = min(last_step, self._budget_steps)
        return step % self._config.logging.every_steps == 0 or step == last_step

    def _follow_step(self, result: StepResult) -> None:
        """Log, evaluate and save, where the step that was just made is one after which that is due."""
        logging, checkpoints = self._config.logging, self._config.checkpoints
        epoch, steps_into_epoch = divmod(self.step, self._preparation.steps_per_epoch)
        epoch_ends = steps_into_epoch == 0
        if self._is_logged(self.step):
            self._log_step(result)
        evaluation_due = any(
            (
                epoch_ends and logging.evaluate_every_epochs and epoch % logging.evaluate_every_epochs == 0,
                logging.evaluate_every_steps and self.step % logging.evaluate_every_steps == 0,
            )
        )
        if self._config.training.privacy and (epoch_ends or self.completed):
            self._log_privacy()
        has_validation = self._preparation.dataset.validation.size > 0
        is_best = (evaluation_due or self.completed) and has_validation and self._validate()
        # Not at an end that falls between two evaluations: a longer run does not evaluate there.
        if self._early_stopping and evaluation_due:
            self._early_stopping.observe(self.step, self.metrics)
        if self.stopped_early:
            self._messages.say(f"stopped early at step {self.step}: {self.stopped_early}")
        save_due = (
            epoch_ends
            or (is_best and checkpoints.keep_best)
            or (checkpoints.every_steps and self.step % checkpoints.every_steps == 0)
        )
        if save_due and not self.completed:
            self._save()

    def _log_step(self, result: StepResult) -> None:
        num_examples, seconds = self.num_examples_until(self.step), self._clock.read()["train"]
        rate = (num_examples - self._logged_examples) / max(seconds - self._logged_seconds, 1e-9)
        self._logged_examples, self._logged_seconds = num_examples, seconds
        self._append_metrics(
            self._batch_metrics(result)
            | {"lr": result.lr, "examples_per_s": round(rate, 1)}
            | self._gradient_metrics(result)
        )

    def _batch_metrics(self, result: StepResult) -> Metrics:
        """Return loss and accuracy of the step's batch; nothing of an empty one."""
        n, private = result.num_examples, result.private
        if n == 0:
            return {}
        if private:
            num_correct = int(private.correct_N.sum())
        else:
            labels = self._arrays["train.labels"][self._arrays["indices"][:n]]
            num_correct = int((self._arrays["predictions"][:n] == labels).sum())
        return {"train/loss": result.loss, "train/accuracy": num_correct / n}

    def _gradient_metrics(self, result: StepResult) -> Metrics:
        """Return what the norms of the examples' gradients come to, before clipping, where they are measured."""
        n, private = result.num_examples, result.private
        if self.noise_scale is None or n == 0:
            return {}
        squared_norms_NL = private.squared_norms_NL if private else self._arrays["squared_norms"][:n]
        names = [layer.name for layer in self._network.trained_layers]
        metrics = norm_metrics(squared_norms_NL, names, by_layer=self._per_example.by_layer)
        norms_N, clip = gradient_norms(squared_norms_NL), self._per_example.clip
        if clip is not None:
            metrics["train/clipped"] = float((norms_N > clip).mean())
            norms_N = np.minimum(norms_N, clip)
        # A longer training does not log what happens to be the last step of a shorter one.
        if self.step % self._config.logging.every_steps == 0:
            update = self._steps.update
            squared_norm = private.squared_norm_of_sum if private else update.squared_norm_of(update.gradient_sum(n))
            self.noise_scale.observe(norms_N, squared_norm)
        if self.noise_scale.value is not None:
            metrics["train/gradient_noise_scale"] = self.noise_scale.value
        return metrics

    def _log_privacy(self) -> None:
        privacy = self.privacy
        assert privacy is not None
        self._append_metrics({"privacy/epsilon": privacy["epsilon"]})
        self._messages.say(f"step {self.step}: {describe_privacy(privacy)}")

    def _validate(self) -> bool:
        """Evaluate on the validation split; return whether it is the best so far."""
        evaluation = self.evaluate(SplitName.VALIDATION)
        metrics = {f"validation/{name}": value for name, value in evaluation.metrics().items()}
        self._append_metrics(metrics)
        epochs = self.step / self._preparation.steps_per_epoch
        self._messages.say(
            f"epoch {epochs:.4g}, step {self.step}: validation accuracy {evaluation.accuracy:.2%}, "
            f"loss {evaluation.loss:.4f}"
        )
        key = "validation/accuracy"
        if self.best is None or metrics[key] > self.best[key]:
            self.best = {"step": self.step, **metrics}
            return True
        return False

    def _append_metrics(self, metrics: Metrics) -> None:
        row = {
            "step": self.step,
            "epoch": round(self.step / self._preparation.steps_per_epoch, 6),
            "examples": self.num_examples_until(self.step),
            "time_s": round(self._earlier_seconds + sum(self._clock.read().values()), 3),
        }
        self.metrics |= metrics
        if self._run is None:
            return
        kill_point("coordinator: before a line of metrics")
        try:
            self._metrics_log.append(row | metrics)
        except OSError as error:
            if not self._num_lost_rows:
                self._messages.warn(
                    f"the metrics of step {self.step} are lost: {error.strerror}; training goes on, and the further "
                    "ones that are lost are counted"
                )
            self._num_lost_rows += 1
        else:
            self._tell_lost_rows()
        kill_point("coordinator: after a line of metrics")

    def _tell_lost_rows(self) -> None:
        if self._num_lost_rows > 1:
            self._messages.warn(f"{self._num_lost_rows} lines of metrics were lost up to step {self.step}")
        self._num_lost_rows = 0

    def _save(self, *, is_last: bool = False) -> None:
        """Save the state after this step, unless that has been done; then delete what need not be kept.

        Raises
        ------
        FailedRun
            The last save of a run did not succeed. An earlier one that fails is a warning.
        """
        if self._run is None or self._saved_step == self.step:
            return
        checkpoints, folder = self._config.checkpoints, self._run.checkpoints_path
        self._require_unchanged_data()
        kill_point("coordinator: before a save")
        with self._clock.timing("checkpoint"):
            try:
                self._secure(self._write_state)
            except OSError as error:
                message = f"step {self.step} could not be saved in {folder}: {error.strerror}"
                if is_last:
                    raise FailedRun(f"{message}; the last good checkpoint is still there") from error
                self._messages.warn(f"{message}; training goes on, the older checkpoint stays")
                return
            self._saved_step = self.step
            kill_point("coordinator: between a save and the deletion of older ones")
            best_step = int(self.best["step"]) if self.best and checkpoints.keep_best else None
            try:
                self._run.checkpoints.prune(newest_step=self.step, keep_last=checkpoints.keep_last, best_step=best_step)
            except OSError as error:
                self._messages.warn(f"an old checkpoint in {folder} could not be deleted: {error.strerror}")
        kill_point("coordinator: after a save")

    def _write_state(self) -> None:
        assert self._run is not None
        self._metrics_log.flush_durably()
        self._run.checkpoints.save(self._state())

    def _require_unchanged_data(self) -> None:
        """Check that the data is what it was: parameters that came of other data are not saved.

        Raises
        ------
        FailedRun
            A file was changed during the training.
        """
        try:
            self._preparation.dataset.require_unchanged()
        except DataError as error:
            self._settled_step = -1
            raise FailedRun(
                f"{error} The steps after the last checkpoint were not saved: put the old file back and resume the "
                "run, or train a new one."
            ) from error

    def _vectors(self) -> dict[str, NDArray[Any]]:
        """Return what is saved of each parameter, by the prefix of its name in a checkpoint."""
        self._steps.update.collect_moments()
        return {
            "": self._parameters,
            FIRST_MOMENT_PREFIX: self._adam.first_moment,
            SECOND_MOMENT_PREFIX: self._adam.second_moment,
        }

    def _state(self) -> Checkpoint:
        tensors = {
            prefix + name: view
            for prefix, vector in self._vectors().items()
            for name, view in self._network.parameters.views(vector).items()
        }
        normalisation, dataset = self._preparation.normalisation, self._preparation.dataset
        metadata = {
            "step": self.step,
            "epoch": self.step / self._preparation.steps_per_epoch,
            "seed": self._config.seed,
            "best": self.best,
            "normalisation": {"mean": normalisation.mean, "std": normalisation.std},
            "class_names": dataset.class_names,
            "image_shape": self._network.input_shape,
            "image_dtype": dataset.image_dtype,
            "data_digest": dataset.digest,
            "config_digest": self._config.identity_digest(),
        }
        if self._early_stopping:
            metadata["stop_early"] = self._early_stopping.state
        if privacy := self.privacy:
            metadata["privacy"] = privacy
        if self.noise_scale:
            metadata["gradient_noise_scale"] = self.noise_scale.state
        return Checkpoint(tensors, metadata)
