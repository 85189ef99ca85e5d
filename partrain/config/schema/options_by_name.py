"""Sections whose `name` decides which other keys they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pydantic

from partrain.config.schema.values import Section


class OptionsByName(Section):
    """A section with a key `name`, its first, on which it depends which other keys it takes.

    A key that the name does not take is an error, and it is not written.

    Attributes
    ----------
    OPTIONS : the keys that a name takes.
    DEFAULTS : for some names, values of keys that are missing or null.
    """

    OPTIONS: ClassVar[Mapping[str, Sequence[str]]] = {}
    DEFAULTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @classmethod
    def with_defaults(cls, values: Any) -> Any:
        """Fill in `DEFAULTS`."""
        name = values.get("name") if isinstance(values, dict) else None
        defaults = cls.DEFAULTS.get(name, {}) if isinstance(name, str) else {}
        missing = {key: value for key, value in defaults.items() if values.get(key) is None}
        return {**values, **missing} if missing else values

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _require_option(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        name = info.data.get("name")  # missing if it is itself wrong, or being validated
        if name is not None and info.field_name not in cls.OPTIONS[name]:
            raise ValueError(f"is no option of {name}, which takes {', '.join(cls.OPTIONS[name])}")
        return value

    @pydantic.model_serializer(mode="wrap")
    def _leave_out_other_options(self, write: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        options = ("name", *self.OPTIONS[self.name])  # type: ignore[attr-defined]
        written: dict[str, Any] = write(self)
        return {key: value for key, value in written.items() if key in options}
