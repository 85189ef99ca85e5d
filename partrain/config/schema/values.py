"""The types of the configuration's values, and the base class of its sections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

PositiveInt = Annotated[int, Field(gt=0, lt=2**31)]
NonNegativeInt = Annotated[int, Field(ge=0, lt=2**31)]
# Positive, and far from the numbers that float32 rounds to 0 or to infinity.
FitsFloat32 = Annotated[float, Field(ge=1e-30, le=1e30, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


def _read_pair(value: Any) -> Any:
    """Read a number as [rows, columns] of the same size."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    if isinstance(value, list | tuple):
        return tuple(value)
    raise ValueError("must be a whole number or [rows, columns]")


def _read_pair_of_floats(value: Any) -> Any:
    """Read a number, which may have a fraction, as [rows, columns] of the same size."""
    if isinstance(value, float):
        return (value, value)
    try:
        return _read_pair(value)
    except ValueError:
        raise ValueError("must be a number or [rows, columns]") from None


def _write_pair(pair: tuple[int, int] | None) -> int | list[int] | None:
    """Write equal rows and columns as one number."""
    if pair is None:
        return None
    return pair[0] if pair[0] == pair[1] else list(pair)


def _write_pair_of_floats(pair: tuple[float, float]) -> float | list[float]:
    return pair[0] if pair[0] == pair[1] else list(pair)


PositivePair = Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(_read_pair), PlainSerializer(_write_pair)]
NonNegativePair = Annotated[
    tuple[NonNegativeInt, NonNegativeInt], BeforeValidator(_read_pair), PlainSerializer(_write_pair)
]
NonNegativeFloatPair = Annotated[
    tuple[NonNegativeFloat, NonNegativeFloat],
    BeforeValidator(_read_pair_of_floats),
    PlainSerializer(_write_pair_of_floats),
]


def _read_range(value: Any) -> Any:
    """Read [least, greatest]."""
    if isinstance(value, list | tuple) and len(value) == 2:
        return tuple(value)
    raise ValueError("must be [least, greatest]")


def _require_order(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"must be [least, greatest], and {bounds[0]:g} is greater than {bounds[1]:g}")
    return bounds


# Two numbers [least, greatest]: `Annotated[tuple[T, T], *RANGE]`.
RANGE = (
    BeforeValidator(_read_range),
    AfterValidator(_require_order),
    PlainSerializer(list),
    Field(json_schema_extra={"entries": "[least, greatest]"}),
)


class Section(BaseModel):
    """A mapping in the configuration.

    Unknown keys are errors, types are not converted, and a section cannot be changed after it was read.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def section_in(annotation: Any) -> type[Section] | None:
    """Return the section that a key of this type holds, which may also be null; None for a value."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


def raise_problems(section: Section, messages: Iterable[str]) -> None:
    """Report what is wrong with a section as a whole: all of it at once, for a validator of the section.

    Raises
    ------
    pydantic.ValidationError
        There are messages; it has an error for each.
    """
    # `value_error` is the type of a ValueError that a validator raises, so messages are shown alike.
    errors = [
        InitErrorDetails(type=PydanticCustomError("value_error", "{message}", {"message": message}), input=section)
        for message in messages
    ]
    if errors:
        raise ValidationError.from_exception_data(type(section).__name__, errors)
