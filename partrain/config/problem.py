"""A problem of a configuration: where it is, and what is wrong."""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """What is wrong with values that are valid each by itself.

    Attributes
    ----------
    location : the keys that lead to it, e.g. `("network", "3")`.
    message : what is wrong, where, and what to do.
    """

    location: tuple[str, ...]
    message: str
