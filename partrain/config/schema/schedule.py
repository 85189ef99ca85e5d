"""The section `training.schedule`: how the learning rate changes over the steps."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from partrain.config.schema.values import NonNegativeFloat, NonNegativeInt, PositiveInt, Section


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
