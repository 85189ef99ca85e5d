"""The sections `training.augment`, `mixup` and `cutmix`: the random changes of training images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field

from partrain.config.schema.values import RANGE, Fraction, NonNegativeFloatPair, NonNegativePair, Section

_Aspect = Annotated[float, Field(ge=0.01, le=100)]
_Bound = Annotated[float, Field(ge=0, le=1)]
_Alpha = Annotated[float, Field(ge=0.001, le=1000)]
_Probability = Annotated[float, Field(gt=0, le=1)]


class Elastic(Section):
    """Elastic distortion: each pixel is displaced by smooth noise."""

    alpha: Annotated[float, Field(ge=0, le=1e6)] = Field(
        description="Each pixel is displaced, in rows and in columns, by uniform noise in (-1, 1), smoothed by a "
        "Gaussian and multiplied by `alpha`: by 0.16 `alpha`/`sigma` pixels on average (root mean square).",
    )
    sigma: Annotated[float, Field(ge=1, le=1e6)] = Field(
        description="The standard deviation of the Gaussian that smooths the noise, in pixels."
    )


class Crop(Section):
    """A random crop of the image's own size, after zeros were added around it."""

    padding: NonNegativePair = Field(description="The number of pixels that are added at each side.")


class Erase(Section):
    """Random erasing of a box."""

    probability: _Probability = Field(0.5, description="The probability of a box.")
    area: Annotated[tuple[_Probability, _Probability], *RANGE] = Field(
        (0.02, 0.33), description="The box' share of the image."
    )
    aspect: Annotated[tuple[_Aspect, _Aspect], *RANGE] = Field(
        (0.3, 3.3), description="The box' rows divided by its columns; the logarithm is uniform."
    )


class Augment(Section):
    """The random changes of training images."""

    shift: NonNegativeFloatPair = Field((0.0, 0.0), description="The largest shift in each direction, in pixels.")
    rotation: Annotated[float, Field(ge=0, le=180)] = Field(
        0.0, description="The largest rotation about the centre in each direction, in degrees."
    )
    scale: Fraction = Field(
        0.0, description="The largest change of size: the factor lies between 1 - `scale` and 1 + `scale`."
    )
    elastic: Elastic | None = Field(None, description="Distort elastically. null: no distortion.")
    crop: Crop | None = Field(None, description="Add zeros around the image, and crop it at random. null: no crop.")
    flip: Literal["horizontal", "vertical", "both"] | None = Field(
        None, description="Mirror left and right (`horizontal`), top and bottom, or both, each with probability 1/2."
    )
    brightness: _Bound = Field(
        0.0,
        description="The factor of all pixels lies between 1 - `brightness` and 1 + `brightness`; the pixels of 8 bits "
        "stay between 0 and 255.",
    )
    contrast: _Bound = Field(0.0, description="The same for the pixels' differences from the image's mean grey level.")
    erase: Erase | None = Field(
        None, description="Replace a box with the mean of the training images (random erasing). null: no box."
    )

    def moves_out_of_sight(self, rows: int, columns: int) -> Iterator[str]:
        """Yield a message for each bound that lets images of a size move out of view completely."""
        moves: list[tuple[str, Sequence[float]]] = [("shift", self.shift)]
        if self.crop is not None:
            moves.append(("crop.padding", self.crop.padding))
        for key, most in moves:
            if most[0] >= rows or most[1] >= columns:
                yield (
                    f"training.augment.{key}: {most[0]:g} rows and {most[1]:g} columns move an image of {rows} x "
                    f"{columns} pixels out of sight; a tenth of its size is usual"
                )

    @property
    def resamples(self) -> bool:
        """Whether pixels move by fractions of a pixel."""
        is_distorted = self.elastic is not None and self.elastic.alpha > 0
        return is_distorted or any((*self.shift, self.rotation, self.scale))

    @property
    def changes_pixels(self) -> bool:
        """Whether images are cropped, mirrored, changed in brightness or contrast, or erased in part."""
        return any((self.crop, self.flip, self.brightness, self.contrast, self.erase))


_PROBABILITY_OF_MIXING = (
    "The probability that an example is mixed so. null: what the other method leaves, of two without a probability 1/2."
)


class Mixup(Section):
    """Averages of two images."""

    alpha: _Alpha = Field(description="The share of the example's own image has the distribution Beta(alpha, alpha).")
    probability: _Probability | None = Field(None, description=_PROBABILITY_OF_MIXING)


class Cutmix(Section):
    """Images with a box of another one."""

    alpha: _Alpha = Field(
        description="The share of the image outside the box has the distribution Beta(alpha, alpha); then the box is "
        "cut off at the image's edges."
    )
    probability: _Probability | None = Field(None, description=_PROBABILITY_OF_MIXING)


def mixing_probabilities(mixup: Mixup | None, cutmix: Cutmix | None) -> tuple[float, float]:
    """Return the probabilities with which an example is mixed by mixup, and by CutMix."""
    p, q = (None if method is None else method.probability for method in (mixup, cutmix))
    if mixup is None or cutmix is None:
        return (0.0 if mixup is None else p or 1.0), (0.0 if cutmix is None else q or 1.0)
    if p is None:
        return (0.5, 0.5) if q is None else (1 - q, q)
    return p, (1 - p if q is None else q)
