"""The section `training.optimizer`: how a gradient changes the parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from partrain.config.schema.options_by_name import OptionsByName
from partrain.config.schema.values import FitsFloat32, Fraction, NonNegativeFloat

_ADAM = ("beta1", "beta2", "eps")
_DECAY = ("weight_decay", "weight_decay_exclude")


class Optimizer(OptionsByName):
    """Adam, SGD or Muon."""

    OPTIONS: ClassVar = {
        "adam": ("lr", *_ADAM, *_DECAY),
        "adamw": ("lr", *_ADAM, *_DECAY),
        "sgd": ("lr", *_DECAY, "momentum", "nesterov"),
        "muon": ("lr", *_ADAM, *_DECAY, "momentum", "nesterov", "adam_lr", "adam_last_layer"),
    }
    # What is filled in where a key is missing or null.
    DEFAULTS: ClassVar[dict[str, dict[str, Any]]] = {
        "sgd": {"momentum": 0.0, "nesterov": False},
        "muon": {"lr": 0.02, "momentum": 0.95, "nesterov": True, "adam_lr": 0.001, "adam_last_layer": True},
    }

    name: Literal["adam", "adamw", "sgd", "muon"] = Field(
        "adam",
        description="`adam` and `adamw` are the same: Adam with decoupled weight decay, PyTorch's AdamW. "
        "`sgd`: stochastic gradient descent, as PyTorch's SGD. `muon`: momentum, made orthogonal by five Newton-Schulz "
        "iterations, for the weights of convolutions (one row for each filter) and dense layers; Adam for the others.",
    )
    lr: FitsFloat32 = Field(
        0.001, description="The learning rate, before the schedule changes it. `muon`: 0.02 by default."
    )
    beta1: Fraction = Field(0.9, description="Adam's decay rate of the first moment.")
    beta2: Fraction = Field(0.999, description="Adam's decay rate of the second moment.")
    eps: FitsFloat32 = Field(1e-8, description="Adam's epsilon, added to the square root of the second moment.")
    weight_decay: NonNegativeFloat = Field(
        0.0,
        description="Weight decay. `sgd`: L2 regularisation, added to the gradient, as in PyTorch's SGD. Otherwise "
        "decoupled, as in AdamW: each step multiplies a parameter by 1 - lr * `weight_decay`.",
    )
    weight_decay_exclude: list[Literal["bias", "normalisation"]] = Field(
        [],
        description="Parameters without weight decay, e.g. `[bias, normalisation]`: biases of convolutions and dense "
        "layers; weights and biases of normalisation layers.",
    )
    momentum: Fraction | None = Field(
        None, description="`sgd`, `muon`: the momentum. null: 0 for `sgd`, 0.95 for `muon`."
    )
    nesterov: bool | None = Field(
        None, description="`sgd`, `muon`: use Nesterov's momentum. null: false for `sgd`, true for `muon`."
    )
    adam_lr: FitsFloat32 | None = Field(
        None,
        description="`muon`: the learning rate of the parameters that Adam updates; the schedule multiplies both rates "
        "by the same factor. null: 0.001.",
    )
    adam_last_layer: bool | None = Field(
        None, description="`muon`: whether Adam updates the weights of the last layer, too. null: true."
    )

    def checks(self) -> Iterable[Iterator[str]]:
        return (self._problems_of_nesterov(),)

    def _problems_of_nesterov(self) -> Iterator[str]:
        if self.nesterov and not self.momentum:
            yield "nesterov: true needs a momentum greater than 0"
