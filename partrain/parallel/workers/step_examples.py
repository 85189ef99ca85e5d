"""The examples of a training step: their images, augmented and mixed with those of partners, and their loss.

Shapes: M images; N examples; E classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from partrain.data.augmentation import ImageChange, augmentation_kernels, make_augmentation
from partrain.data.mixing import ImageMixer, Mixed, Mixing
from partrain.kernels import loops, loops_loss
from partrain.kernels.compiler.flags import Kernel
from partrain.network.execution import TrainingExamples

if TYPE_CHECKING:  # workers need no schema
    from partrain.config.schema.augmentation import Augment, Cutmix, Mixup
    from partrain.config.schema.training import Training

Array = NDArray[Any]
# Returns an array of images, and the rows in it of the examples with these indices; see `ExampleSource`.
Take = Callable[[NDArray[np.int64]], tuple[Array, NDArray[np.int64]]]


@dataclass(frozen=True)
class ExampleChanges:
    """What a step changes in its examples; the attributes are those of the configuration's section `training`."""

    augment: Augment | None = None
    mixup: Mixup | None = None
    cutmix: Cutmix | None = None
    label_smoothing: float = 0.0

    @classmethod
    def of(cls, training: Training) -> ExampleChanges:
        """Return the changes that a configuration asks for."""
        return cls(training.augment, training.mixup, training.cutmix, training.label_smoothing)

    @property
    def mixes(self) -> bool:
        """Whether examples are mixed with partners."""
        return self.mixup is not None or self.cutmix is not None

    @property
    def images_per_example(self) -> int:
        """The number of images that an example is made of."""
        return 1 + self.mixes

    @property
    def has_soft_targets(self) -> bool:
        """Whether a target can have more than one class."""
        return self.mixes or self.label_smoothing > 0

    def kernels(self, kernels: str) -> tuple[Kernel, ...]:
        """Return the kernels that `StepExamples` calls; `kernels` is "fast" or "loops"."""
        mixing = (*Mixing.KERNELS, *ImageMixer.KERNELS) if self.mixes else ()
        loss = loops_loss.softmax_soft_cross_entropy if self.has_soft_targets else loops.softmax_cross_entropy
        return (*augmentation_kernels(self.augment, kernels), *mixing, loss)


NO_CHANGES = ExampleChanges()


class StepExamples:
    """Computes the images and the loss of a step's examples.

    Parameters
    ----------
    changes : what is changed.
    kernels : "fast" or "loops".
    capacity : the largest number of examples per call.
    labels_M : the labels of the training examples.
    image_shape : (C, H, W).
    mean : the mean of the training images, one per channel.
    seed : the seed of the run.
    is_uint8 : whether the pixels are uint8.
    """

    def __init__(
        self,
        changes: ExampleChanges,
        kernels: str,
        capacity: int,
        labels_M: NDArray[np.int64],
        image_shape: tuple[int, ...],
        mean: tuple[float, ...],
        *,
        seed: int,
        is_uint8: bool,
    ) -> None:
        self._labels_M, self._seed, self._smoothing = labels_M, seed, changes.label_smoothing
        self._has_soft_targets = changes.has_soft_targets
        self._image_changes: list[ImageChange] = []
        if changes.augment is not None:
            self._image_changes = make_augmentation(
                changes.augment,
                image_shape,
                capacity * changes.images_per_example,
                kernels,
                mean,
                is_uint8=is_uint8,
            )
        self._mixing: Mixing | None = None
        if changes.mixes:
            self._mixing = Mixing(
                changes.mixup, changes.cutmix, seed=seed, num_train=len(labels_M), image_shape=image_shape
            )
            self._mixer = ImageMixer(image_shape, capacity)
        self._all_own = np.ones(capacity)
        self._mixed: Mixed | None = None

    def images(self, take: Take, examples: TrainingExamples) -> tuple[Array, NDArray[np.int64]]:
        """Return an array of images, and the indices of the examples in it; valid until the next call.

        Parameters
        ----------
        take : returns the images of examples, of each and of its partner.
        examples : the examples, and the epoch.
        """
        if self._mixing is None:
            return self._changed(take, examples.indices_N, examples.epoch)
        N = len(examples.indices_N)
        self._mixed = self._mixing.draw(examples.indices_N, examples.epoch)
        with_partners = np.concatenate((examples.indices_N, self._mixed.partners_N))
        images, places = self._changed(take, with_partners, examples.epoch)
        return self._mixer.apply(images, places[:N], places[N:], self._mixed)

    def _changed(self, take: Take, indices: NDArray[np.int64], epoch: int) -> tuple[Array, NDArray[np.int64]]:
        images, places = take(indices)
        for change in self._image_changes:
            images, places = change.apply(images, places, seed=self._seed, epoch=epoch, examples_N=indices)
        return images, places

    def compute_loss(self, logits_NE: Array, indices_N: NDArray[np.int64], outputs: Sequence[Array]) -> None:
        """Compute the loss of the examples of the last `images`, and its gradient.

        Parameters
        ----------
        logits_NE, indices_N : the network's outputs for these examples, and their indices in the training set.
        outputs : arrays for losses, predictions, confidences and the gradient at the logits; overwritten. See
            `loops.softmax_cross_entropy`.
        """
        labels_N = self._labels_M[indices_N]
        if not self._has_soft_targets:
            loops.softmax_cross_entropy(logits_NE, labels_N, *outputs)
            return
        partner_labels_N, shares_N = labels_N, self._all_own[: len(labels_N)]
        if self._mixed is not None:
            partner_labels_N, shares_N = self._labels_M[self._mixed.partners_N], self._mixed.shares_N
        loops_loss.softmax_soft_cross_entropy(
            logits_NE, labels_N, partner_labels_N, shares_N, self._smoothing, *outputs
        )
