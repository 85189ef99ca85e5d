"""The entries of `network`: how a layer is read and written, and the layer that contains others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, PlainSerializer, Tag

from partrain.config.schema.activations import Gelu, LeakyRelu, Sigmoid, Silu, Tanh
from partrain.config.schema.layers import AvgPool, Conv, Dense, Dropout, Flatten, GlobalAvgPool, MaxPool, Relu
from partrain.config.schema.normalisation_layers import BatchNorm, GroupNorm, LayerNorm
from partrain.config.schema.values import Section
from partrain.errors import did_you_mean

# Deeper nesting is a mistake in a file; it would exhaust Python's stack.
_MAX_DEPTH = 16


class Residual(Section):
    """The sum of two branches, e.g. `residual: {body: [conv: {filters: 8, kernel: 3, padding: 1}]}`: y = body(x) +
    shortcut(x). Both give the same shape.
    """

    kind: Literal["residual"] = "residual"
    body: Annotated[list[LayerEntry], Field(min_length=1)] = Field(
        description="The layers of the first branch, in order."
    )
    shortcut: list[LayerEntry] = Field([], description="The layers of the second branch. []: the input itself.")


LAYERS: dict[str, type[Section]] = {
    "conv": Conv,
    "relu": Relu,
    "max_pool": MaxPool,
    "avg_pool": AvgPool,
    "global_avg_pool": GlobalAvgPool,
    "flatten": Flatten,
    "dense": Dense,
    "dropout": Dropout,
    "leaky_relu": LeakyRelu,
    "gelu": Gelu,
    "silu": Silu,
    "tanh": Tanh,
    "sigmoid": Sigmoid,
    "group_norm": GroupNorm,
    "layer_norm": LayerNorm,
    "batch_norm": BatchNorm,
    "residual": Residual,
}


def every_entry(entries: Iterable[Section]) -> Iterator[Section]:
    """Yield all layers: each one, and after a residual layer those of its body and of its shortcut."""
    for entry in entries:
        yield entry
        if isinstance(entry, Residual):
            yield from every_entry((*entry.body, *entry.shortcut))


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
    if kind == "residual" and _depth(fields) > _MAX_DEPTH:
        raise ValueError(f"residual layers may be nested {_MAX_DEPTH} deep, not deeper")
    return {"kind": kind, **fields}


def _depth(fields: dict[Any, Any]) -> int:
    """Return how deep the residual layers of a mapping are nested; the count ends above the limit."""
    depth, level = 0, [fields]
    while level and depth <= _MAX_DEPTH:
        depth += 1
        entries = [
            entry
            for fields in level
            for branch in (fields.get("body"), fields.get("shortcut"))
            if isinstance(branch, list)
            for entry in branch
            if isinstance(entry, dict)
        ]
        level = [inner for entry in entries if isinstance(inner := entry.get("residual"), dict)]
    return depth


def _write_layer(layer: Section) -> str | dict[str, Any]:
    fields = layer.model_dump(mode="json")
    kind = fields.pop("kind")
    return {kind: fields} if fields else kind


Layer = Annotated[
    Annotated[Conv, Tag("conv")]
    | Annotated[Relu, Tag("relu")]
    | Annotated[MaxPool, Tag("max_pool")]
    | Annotated[AvgPool, Tag("avg_pool")]
    | Annotated[GlobalAvgPool, Tag("global_avg_pool")]
    | Annotated[Flatten, Tag("flatten")]
    | Annotated[Dense, Tag("dense")]
    | Annotated[Dropout, Tag("dropout")]
    | Annotated[LeakyRelu, Tag("leaky_relu")]
    | Annotated[Gelu, Tag("gelu")]
    | Annotated[Silu, Tag("silu")]
    | Annotated[Tanh, Tag("tanh")]
    | Annotated[Sigmoid, Tag("sigmoid")]
    | Annotated[GroupNorm, Tag("group_norm")]
    | Annotated[LayerNorm, Tag("layer_norm")]
    | Annotated[BatchNorm, Tag("batch_norm")]
    | Annotated[Residual, Tag("residual")],
    Discriminator(_kind_of),
]
LayerEntry = Annotated[Layer, BeforeValidator(_read_layer), PlainSerializer(_write_layer)]
Residual.model_rebuild()
