"""The configuration: its fields, their defaults and bounds. `config_file` reads one.

Fields are of three kinds. *Runtime* fields (RUNTIME) never change a result. *Horizon* fields (HORIZON) say
how long to train. All others are the run's *identity*: the parameters after a step are a function of them.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, PlainSerializer, Tag

from partrain.errors import did_you_mean

RUNTIME = (
    "logging",
    "checkpoints",
    "workers",
    "training.per_example.statistics",
    "training.per_example.by_layer",
)
HORIZON = ("training.epochs", "training.max_steps")

# Data sets that `data.path` goes with, and the fields of those that are made of pictures.
WITH_PATH = ("idx", "arrays", "folder")
FOR_PICTURES = ("size", "channels", "on_broken")

PositiveInt = Annotated[int, Field(gt=0, lt=2**31)]
NonNegativeInt = Annotated[int, Field(ge=0, lt=2**31)]
# Positive, and far from what float32 rounds to 0 or infinity.
FitsFloat32 = Annotated[float, Field(ge=1e-30, le=1e30, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


def _pair(value: Any) -> Any:
    """Read a number as [rows, columns] of the same size."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    if isinstance(value, list | tuple):
        return tuple(value)
    raise ValueError("must be a whole number or [rows, columns]")


def _pair_of_floats(value: Any) -> Any:
    """Read a number, which may have a fraction, as [rows, columns] of the same size."""
    if isinstance(value, float):
        return (value, value)
    try:
        return _pair(value)
    except ValueError:
        raise ValueError("must be a number or [rows, columns]") from None


def _number_if_square(pair: tuple[int, int] | None) -> int | list[int] | None:
    if pair is None:
        return None
    return pair[0] if pair[0] == pair[1] else list(pair)


def _float_if_square(pair: tuple[float, float]) -> float | list[float]:
    return pair[0] if pair[0] == pair[1] else list(pair)


PositivePair = Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(_pair), PlainSerializer(_number_if_square)]
NonNegativePair = Annotated[
    tuple[NonNegativeInt, NonNegativeInt], BeforeValidator(_pair), PlainSerializer(_number_if_square)
]
ShiftPair = Annotated[
    tuple[NonNegativeFloat, NonNegativeFloat], BeforeValidator(_pair_of_floats), PlainSerializer(_float_if_square)
]


class Section(BaseModel):
    """A mapping of the configuration: no unknown key, no conversion between types, no change afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Data(Section):
    """Which examples to train on."""

    name: Literal["mnist", "fashion-mnist", "cifar-10", "synthetic-digits", "idx", "arrays", "folder", "memory"]
    path: str | None = None
    size: PositivePair | None = None
    channels: Literal[1, 3] | None = None
    on_broken: Literal["error", "skip"] | None = None
    train_examples: PositiveInt | None = None
    validation_examples: NonNegativeInt | None = None
    when_unavailable: Literal["synthetic-digits", "error"] = "synthetic-digits"
    label_noise: Fraction = 0.0

    @pydantic.model_validator(mode="before")
    @classmethod
    def _fill_in_for_pictures(cls, mapping: Any) -> Any:
        if isinstance(mapping, dict) and mapping.get("name") == "folder":
            given = {key: value for key, value in mapping.items() if value is not None}
            return {"channels": 3, "on_broken": "error"} | given
        return mapping

    @pydantic.model_validator(mode="after")
    def _fields_fit_name(self) -> Data:
        if self.name in WITH_PATH and self.path is None:
            raise ValueError(f"data.path must say where the data is when data.name is {self.name}")
        if self.name not in WITH_PATH and self.path is not None:
            raise ValueError(f"data.path goes with data.name {' or '.join(WITH_PATH)}, not with {self.name}")
        if self.name == "folder" and self.size is None:
            raise ValueError("data.size must say to what size pictures are brought, as a number or [rows, columns]")
        if self.name != "folder":
            given = [key for key in FOR_PICTURES if getattr(self, key) is not None]
            if given:
                raise ValueError(f"data.{given[0]} goes with data.name folder, not with {self.name}")
        return self


class Conv(Section):
    """A convolution with `filters` filters and a bias for each."""

    kind: Literal["conv"] = "conv"
    filters: PositiveInt
    kernel: PositivePair
    stride: PositivePair = (1, 1)
    padding: NonNegativePair = (0, 0)


class Relu(Section):
    """max(x, 0)."""

    kind: Literal["relu"] = "relu"


class MaxPool(Section):
    """The maximum of each window; the stride is the window's size unless it is given."""

    kind: Literal["max_pool"] = "max_pool"
    window: PositivePair
    stride: PositivePair | None = None


class Flatten(Section):
    """(channels, rows, columns) to one row of inputs for a dense layer."""

    kind: Literal["flatten"] = "flatten"


class Dense(Section):
    """A fully connected layer with a bias for each unit."""

    kind: Literal["dense"] = "dense"
    units: PositiveInt


class Dropout(Section):
    """In training, each number is 0 with probability `rate`, else 1/(1-rate) times itself; elsewhere nothing."""

    kind: Literal["dropout"] = "dropout"
    rate: Fraction


def _layer_kind(value: Any) -> str:
    return str(value["kind"] if isinstance(value, dict) else value.kind)


Layer = Annotated[
    Annotated[Conv, Tag("conv")]
    | Annotated[Relu, Tag("relu")]
    | Annotated[MaxPool, Tag("max_pool")]
    | Annotated[Flatten, Tag("flatten")]
    | Annotated[Dense, Tag("dense")]
    | Annotated[Dropout, Tag("dropout")],
    Discriminator(_layer_kind),
]
LAYERS: dict[str, type[Section]] = {
    "conv": Conv,
    "relu": Relu,
    "max_pool": MaxPool,
    "flatten": Flatten,
    "dense": Dense,
    "dropout": Dropout,
}


def _read_layer(entry: Any) -> Any:
    """Read `relu` or `conv: {filters: 8}` as a mapping that names its kind."""
    if isinstance(entry, Section):
        return entry
    fields: Any
    if isinstance(entry, str):
        kind, fields = entry, {}
    elif isinstance(entry, dict) and len(entry) == 1:
        kind, fields = next(iter(entry.items()))
        fields = {} if fields is None else fields
    else:
        raise ValueError("a layer is written as `relu` or as `conv: {filters: 8, kernel: 5}`")
    if kind not in LAYERS:
        hint = did_you_mean(str(kind), LAYERS) or f"; the layers are {', '.join(LAYERS)}"
        raise ValueError(f"unknown layer {kind!r}{hint}")
    if not isinstance(fields, dict):
        raise ValueError(f"the fields of {kind} are written as `{kind}: {{…}}`")
    if "kind" in fields:
        raise ValueError("unknown key kind")
    return {"kind": kind, **fields}


def _write_layer(layer: Section) -> str | dict[str, Any]:
    fields = layer.model_dump(mode="json")
    kind = fields.pop("kind")
    return {kind: fields} if fields else kind


class Optimizer(Section):
    """Adam with decoupled weight decay."""

    name: Literal["adam"] = "adam"
    lr: FitsFloat32 = 0.001
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    eps: FitsFloat32 = 1e-8
    weight_decay: NonNegativeFloat = 0.0


class Schedule(Section):
    """The learning rate over the steps; decay_steps, final_lr are for cosine, the last two for step."""

    name: Literal["constant", "cosine", "step"] = "constant"
    warmup_steps: NonNegativeInt = 0
    decay_steps: PositiveInt | None = None
    final_lr: NonNegativeFloat = 0.0
    every_steps: PositiveInt = 1000
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1


class StopEarly(Section):
    """End after `patience` evaluations in a row that did not improve the metric by more than `min_delta`."""

    metric: Literal["validation/loss", "validation/accuracy"] = "validation/loss"
    patience: PositiveInt = 3
    min_delta: NonNegativeFloat = 0.0


class PerExample(Section):
    """What is done with the gradient of each example by itself.

    `statistics` and `by_layer` measure alone. `clip` scales each example's gradient to at most that norm.
    """

    statistics: bool = False
    by_layer: bool = False
    clip: Annotated[float, Field(gt=0)] | None = None

    @pydantic.model_validator(mode="after")
    def _by_layer_is_a_kind_of_statistics(self) -> PerExample:
        if self.by_layer and not self.statistics:
            raise ValueError("by_layer says how finely to measure; set training.per_example.statistics: true as well")
        if self.clip is not None and not 1e-30 <= self.clip <= 1e30 and self.clip != math.inf:
            raise ValueError("clip must be a norm from 1e-30 to 1e30, or .inf")
        return self

    @property
    def clips(self) -> bool:
        """Whether a gradient may be scaled down; by an infinite norm none is."""
        return self.clip is not None and self.clip != math.inf


class Elastic(Section):
    """Noise in (-1, 1) for each pixel, smoothed by a Gaussian of `sigma` pixels, times `alpha`: displacements."""

    alpha: Annotated[float, Field(ge=0, le=1e6)]
    sigma: Annotated[float, Field(ge=1, le=1e6)]


class Augment(Section):
    """How far training images are changed at random, at most; each epoch anew."""

    shift: ShiftPair = (0.0, 0.0)
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    scale: Fraction = 0.0
    elastic: Elastic | None = None


class Privacy(Section):
    """Differential privacy: sampled batches, and noise on the sum of clipped gradients.

    One of `noise_multiplier` and `target_epsilon` must be given. `max_batch_size` is how many examples of a batch are
    computed at once: of a larger batch the rest comes in further rounds.
    """

    noise_multiplier: Annotated[float, Field(ge=0.1, le=1e4, allow_inf_nan=False)] | None = None
    delta: Annotated[float, Field(gt=0, lt=1)]
    target_epsilon: Annotated[float, Field(gt=0, le=1e6)] | None = None
    source: Literal["secure", "seeded"] = "secure"
    max_batch_size: PositiveInt | None = None

    @pydantic.model_validator(mode="after")
    def _noise_is_given_or_follows(self) -> Privacy:
        if self.noise_multiplier is None and self.target_epsilon is None:
            raise ValueError("give noise_multiplier, or target_epsilon, from which it is computed")
        return self


class Training(Section):
    """What is computed in a step, and how many steps."""

    epochs: PositiveInt = 1
    max_steps: PositiveInt | None = None
    batch_size: PositiveInt = 32
    tile: PositiveInt = 4
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    stop_early: StopEarly | None = None
    class_weights: Literal["balanced"] | None = None
    per_example: PerExample = PerExample()
    augment: Augment | None = None
    privacy: Privacy | None = None
    kernels: Literal["fast", "loops"] = "fast"
    dtype: Literal["float32", "float64"] = "float32"

    @pydantic.model_validator(mode="after")
    def _float64_is_for_loops(self) -> Training:
        if self.dtype == "float64" and self.kernels == "fast":
            raise ValueError("the fast kernels compute in float32; dtype float64 needs kernels: loops")
        return self

    @pydantic.model_validator(mode="after")
    def _privacy_needs_clipping(self) -> Training:
        if self.privacy and not self.per_example.clips:
            raise ValueError(
                "training.privacy hides each example's clipped gradient in noise; "
                "set training.per_example.clip to a finite norm, for example 1.0"
            )
        if self.privacy and self.class_weights is not None:
            raise ValueError(
                "training.class_weights are counted from the labels, which training.privacy does not account for; "
                "leave one of them out"
            )
        return self


class Logging(Section):
    """How often something is measured, and whether pictures are drawn at the end."""

    every_steps: PositiveInt = 10
    evaluate_every_epochs: PositiveInt | None = 1
    evaluate_every_steps: PositiveInt | None = None
    plots: bool = True


class Checkpoints(Section):
    """How often the run is saved (also at each epoch's end), and what is kept."""

    every_steps: PositiveInt | None = 500
    keep_last: PositiveInt = 2
    keep_best: bool = True


class Workers(Section):
    """How the pool of workers behaves; how many there are is an option of the command line."""

    max_restarts: NonNegativeInt = 8


class Config(Section):
    """A whole configuration."""

    format: Literal[1] = 1
    name: str = "run"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    data: Data
    network: Annotated[
        list[Annotated[Layer, BeforeValidator(_read_layer), PlainSerializer(_write_layer)]],
        Field(min_length=1),
    ]
    training: Training = Training()
    logging: Logging = Logging()
    checkpoints: Checkpoints = Checkpoints()
    workers: Workers = Workers()

    @pydantic.model_validator(mode="after")
    def _stopping_early_needs_evaluations(self) -> Config:
        logging = self.logging
        if self.training.stop_early and not (logging.evaluate_every_epochs or logging.evaluate_every_steps):
            raise ValueError(
                "training.stop_early goes by evaluations, and there are none on the way; "
                "set logging.evaluate_every_epochs or logging.evaluate_every_steps"
            )
        return self

    def to_mapping(self) -> dict[str, Any]:
        """Return the configuration as plain containers; `parse_config` of them gives it back."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return the configuration as a YAML document."""
        text: str = yaml.safe_dump(self.to_mapping(), sort_keys=False, allow_unicode=True, width=110)
        return text

    def identity(self) -> dict[str, Any]:
        """Return the fields that results are a function of: all but RUNTIME and HORIZON.

        How often is evaluated belongs to it where the evaluations decide how long to train.
        """
        mapping = self.to_mapping()
        for path in (*RUNTIME, *HORIZON):
            *parents, last = path.split(".")
            section = mapping
            for parent in parents:
                section = section[parent]
            del section[last]
        # Where they are not given, as in runs from before there were such fields.
        if self.data.name != "folder":
            for field in FOR_PICTURES:
                del mapping["data"][field]
        if self.data.label_noise == 0:
            del mapping["data"]["label_noise"]
        if self.training.class_weights is None:
            del mapping["training"]["class_weights"]
        if not self.training.per_example.clips:
            del mapping["training"]["per_example"]  # nothing of it changes a result
        if self.training.augment is None:
            del mapping["training"]["augment"]
        if self.training.privacy is None:
            del mapping["training"]["privacy"]
        if self.training.stop_early is None:
            del mapping["training"]["stop_early"]
        else:
            fields = {"evaluate_every_epochs", "evaluate_every_steps"}
            mapping["logging"] = self.logging.model_dump(mode="json", include=fields)
        return mapping

    def identity_digest(self) -> str:
        """Return the SHA-256 of the identity as canonical JSON."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()
