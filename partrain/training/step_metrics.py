"""The metrics of a step's batch: loss, accuracy, and statistics of the norms of single examples' gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from partrain.config.schema.training import PerExample
from partrain.data.mixing import Mixing
from partrain.network.clipping import gradient_norms
from partrain.network.exact_mean import exact_mean
from partrain.network.network import Network
from partrain.training.gradient_statistics import GradientNoiseScale, norm_metrics
from partrain.training.plan import TrainingPlan
from partrain.training.step.gradient import BatchGradient

Metrics = dict[str, float]
Accuracy = Callable[[int, BatchGradient], float]


def make_accuracy(plan: TrainingPlan) -> Accuracy:
    """Return what computes the accuracy of a step's batch: the mean share of the predicted class in its target."""
    training = plan.config.training
    if not training.mixes:
        return lambda step, batch: int(batch.agrees_with(batch.indices_N).sum()) / batch.num_examples
    mixing = Mixing(
        training.mixup,
        training.cutmix,
        seed=plan.config.seed,
        num_train=plan.dataset.train.size,
        image_shape=plan.dataset.image_shape,
    )
    steps_per_epoch = plan.steps_per_epoch

    def accuracy(step: int, batch: BatchGradient) -> float:
        mixed = mixing.draw(batch.indices_N, (step - 1) // steps_per_epoch)
        own_N, partner_N = batch.agrees_with(batch.indices_N), batch.agrees_with(mixed.partners_N)
        return exact_mean(mixed.shares_N * own_N + (1 - mixed.shares_N) * partner_N)

    return accuracy


class StepMetrics:
    """Computes the metrics of a batch.

    Parameters
    ----------
    network : gives the names of the layers.
    settings : the statistics to compute, and the norm to which gradients are clipped.
    is_regular : says of a logged step whether a longer run logs it, too; the noise scale is measured only then, so that
        a longer run measures it at the same steps.
    accuracy : returns the accuracy of a batch.

    Attributes
    ----------
    noise_scale : the gradient noise scale; None if it is not measured.
    """

    def __init__(
        self, network: Network, settings: PerExample, is_regular: Callable[[int], bool], accuracy: Accuracy
    ) -> None:
        self._layer_names = [layer.name for layer in network.trained_layers]
        self._settings, self._is_regular, self._accuracy = settings, is_regular, accuracy
        self.noise_scale = GradientNoiseScale() if settings.statistics else None

    def restore(self, noise_scale: dict[str, float] | None) -> None:
        """Continue from the state of the noise scale in a checkpoint."""
        if self.noise_scale is not None:
            self.noise_scale = GradientNoiseScale(noise_scale)

    def compute(self, step: int, batch: BatchGradient) -> Metrics:
        """Return the metrics of a batch, and update the noise scale; an empty batch has no metrics."""
        if not batch.num_examples:
            return {}
        metrics = {"train/loss": batch.loss, "train/accuracy": self._accuracy(step, batch)}
        return metrics if self.noise_scale is None else metrics | self._statistics(step, batch, self.noise_scale)

    def _statistics(self, step: int, batch: BatchGradient, noise_scale: GradientNoiseScale) -> Metrics:
        """Return the statistics of the norms before clipping; the noise scale is that of the clipped gradients."""
        squared_norms_NL, clip = batch.squared_norms_NL, self._settings.clip
        metrics = norm_metrics(squared_norms_NL, self._layer_names, by_layer=self._settings.by_layer)
        norms_N = gradient_norms(squared_norms_NL)
        if clip is not None:
            metrics["train/clipped"] = np.count_nonzero(norms_N > clip) / len(norms_N)
            norms_N = np.minimum(norms_N, clip)
        if self._is_regular(step):
            noise_scale.observe(norms_N, batch.squared_norm_of_sum)
        if noise_scale.value is not None:
            metrics["train/gradient_noise_scale"] = noise_scale.value
        return metrics
