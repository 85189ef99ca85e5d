"""The sections `training.optimizer` and `training.schedule`: how a gradient changes the parameters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from partrain.config.schema.values import (
    FitsFloat32,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Section,
)


class Optimizer(Section):
    """Adam with decoupled weight decay (AdamW)."""

    name: Literal["adam"] = Field("adam", description="The optimizer: Adam with decoupled weight decay.")
    lr: FitsFloat32 = Field(0.001, description="The learning rate, before the schedule changes it.")
    beta1: Fraction = Field(0.9, description="Adam's decay rate of the first moment.")
    beta2: Fraction = Field(0.999, description="Adam's decay rate of the second moment.")
    eps: FitsFloat32 = Field(1e-8, description="Adam's epsilon, added to the square root of the second moment.")
    weight_decay: NonNegativeFloat = Field(0.0, description="Decoupled weight decay, as in AdamW.")


class Schedule(Section):
    """The schedule of the learning rate over the steps."""

    name: Literal["constant", "cosine", "step"] = Field(
        "constant", description="How the learning rate changes after the warmup."
    )
    warmup_steps: NonNegativeInt = Field(
        0, description="The number of steps over which the learning rate rises linearly at the beginning."
    )
    decay_steps: PositiveInt | None = Field(
        None,
        description="`cosine`: the step at which the rate reaches `final_lr`; it stays there. null: all steps of "
        "`training.epochs`. Neither `max_steps` nor a later `--epochs` changes the resolved number.",
    )
    final_lr: NonNegativeFloat = Field(0.0, description="`cosine`: the rate at the end.")
    every_steps: PositiveInt = Field(
        1000, description="`step`: the interval, in steps, at which the rate is multiplied by `factor`."
    )
    factor: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="`step`: the factor.")
