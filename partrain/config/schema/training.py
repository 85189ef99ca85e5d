"""The section `training`: the computation of a step, and the number of steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import Field

from partrain.config.schema.augmentation import Augment, Cutmix, Mixup, mixing_probabilities
from partrain.config.schema.optimizer import Optimizer
from partrain.config.schema.schedule import Schedule
from partrain.config.schema.values import Fraction, NonNegativeFloat, PositiveInt, Section


class StopEarly(Section):
    """Stop when the evaluations no longer improve."""

    metric: Literal["validation/loss", "validation/accuracy"] = Field(
        "validation/loss", description="The metric to watch."
    )
    patience: PositiveInt = Field(
        3, description="The number of evaluations in a row without an improvement after which training stops."
    )
    min_delta: NonNegativeFloat = Field(
        0.0, description="How much better than the best a metric must be to count as an improvement."
    )


class Ema(Section):
    """The exponential moving average of the parameters."""

    decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="The share of the old average in the new one, e.g. 0.999; PyTorch's `get_ema_multi_avg_fn(decay)`. "
        "The first step copies the parameters."
    )
    warmup: bool = Field(
        False, description="Use min(`decay`, (1 + t) / (10 + t)) in the step after t steps: for short trainings."
    )


class PerExample(Section):
    """Statistics and clipping of each example's gradient, before gradients are summed."""

    statistics: bool = Field(
        False,
        description="Log the norms of the examples' gradients and the gradient noise scale. The parameters stay the "
        "same.",
    )
    by_layer: bool = Field(False, description="Log the norms for each layer as well. Needs `statistics: true`.")
    clip: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="The largest norm of an example's gradient; larger gradients are scaled down to it before the sum. "
        "`.inf` clips nothing but computes the norms; null: off.",
    )

    def checks(self) -> Iterable[Iterator[str]]:
        return self._problems_of_layers(), self._problems_of_clipping()

    def _problems_of_layers(self) -> Iterator[str]:
        if self.by_layer and not self.statistics:
            yield "by_layer needs the statistics; set training.per_example.statistics: true as well"

    def _problems_of_clipping(self) -> Iterator[str]:
        if self.clip is not None and not 1e-30 <= self.clip <= 1e30 and self.clip != math.inf:
            yield "clip must be a norm from 1e-30 to 1e30, or .inf"

    @property
    def clips(self) -> bool:
        """Whether gradients are clipped; an infinite norm clips none."""
        return self.clip is not None and self.clip != math.inf


class Privacy(Section):
    """Differentially private training: sampled batches, and noise on the sum of the clipped gradients."""

    noise_multiplier: Annotated[float, Field(ge=0.1, le=1e4, allow_inf_nan=False)] | None = Field(
        None,
        description="The standard deviation of the noise, as a multiple of `per_example.clip`. null: computed from "
        "`target_epsilon` over all steps.",
    )
    delta: Annotated[float, Field(gt=0, lt=1)] = Field(description="The delta at which epsilon is computed.")
    target_epsilon: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        None,
        description="Training stops before a step that would exceed this epsilon. Needed without `noise_multiplier`.",
    )
    source: Literal["secure", "seeded"] = Field(
        "secure",
        description="The source of random numbers. `secure`: ChaCha20 with keys of the system's cryptographic "
        "generator; no two runs are equal. `seeded`: the seed; runs are reproducible and not private, because the "
        "noise can be subtracted.",
    )
    max_batch_size: PositiveInt | None = Field(
        None,
        description="The largest number of examples computed at a time; a larger batch takes several rounds. null: six "
        "standard deviations above the expected batch size.",
    )

    def checks(self) -> Iterable[Iterator[str]]:
        return (self._problems_of_noise(),)

    def _problems_of_noise(self) -> Iterator[str]:
        if self.noise_multiplier is None and self.target_epsilon is None:
            yield "give noise_multiplier, or target_epsilon, from which it is computed"


class Training(Section):
    """The computation of a step, and the number of steps."""

    epochs: PositiveInt = Field(1, description="How many times to go through the training examples.")
    max_steps: PositiveInt | None = Field(
        None, description="The number of steps after which training stops, if `epochs` has more."
    )
    batch_size: PositiveInt = Field(
        32, description="The number of examples per step. With `privacy`, the expected number."
    )
    tile: PositiveInt = Field(
        4, description="The number of examples that a worker computes together; the unit of work that workers share."
    )
    block: PositiveInt | None = Field(
        None,
        description="The number of examples whose gradients are added one after the other, a multiple of `tile`; the "
        "sums of blocks are added in a binary tree. null: 32, or the next multiple of `tile`.",
    )
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    stop_early: StopEarly | None = Field(
        None, description="Stop when validation no longer improves, e.g. `{patience: 3}`. null: never."
    )
    ema: Ema | None = Field(
        None,
        description="Average the parameters over the steps, e.g. `{decay: 0.999}`. The averaged weights are evaluated "
        "beside the others (`validation/ema_accuracy`, `validation/ema_loss`), and stored in checkpoints; "
        "`partrain evaluate`, `predict` and `export` take them with `--weights ema`. null: no average.",
    )
    freeze: list[str] = Field(
        [],
        description="The layers whose parameters stay as they are, e.g. `[conv1, conv2]`: names as `--dry-run` prints "
        "them. Below the lowest layer that is trained, no gradients are computed. Batch normalisation still uses the "
        "statistics of the tile in training.",
    )
    class_weights: Literal["balanced"] | None = Field(
        None,
        description="`balanced`: multiply the loss and the gradient of each example by N / (classes * examples of its "
        "class), as scikit-learn does. `train/loss` is then the mean of the weighted losses; evaluations are not "
        "weighted.",
    )
    label_smoothing: Fraction = Field(
        0.0,
        description="The share of each target that is spread evenly over all classes. `train/loss` is then the loss of "
        "these targets; evaluations are not smoothed.",
    )
    per_example: PerExample = PerExample()
    augment: Augment | None = Field(
        None,
        description="Transform training images at random, differently in each epoch, e.g. `{shift: 2, rotation: 10}`. "
        "Each image is resampled once, bilinearly, by a map drawn uniformly within the bounds below; outside the "
        "image, pixels are 0. Then it is cropped, mirrored, changed in brightness and contrast, and erased in part. "
        "Validation and test images never change. null: no augmentation.",
    )
    mixup: Mixup | None = Field(
        None,
        description="Average each image and its target with those of a partner, e.g. `{alpha: 0.2}`. The partner is "
        "drawn from all training examples, and augmented as itself. `train/loss` is the loss of the mixed targets, and "
        "`train/accuracy` the mean share that the predicted class has in its target. null: no mixup.",
    )
    cutmix: Cutmix | None = Field(
        None,
        description="Replace a box of each image with a partner's, and that share of its target, e.g. `{alpha: 1}`; "
        "otherwise as `mixup`. null: no CutMix.",
    )
    privacy: Privacy | None = Field(
        None,
        description="Train with differential privacy (DP-SGD), e.g. `{delta: 1.0e-5, target_epsilon: 3}`. Needs "
        "`per_example.clip`; not allowed with `class_weights`, `mixup` and `cutmix`. null: no privacy.",
    )
    kernels: Literal["fast", "loops"] = Field(
        "fast", description="The optimised kernels, or the plain loops that define what they compute."
    )
    dtype: Literal["float32", "float64"] = Field(
        "float32", description="The type of all numbers. `float64` needs `kernels: loops`."
    )

    @property
    def needs_evaluations(self) -> str | None:
        """The key that needs evaluations on the validation examples during the training; None if there is none."""
        if self.stop_early is not None:
            return "training.stop_early"
        return "training.schedule.name plateau" if self.schedule.name == "plateau" else None

    def checks(self) -> Iterable[Iterator[str]]:
        yield self._problems_of_blocks()
        yield self._problems_of_dtype()
        yield self._problems_of_clipping()
        yield self._problems_of_private_weights()
        for name in ("mixup", "cutmix"):
            yield self._problems_of_private_mixing(name)
            yield self._problems_of_mixing_with_weights(name)
        yield self._problems_of_probabilities()

    @property
    def mixes(self) -> bool:
        """Whether examples are mixed with partners."""
        return self.mixup is not None or self.cutmix is not None

    def _problems_of_blocks(self) -> Iterator[str]:
        if self.block is not None and self.block % self.tile:
            yield (
                f"training.block: {self.block} is no multiple of training.tile, {self.tile}; "
                f"give {-(-self.block // self.tile) * self.tile}, for example"
            )

    def _problems_of_dtype(self) -> Iterator[str]:
        if self.dtype == "float64" and self.kernels == "fast":
            yield "training: the fast kernels compute in float32; dtype float64 needs kernels: loops"

    def _problems_of_clipping(self) -> Iterator[str]:
        if self.privacy and not self.per_example.clips:
            yield (
                "training.privacy needs clipped gradients; set training.per_example.clip to a finite norm, for "
                "example 1.0"
            )

    def _problems_of_private_weights(self) -> Iterator[str]:
        if self.privacy and self.class_weights is not None:
            yield (
                "training.class_weights depends on all labels, which training.privacy does not protect; use only one "
                "of them"
            )

    def _problems_of_private_mixing(self, name: str) -> Iterator[str]:
        if getattr(self, name) and self.privacy:
            yield (
                f"training.{name} lets an example change the gradients of others, which training.privacy cannot "
                "bound; use only one of them"
            )

    def _problems_of_mixing_with_weights(self, name: str) -> Iterator[str]:
        if getattr(self, name) and self.class_weights is not None:
            yield (
                f"training.{name} makes targets of two classes, but training.class_weights has a weight for one; "
                "use only one of them"
            )

    def _problems_of_probabilities(self) -> Iterator[str]:
        probability = sum(mixing_probabilities(self.mixup, self.cutmix))
        if probability > 1:
            yield (
                f"training.mixup.probability and training.cutmix.probability add up to {probability:g}; an example is "
                "mixed in one way, so they must add up to at most 1"
            )
