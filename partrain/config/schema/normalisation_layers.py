"""The layers that normalise activations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from partrain.config.schema.values import FitsFloat32, PositiveInt, Section

_ZERO_INIT = "Start with factors of 0 instead of 1, for the last normalisation of a residual layer's body."


class GroupNorm(Section):
    """Group normalisation: each group of neighbouring channels of an example gets mean 0 and variance 1; then each
    channel has a factor and a summand, which are trained.
    """

    kind: Literal["group_norm"] = "group_norm"
    groups: PositiveInt = Field(description="The number of groups; it divides the number of channels.")
    eps: FitsFloat32 = Field(1e-5, description="Added to the variance.")
    zero_init: bool = Field(False, description=_ZERO_INIT)


class LayerNorm(Section):
    """Layer normalisation: all numbers of an example, of a vector or of an image, get mean 0 and variance 1; then each
    number has a factor and a summand, which are trained.
    """

    kind: Literal["layer_norm"] = "layer_norm"
    eps: FitsFloat32 = Field(1e-5, description="Added to the variance.")
    zero_init: bool = Field(False, description=_ZERO_INIT)


class BatchNorm(Section):
    """Batch normalisation: each channel gets mean 0 and variance 1 in each tile of a batch (in evaluations, by running
    statistics); then each channel has a factor and a summand, which are trained. Not allowed with `per_example`; use
    `group_norm` there.
    """

    kind: Literal["batch_norm"] = "batch_norm"
    momentum: Annotated[float, Field(gt=0, le=1)] = Field(
        0.1, description="The share of a step's statistics, the mean of its tiles', in the running statistics."
    )
    eps: FitsFloat32 = Field(1e-5, description="Added to the variance.")
    zero_init: bool = Field(False, description=_ZERO_INIT)
