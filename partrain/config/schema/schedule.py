"""The section `training.schedule`: how the learning rate changes over the steps."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from partrain.config.schema.options_by_name import OptionsByName
from partrain.config.schema.values import NonNegativeFloat, NonNegativeInt, PositiveInt

# The schedules of the first version take the keys of each other, because resolved configurations had all of them.
_FIRST = ("warmup_steps", "decay_steps", "final_lr", "every_steps", "factor")
Share = Annotated[float, Field(ge=0, le=1)]
AtLeastOne = Annotated[float, Field(ge=1, allow_inf_nan=False)]


class Schedule(OptionsByName):
    """The schedule of the learning rate over the steps."""

    OPTIONS: ClassVar = {
        "constant": _FIRST,
        "cosine": _FIRST,
        "step": _FIRST,
        "linear": ("warmup_steps", "decay_steps", "final_lr"),
        "one_cycle": ("decay_steps", "pct_start", "div_factor", "final_div_factor"),
        "warm_restarts": ("warmup_steps", "period_steps", "period_factor", "final_lr"),
        "plateau": ("warmup_steps", "metric", "factor", "patience", "threshold", "cooldown", "min_lr"),
    }

    name: Literal["constant", "cosine", "step", "linear", "one_cycle", "warm_restarts", "plateau"] = Field(
        "constant",
        description="How the learning rate changes after the warmup. `one_cycle`: as PyTorch's OneCycleLR, with `lr` "
        "as the highest rate and without cycling the momentum. `warm_restarts`: as CosineAnnealingWarmRestarts. "
        "`plateau`: as ReduceLROnPlateau, after each evaluation on the validation examples.",
    )
    warmup_steps: NonNegativeInt = Field(
        0, description="The number of steps over which the learning rate rises linearly at the beginning."
    )
    decay_steps: PositiveInt | None = Field(
        None,
        description="`cosine`, `linear`: the step at which the rate reaches `final_lr`; it stays there. `one_cycle`: "
        "the steps of the cycle. null: all steps of `training.epochs`. Neither `max_steps` nor a later `--epochs` "
        "changes the resolved number.",
    )
    final_lr: NonNegativeFloat = Field(0.0, description="`cosine`, `linear`, `warm_restarts`: the rate at the end.")
    every_steps: PositiveInt = Field(
        1000, description="`step`: the interval, in steps, at which the rate is multiplied by `factor`."
    )
    factor: Annotated[float, Field(gt=0, le=1)] = Field(
        0.1, description="`step`, `plateau`: the factor that reduces the rate."
    )
    pct_start: Share = Field(0.3, description="`one_cycle`: the share of the steps in which the rate rises.")
    div_factor: AtLeastOne = Field(25.0, description="`one_cycle`: the first rate is `lr` / `div_factor`.")
    final_div_factor: AtLeastOne = Field(
        1e4, description="`one_cycle`: the last rate is the first one / `final_div_factor`."
    )
    period_steps: PositiveInt = Field(
        1000, description="`warm_restarts`: the steps from the first rate to the restart."
    )
    period_factor: PositiveInt = Field(
        1, description="`warm_restarts`: the factor by which each period is longer than the one before."
    )
    metric: Literal["validation/loss", "validation/accuracy"] = Field(
        "validation/loss", description="`plateau`: the metric to watch."
    )
    patience: NonNegativeInt = Field(
        10,
        description="`plateau`: the evaluations in a row without an improvement after which the next one reduces the "
        "rate.",
    )
    threshold: Annotated[float, Field(ge=0, lt=1)] = Field(
        1e-4, description="`plateau`: the relative change that counts as an improvement."
    )
    cooldown: NonNegativeInt = Field(0, description="`plateau`: the evaluations after a reduction that do not count.")
    min_lr: NonNegativeFloat = Field(0.0, description="`plateau`: the lowest rate.")
