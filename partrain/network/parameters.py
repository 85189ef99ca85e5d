"""All parameters of a network in one flat vector, with a named view for each.

Processes share this vector, the optimizer updates it, and its digest identifies the result of a run.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from partrain.kernels.randomness import standard_normals

# Weight and bias of a convolution or a dense layer; the factor ("scale") and the summand ("shift") of a normalisation;
# or its running statistics ("average").
Role = Literal["weight", "bias", "scale", "shift", "average"]


@dataclass(frozen=True)
class Parameter:
    """A parameter of a layer.

    Attributes
    ----------
    name, shape : its name and shape.
    initial_deviation : the standard deviation of its initial values; 0: all are `initial_value`.
    role : what it is for. "average": no gradient changes it. In the place of a gradient, tiles write statistics. In
        each step, it becomes w + momentum · (mean of the tiles' statistics - w).
    momentum : of an average.
    """

    name: str
    shape: tuple[int, ...]
    initial_deviation: float
    role: Role = "weight"
    momentum: float = 0.0
    initial_value: float = 0.0

    @property
    def size(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)


class ParameterLayout:
    """The slices of the parameters in the flat vector: one after the other, in the order of the layers."""

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
        """Return a view of each parameter in `vector` (self.size,), by name and in its shape."""
        return {p.name: vector[self._slices[p.name]].reshape(p.shape) for p in self.parameters}

    def join(self, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the flat vector, from an array for each parameter."""
        return np.concatenate([arrays[p.name].reshape(p.size) for p in self.parameters])

    def start(self, name: str) -> int:
        """Return the index of the parameter's first element in the vector."""
        return int(self._slices[name].start)

    def name_at(self, place: int) -> str:
        """Return the name of the parameter of the vector's element `place`."""
        return next(name for name, part in self._slices.items() if part.start <= place < part.stop)

    def initial_values(self, seed: int, dtype: str) -> NDArray[Any]:
        """Draw the initial vector: normal numbers for each weight, a function of its name; zeros for biases.

        Returns
        -------
        dtype array of shape (self.size,), drawn in float64 and rounded once.
        """
        vector = np.zeros(self.size, dtype)
        for p in self.parameters:
            vector[self._slices[p.name]] = p.initial_value
            if p.initial_deviation:
                normals = standard_normals(p.size, seed=seed, purpose="initial values", name=p.name)
                vector[self._slices[p.name]] = normals * p.initial_deviation
        return vector


def digest(vector: NDArray[Any]) -> str:
    """Return the SHA-256 of the parameters' little-endian bytes in network order; equal digests: equal values."""
    return hashlib.sha256(vector.astype(vector.dtype.newbyteorder("<")).tobytes()).hexdigest()
