"""Chooses the standard deviation of a layer's initial weights, by the activation that follows it.

| activation that follows | variance of the weights |
|---|---|
| ReLU, GELU, SiLU | 2 / inputs (He) |
| leaky ReLU | 2 / (1 + slope²) / inputs (He) |
| tanh, sigmoid | gain² · 2 / (inputs + outputs) (Xavier), gain 5/3 for tanh, and 1 |
| none | 1 / inputs (LeCun) |

Normalisation, pooling, flattening, dropout and the edges of a residual layer may lie between. The gains are those of
PyTorch's `calculate_gain`, which has none for GELU and SiLU.

Sources: He et al., arXiv 1502.01852, section 2.2; Glorot, Bengio, "Understanding the difficulty of training deep
feedforward neural networks", 2010, section 4.2; LeCun et al., "Efficient BackProp".
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from partrain.config.schema import activations
from partrain.config.schema.layer_entries import Residual
from partrain.config.schema.layers import Conv, Dense, Relu
from partrain.config.schema.values import Section


@dataclass(frozen=True)
class InitialRule:
    """The square of the gain, and whether the variance depends on the mean of inputs and outputs (Xavier)."""

    squared_gain: float
    uses_outputs: bool = False

    def deviation(self, num_inputs: int, num_outputs: int) -> float:
        """Return the standard deviation for sums of `num_inputs` terms, if an input is in `num_outputs` sums."""
        size = (num_inputs + num_outputs) / 2 if self.uses_outputs else num_inputs
        return math.sqrt(self.squared_gain / size)


def rule_before(following: Iterable[Section]) -> InitialRule:
    """Return the rule for a layer that these layers follow."""
    for description in following:
        match description:
            case Relu() | activations.Gelu() | activations.Silu():
                return InitialRule(2.0)
            case activations.LeakyRelu(slope=slope):
                return InitialRule(2.0 / (1.0 + slope * slope))
            case activations.Tanh():
                return InitialRule(25 / 9, uses_outputs=True)
            case activations.Sigmoid():
                return InitialRule(1.0, uses_outputs=True)
            case Conv() | Dense():
                return InitialRule(1.0)
            case Residual(body=body):
                return rule_before(body)
    return InitialRule(1.0)
