"""The section `training.augment`: the random changes of training images."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from partrain.config.schema.values import Fraction, NonNegativeFloatPair, Section


class Elastic(Section):
    """Elastic distortion: each pixel is displaced by smooth noise."""

    alpha: Annotated[float, Field(ge=0, le=1e6)] = Field(
        description="Each pixel is displaced, in rows and in columns, by uniform noise in (-1, 1), smoothed by a "
        "Gaussian and multiplied by `alpha`: by 0.16 `alpha`/`sigma` pixels on average (root mean square).",
    )
    sigma: Annotated[float, Field(ge=1, le=1e6)] = Field(
        description="The standard deviation of the Gaussian that smooths the noise, in pixels."
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
