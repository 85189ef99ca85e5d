"""The images and the loss of a step's examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from partrain.config.schema.augmentation import Augment, Crop, Cutmix, Erase, Mixup
from partrain.data.mixing import Mixing
from partrain.kernels.compiler.loading import load
from partrain.network.execution import TrainingExamples
from partrain.parallel.workers.step_examples import ExampleChanges, StepExamples

Array = NDArray[Any]
SHAPE, NUM_TRAIN, MEAN = (3, 12, 10), 50, (40.0, 50.0, 60.0)
AUGMENT = Augment(shift=(1.0, 2.0), crop=Crop(padding=2), flip="horizontal", brightness=0.3, erase=Erase())
INDICES = np.array([4, 17, 3, 49, 20])


@pytest.fixture(params=["uint8", "float32"])
def images(request: pytest.FixtureRequest) -> Array:
    return np.random.default_rng(0).integers(0, 256, (NUM_TRAIN, *SHAPE)).astype(request.param)


@pytest.fixture
def labels() -> Array:
    return np.arange(NUM_TRAIN) % 7


def made(changes: ExampleChanges, images: Array, labels: Array, indices: Array = INDICES, epoch: int = 2) -> Array:
    """Return the images of these examples."""
    for kernels in ("fast", "loops"):
        load(changes.kernels(kernels), "float32")
    examples = StepExamples(
        changes, "fast", len(indices), labels, SHAPE, MEAN, seed=1, is_uint8=images.dtype == np.uint8
    )
    result, places = examples.images(lambda taken: (images, taken), TrainingExamples(1, epoch, indices))
    return result[places].copy()


def test_without_changes_the_images_are_those_of_the_data_set(images: Array, labels: Array) -> None:
    assert np.array_equal(made(ExampleChanges(label_smoothing=0.1), images, labels), images[INDICES])


def test_a_partner_is_augmented_as_itself(images: Array, labels: Array) -> None:
    mixing = {"mixup": Mixup(alpha=1.0), "cutmix": Cutmix(alpha=1.0)}
    mixed = made(ExampleChanges(AUGMENT, **mixing), images, labels)
    everything = made(ExampleChanges(AUGMENT), images, labels, np.arange(NUM_TRAIN))
    draws = Mixing(**mixing, seed=1, num_train=NUM_TRAIN, image_shape=SHAPE).draw(INDICES, 2)
    ways = set()
    for n, (partner, share, pixels, box) in enumerate(zip(*draws, strict=True)):
        own, other = (everything[k].astype(np.float64) for k in (INDICES[n], partner))
        expected = pixels * own + (1 - pixels) * other
        expected[:, box[0] : box[1], box[2] : box[3]] = other[:, box[0] : box[1], box[2] : box[3]]
        assert np.array_equal(mixed[n], expected.astype(np.float32))
        ways.add(bool(box.any()))
        assert 0 <= share <= 1
    assert ways == {True, False}


def test_an_image_depends_on_no_other_example_of_the_call(images: Array, labels: Array) -> None:
    changes = ExampleChanges(AUGMENT, Mixup(alpha=0.3), Cutmix(alpha=1.0))
    together = made(changes, images, labels)
    for n, index in enumerate(INDICES):
        assert np.array_equal(made(changes, images, labels, np.array([index]))[0], together[n])


def test_erased_boxes_have_the_mean_of_the_training_images(images: Array, labels: Array) -> None:
    erase = Erase(probability=1.0, area=(0.9, 1.0), aspect=(1.2, 1.2))
    erased = made(ExampleChanges(Augment(erase=erase)), images, labels)
    is_erased = erased != images[INDICES]
    assert is_erased.mean() > 0.8
    for channel, mean in enumerate(MEAN):
        assert (erased[:, channel][is_erased[:, channel]] == mean).all()


def test_only_uint8_images_stay_within_0_to_255(images: Array, labels: Array) -> None:
    brighter = made(ExampleChanges(Augment(brightness=1.0, contrast=1.0)), images, labels, np.arange(NUM_TRAIN))
    if images.dtype == np.uint8:
        assert (brighter.min(), brighter.max()) == (0, 255)
    else:
        assert brighter.min() < 0
        assert brighter.max() > 255
