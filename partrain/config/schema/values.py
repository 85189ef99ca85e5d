"""The types of the configuration's values, and the base class of its sections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)
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

    @classmethod
    def with_defaults(cls, values: Any) -> Any:
        """Return the values with those defaults that depend on other values."""
        return values

    def checks(self) -> Iterable[Iterator[str]]:
        """Return iterators over what is wrong with values that are valid each by itself.

        If some values of the section are invalid, `config.known_values` calls this for the others: then a check ends
        when it reads an attribute that is missing, so what depends on other attributes is another check.
        """
        return ()

    @model_validator(mode="before")
    @classmethod
    def _fill_in_defaults(cls, values: Any) -> Any:
        return cls.with_defaults(values)

    @model_validator(mode="after")
    def _require_values_that_fit(self) -> Self:
        # `value_error` is the type of a ValueError that a validator raises, so messages are shown alike.
        errors = [
            InitErrorDetails(type=PydanticCustomError("value_error", "{message}", {"message": message}), input=self)
            for check in self.checks()
            for message in check
        ]
        if errors:
            raise ValidationError.from_exception_data(type(self).__name__, errors)
        return self


def section_in(annotation: Any) -> type[Section] | None:
    """Return the section that a key of this type holds, which may also be null; None for a value."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None
