"""The configuration: its fields, their defaults and bounds, and how a YAML file becomes one.

Fields are of three kinds. *Runtime* fields (RUNTIME) never change a result. *Horizon* fields (HORIZON) say
how long to train. All others are the run's *identity*: the parameters after a step are a function of them.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import re
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pydantic
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, PlainSerializer, Tag

from partrain.errors import ConfigError

RUNTIME = ("logging", "checkpoints", "workers")
HORIZON = ("training.epochs", "training.max_steps")

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
    if isinstance(value, list):
        return tuple(value)
    raise ValueError("must be a whole number or [rows, columns]")


def _number_if_square(pair: tuple[int, int] | None) -> int | list[int] | None:
    if pair is None:
        return None
    return pair[0] if pair[0] == pair[1] else list(pair)


PositivePair = Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(_pair), PlainSerializer(_number_if_square)]
NonNegativePair = Annotated[
    tuple[NonNegativeInt, NonNegativeInt], BeforeValidator(_pair), PlainSerializer(_number_if_square)
]


class Section(BaseModel):
    """A mapping of the configuration: no unknown key, no conversion between types, no change afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Data(Section):
    """Which examples to train on."""

    name: Literal["mnist", "fashion-mnist", "synthetic-digits", "idx", "arrays"]
    path: str | None = None
    train_examples: PositiveInt | None = None
    validation_examples: NonNegativeInt | None = None
    when_unavailable: Literal["synthetic-digits", "error"] = "synthetic-digits"

    @pydantic.model_validator(mode="after")
    def _path_fits_name(self) -> Data:
        if self.name in ("idx", "arrays") and self.path is None:
            raise ValueError(f"data.path must say where the data is when data.name is {self.name}")
        if self.name not in ("idx", "arrays") and self.path is not None:
            raise ValueError(f"data.path goes with data.name idx or arrays, not with {self.name}")
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


def _layer_kind(value: Any) -> str:
    return str(value["kind"] if isinstance(value, dict) else value.kind)


Layer = Annotated[
    Annotated[Conv, Tag("conv")]
    | Annotated[Relu, Tag("relu")]
    | Annotated[MaxPool, Tag("max_pool")]
    | Annotated[Flatten, Tag("flatten")]
    | Annotated[Dense, Tag("dense")],
    Discriminator(_layer_kind),
]
LAYERS: dict[str, type[Section]] = {
    "conv": Conv,
    "relu": Relu,
    "max_pool": MaxPool,
    "flatten": Flatten,
    "dense": Dense,
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
        hint = _nearest(str(kind), LAYERS) or f"; the layers are {', '.join(LAYERS)}"
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


class Training(Section):
    """What is computed in a step, and how many steps."""

    epochs: PositiveInt = 1
    max_steps: PositiveInt | None = None
    batch_size: PositiveInt = 32
    tile: PositiveInt = 4
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    stop_early: StopEarly | None = None
    kernels: Literal["fast", "loops"] = "fast"
    dtype: Literal["float32", "float64"] = "float32"

    @pydantic.model_validator(mode="after")
    def _float64_is_for_loops(self) -> Training:
        if self.dtype == "float64" and self.kernels == "fast":
            raise ValueError("the fast kernels compute in float32; dtype float64 needs kernels: loops")
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
        if self.training.stop_early is None:
            del mapping["training"]["stop_early"]  # as in runs from before there was such a field
        else:
            fields = {"evaluate_every_epochs", "evaluate_every_steps"}
            mapping["logging"] = self.logging.model_dump(mode="json", include=fields)
        return mapping

    def identity_digest(self) -> str:
        """Return the SHA-256 of the identity as canonical JSON."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, but `1e-3` is a number (as in YAML 1.2) and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.MarkedYAMLError(problem="a mapping belongs here", problem_mark=node.start_mark)
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"{key!r} stands twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _load_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ConfigError(f"{where} is not valid YAML: {error.problem}{place}") from error
    except RecursionError as error:
        raise ConfigError(f"{where} is not valid YAML: nested too deeply") from error
    # YAML's own constructors raise the last four: for a date 2026-13-45, a number 0x_, !!bool perhaps.
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check a configuration file.

    Parameters
    ----------
    path : the YAML file.
    overrides : `KEY=VALUE` texts, as given to `--set`: a dotted path and a YAML value.

    Raises
    ------
    ConfigError
        The file cannot be read, is not YAML, or has errors; the message lists all of them, each with its key.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not a text file in UTF-8"
        raise ConfigError(f"cannot read the configuration {path}: {cause}") from error
    mapping = _load_yaml(text, str(path))
    if mapping is None:
        raise ConfigError(f"{path} is empty; a configuration needs at least `data` and `network`")
    if not isinstance(mapping, dict):
        raise ConfigError(f"{path} holds {_kind_of(mapping)} where a mapping of keys to values belongs")
    for override in overrides:
        _apply_override(mapping, override)
    return parse_config(mapping, source=str(path))


def parse_config(mapping: dict[Any, Any], *, source: str) -> Config:
    """Check a configuration given as plain containers; `source` names it in messages.

    Raises
    ------
    ConfigError
        With all errors at once, each with its key.
    """
    try:
        return Config.model_validate(mapping)
    except pydantic.ValidationError as error:
        lines = [_explain(details) for details in error.errors()]
        count = "1 error" if len(lines) == 1 else f"{len(lines)} errors"
        message = "\n  ".join([f"{source}: {count} in the configuration", *lines])
        raise ConfigError(message) from error


def _apply_override(mapping: dict[Any, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"--set {override}: write KEY=VALUE, for example training.optimizer.lr=0.01")
    value = _load_yaml(text, f"--set {_short(override)}: the value")
    *parents, last = key.split(".")
    section: Any = mapping
    for parent in parents:
        if isinstance(section, dict) and section.get(parent) is None:
            section[parent] = {}
        # A copy, since an alias in the file makes one object of two entries.
        child = copy.copy(_entry(section, parent, override))
        section[int(parent) if isinstance(section, list) else parent] = child
        section = child
    if isinstance(section, list):
        _entry(section, last, override)
        section[int(last)] = value
    elif isinstance(section, dict):
        section[last] = value
    else:
        raise ConfigError(f"--set {override}: {'.'.join(parents)} is a value and has no keys")


def _entry(section: Any, key: str, override: str) -> Any:
    if isinstance(section, dict):
        return section[key]
    if isinstance(section, list):
        if key.isdecimal() and int(key) < len(section):
            return section[int(key)]
        raise ConfigError(f"--set {override}: {key!r} is no place in a list of {len(section)} (from 0)")
    raise ConfigError(f"--set {override}: {key!r} would be inside a single value")


def _explain(details: Any) -> str:
    """Turn one error of pydantic's into `path: what is wrong`."""
    location = [str(part) for part in details["loc"]]
    path = ".".join(location) or "the configuration"
    if details["type"] == "extra_forbidden":
        siblings = _known_keys(location[:-1])
        return f"{path}: unknown key{_nearest(location[-1], siblings) or _elsewhere(location[-1])}"
    if details["type"] == "missing":
        return f"{path}: this key is needed"
    message = details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if details["type"] == "value_error":
        return message if location and message.startswith(location[0]) else f"{path}: {message}"
    message = _PLAIN_WORDS.get(details["type"], message).format(**details.get("ctx", {}))
    found = details["input"]
    return f"{path}: {message}, not {_short(repr(found) if isinstance(found, str) else found)}"


# Where pydantic speaks of Python's types.
_PLAIN_WORDS = {
    "model_type": "must be a mapping of keys to values",
    "list_type": "must be a list",
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entries",
    "missing": "is needed",
}


def _known_keys(location: Sequence[str]) -> list[str]:
    """Return the keys of the section at `location`."""
    if location[:1] == ["network"]:
        return [key for key in LAYERS[location[2]].model_fields if key != "kind"]
    section: type[BaseModel] = Config
    for part in location:
        inner = _section_in(section.model_fields[part].annotation)
        assert inner is not None
        section = inner
    return list(section.model_fields)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a field holds, also one that may be left out; None for a value."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _paths_of_values(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    for key, field in section.model_fields.items():
        inner = _section_in(field.annotation)
        if inner is not None:
            yield from _paths_of_values(inner, f"{prefix}{key}.")
        else:
            yield prefix + key


def _nearest(key: str, known: Sequence[str] | dict[str, Any]) -> str:
    matches = difflib.get_close_matches(key, list(known), n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


def _elsewhere(key: str) -> str:
    """Name the key of another section that is called, or nearly called, `key`."""
    by_leaf = {path.rpartition(".")[2]: path for path in reversed(list(_paths_of_values()))}
    matches = difflib.get_close_matches(key, list(by_leaf), n=1)
    return f"; did you mean {by_leaf[matches[0]]}?" if matches else ""


def _kind_of(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    return "a text" if isinstance(value, str) else "a single value"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else reprlib.repr(value)  # bounded: aliases can make a value huge
    return text if len(text) <= 60 else text[:57] + "…"
