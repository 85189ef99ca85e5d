"""All parameters of a network in one flat vector, with a named view for each.

One vector, because it is what processes share, what Adam walks over, and what is hashed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.kernels.randomness import standard_normals


@dataclass(frozen=True)
class Parameter:
    """A parameter's name, its shape, and the deviation of its initial values (0: they are zeros)."""

    name: str
    shape: tuple[int, ...]
    initial_deviation: float

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


class ParameterLayout:
    """Where each parameter stands in the flat vector: one after the other, in network order."""

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self.parameters = tuple(parameters)
        self._slices: dict[str, slice] = {}
        stop = 0
        for parameter in self.parameters:
            self._slices[parameter.name] = slice(stop, stop + parameter.size)
            stop += parameter.size
        self.size = stop

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self.parameters)

    def views(self, vector: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return each parameter's part of `vector` (self.size,) under its name, in its shape; no copy."""
        return {p.name: vector[self._slices[p.name]].reshape(p.shape) for p in self.parameters}

    def join(self, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the vector of all parameters, from an array for each."""
        return np.concatenate([arrays[p.name].reshape(p.size) for p in self.parameters])

    def start(self, name: str) -> int:
        """Return where the parameter's part of the vector begins."""
        return int(self._slices[name].start)

    def name_at(self, place: int) -> str:
        """Return the name of the parameter that the number at `place` of the vector belongs to."""
        return next(name for name, part in self._slices.items() if part.start <= place < part.stop)

    def initial_values(self, seed: int, dtype: str) -> NDArray[Any]:
        """Draw the initial vector: normal values for weights, each from its own name, and zeros for biases.

        Returns
        -------
        dtype array of shape (self.size,), drawn in float64 and rounded once.
        """
        vector = np.zeros(self.size, dtype)
        for p in self.parameters:
            if p.initial_deviation:
                normals = standard_normals(p.size, seed=seed, purpose="initial values", name=p.name)
                vector[self._slices[p.name]] = normals * p.initial_deviation
        return vector


def digest(vector: NDArray[Any]) -> str:
    """Return the SHA-256 of all parameters' little-endian bytes in network order: equal digests are equal networks."""
    return hashlib.sha256(vector.astype(vector.dtype.newbyteorder("<")).tobytes()).hexdigest()
