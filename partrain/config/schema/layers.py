"""The entries of `network`: one class per kind of layer, and how an entry is read and written."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, PlainSerializer, Tag

from partrain.config.schema.values import Fraction, NonNegativePair, PositiveInt, PositivePair, Section
from partrain.errors import did_you_mean


class Conv(Section):
    """Convolution with a bias per filter."""

    kind: Literal["conv"] = "conv"
    filters: PositiveInt = Field(description="The number of filters, that is, of output channels.")
    kernel: PositivePair = Field(description="The size of each filter.")
    stride: PositivePair = Field((1, 1), description="The distance between neighbouring outputs, in input pixels.")
    padding: NonNegativePair = Field((0, 0), description="The number of zeros added on each side of the input.")


class Relu(Section):
    """max(x, 0), element by element."""

    kind: Literal["relu"] = "relu"


class MaxPool(Section):
    """The maximum of each window. Rows and columns at the end that do not fill a window are left out."""

    kind: Literal["max_pool"] = "max_pool"
    window: PositivePair = Field(description="The size of the window.")
    stride: PositivePair | None = Field(
        None,
        description="The distance between neighbouring windows. If it is smaller than the window, windows overlap. "
        "null: the size of the window.",
    )


class Flatten(Section):
    """Flattens (channels, rows, columns) into one vector. Required before the first dense layer."""

    kind: Literal["flatten"] = "flatten"


class Dense(Section):
    """Fully connected layer with a bias per unit. The last one has one unit per class."""

    kind: Literal["dense"] = "dense"
    units: PositiveInt = Field(description="The number of outputs.")


class Dropout(Section):
    """In training, sets values to 0 at random; does nothing elsewhere. Not allowed after the last dense layer."""

    kind: Literal["dropout"] = "dropout"
    rate: Fraction = Field(
        description="The probability that a value becomes 0. The other values are multiplied by 1/(1 - `rate`)."
    )


LAYERS: dict[str, type[Section]] = {
    "conv": Conv,
    "relu": Relu,
    "max_pool": MaxPool,
    "flatten": Flatten,
    "dense": Dense,
    "dropout": Dropout,
}


def _kind_of(value: Any) -> str:
    return str(value["kind"] if isinstance(value, dict) else value.kind)


def _read_layer(entry: Any) -> Any:
    """Read `relu` or `conv: {filters: 8}` as a mapping with the key `kind`."""
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


Layer = Annotated[
    Annotated[Conv, Tag("conv")]
    | Annotated[Relu, Tag("relu")]
    | Annotated[MaxPool, Tag("max_pool")]
    | Annotated[Flatten, Tag("flatten")]
    | Annotated[Dense, Tag("dense")]
    | Annotated[Dropout, Tag("dropout")],
    Discriminator(_kind_of),
]
LayerEntry = Annotated[Layer, BeforeValidator(_read_layer), PlainSerializer(_write_layer)]
