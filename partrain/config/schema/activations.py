"""The layers that compute each number by itself, other than ReLU."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from partrain.config.schema.values import Section


class LeakyRelu(Section):
    """x if x > 0, else `slope` * x."""

    kind: Literal["leaky_relu"] = "leaky_relu"
    slope: Annotated[float, Field(ge=0, lt=1)] = Field(0.01, description="The factor of negative numbers.")


class Gelu(Section):
    """x * P(x), with P the distribution function of the normal distribution."""

    kind: Literal["gelu"] = "gelu"
    approximate: Literal["none", "tanh"] = Field(
        "none", description="`tanh`: the approximation 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."
    )


class Silu(Section):
    """x / (1 + exp(-x)), also called swish."""

    kind: Literal["silu"] = "silu"


class Tanh(Section):
    """The hyperbolic tangent."""

    kind: Literal["tanh"] = "tanh"


class Sigmoid(Section):
    """1 / (1 + exp(-x))."""

    kind: Literal["sigmoid"] = "sigmoid"
