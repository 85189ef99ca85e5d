from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from partrain.config.schema.augmentation import Augment, Crop, Elastic
from partrain.data.augmentation import Resampling, spline_of
from partrain.data.augmentation_bounds import require_in_sight
from partrain.errors import ConfigError
from partrain.kernels.augmentation import augment
from partrain.kernels.compiler.loading import load


def displacements(elastic: Elastic, size: int, num_images: int) -> np.ndarray:
    """Measure by how many columns pixels are taken from elsewhere: from an image whose pixels are their columns."""
    load([augment], "float32")
    ramp = np.tile(np.arange(1, size + 1, dtype=np.float32), (1, 1, size, 1))
    augmentation = Resampling(Augment(elastic=elastic), (1, size, size), num_images, augment)
    places = np.zeros(num_images, np.int64)
    images, _ = augmentation.apply(ramp, places, seed=0, epoch=0, examples_N=np.arange(num_images))
    inside = slice(size // 4, -size // 4)
    return (images - ramp)[:, 0, inside, inside].astype(np.float64)


@pytest.mark.parametrize(("alpha", "sigma"), [(20, 3), (34, 4), (60, 7)])
def test_displacements_are_as_large_and_as_smooth_as_those_of_smoothed_noise(alpha: float, sigma: float) -> None:
    rng = np.random.default_rng(0)
    moved = displacements(Elastic(alpha=alpha, sigma=sigma), 96, 60)
    smoothed = np.array(
        [alpha * ndimage.gaussian_filter(rng.uniform(-1, 1, (96, 96)), sigma)[24:-24, 24:-24] for _ in range(60)]
    )
    assert moved.std() == pytest.approx(smoothed.std(), rel=0.1)
    for distance in (round(sigma), round(2 * sigma)):
        correlations = [
            (field[:, :, distance:] * field[:, :, :-distance]).mean() / field.var() for field in (moved, smoothed)
        ]
        assert correlations[0] == pytest.approx(correlations[1], abs=0.1)


def test_without_elastic_there_is_no_displacement() -> None:
    assert spline_of(None)[0] == 0
    assert spline_of(Elastic(alpha=0, sigma=4))[0] == 0


def test_images_are_a_function_of_seed_epoch_and_example() -> None:
    load([augment], "float32")
    images = np.random.default_rng(0).integers(0, 256, (8, 1, 9, 9)).astype(np.uint8)
    augmentation = Resampling(Augment(shift=(2.0, 2.0), rotation=10.0), (1, 9, 9), 8, augment)

    def made(seed: int, epoch: int, examples: list[int]) -> np.ndarray:
        indices = np.array(examples)
        result, places = augmentation.apply(images, indices, seed=seed, epoch=epoch, examples_N=indices)
        return result[places].copy()

    first = made(0, 0, [5, 2])
    assert np.array_equal(made(0, 0, [2, 5])[::-1], first)
    for other in (made(1, 0, [5, 2]), made(0, 1, [5, 2])):
        assert not np.array_equal(other, first)


@pytest.mark.parametrize("shift", [(28.0, 0.0), (0.0, 14.0)])
def test_shift_that_could_leave_nothing_of_an_image_is_refused(shift: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=r"training\.augment\.shift: .* move an image of 28 x 14 pixels out of sight"):
        require_in_sight(Augment(shift=shift), (1, 28, 14))
    require_in_sight(Augment(shift=(27.5, 13.5)), (1, 28, 14))
    require_in_sight(None, (1, 28, 14))


def test_every_move_out_of_sight_is_named():
    augment = Augment(shift=(28.0, 0.0), crop=Crop(padding=(0, 14)))
    with pytest.raises(ConfigError) as refusal:
        require_in_sight(augment, (1, 28, 14))
    first, second = str(refusal.value).splitlines()
    assert first.startswith("training.augment.shift: 28 rows and 0 columns move an image of 28 x 14 pixels out")
    assert second.startswith("training.augment.crop.padding: 0 rows and 14 columns move an image of 28 x 14 pixels")
    require_in_sight(Augment(crop=Crop(padding=(27, 13))), (1, 28, 14))
