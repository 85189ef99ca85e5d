"""The rows that tell the kernels of an update where a piece's numbers are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.kernels import update_claims
from partrain.network.network import Network
from partrain.network.parameter_groups import ParameterGroups
from partrain.parallel.update import piece_plan
from partrain.parallel.update.piece_plan import Part, cut_update, ranges

Array = NDArray[Any]


def check_rows(network: Network, arrays: Mapping[str, Array], part: Part) -> NDArray[np.int64]:
    """Return the rows of the first round, for a part of the parameters.

    They are SLOTS, first, last parameter; or FACTORS, first, last example, address, numbers in a row, index of the
    largest factor. The caller keeps `arrays` alive.
    """
    return np.array(list(_checks(network, arrays, part)))


def update_rows(
    network: Network, groups: ParameterGroups, arrays: Mapping[str, Array], part: Part | None = None
) -> NDArray[np.int64]:
    """Return the rows of the second round, for a part of the parameters or for all.

    They are SLOTS, first, last parameter; or UNITS, first, last unit, addresses of inputs and deltas, D, E, and the
    first parameters of weights and biases. The last three columns are the rule, and the groups of weights (or of the
    parameters of slots) and of biases. The caller keeps `arrays` alive.
    """
    return np.array(list(_updates(network, groups, arrays, part)))


def _checks(network: Network, arrays: Mapping[str, Array], part: Part) -> Iterator[list[int]]:
    for first, last in ranges(network.tile_sums.size, piece_plan.PIECE) if part.has_slots else ():
        yield _row(update_claims.SLOTS, first, last)
    for k, layer in enumerate(network.dense_layers):
        if layer not in part.layers:
            continue
        for kind, index in (("inputs", 2 * k), ("deltas", 2 * k + 1)):
            factor = arrays[f"{layer.name}.{kind}"]
            length = factor.shape[1]
            for first, last in ranges(len(factor), max(1, piece_plan.PIECE // length)):
                yield _row(update_claims.FACTORS, first, last, factor.ctypes.data, length, index)


def _updates(
    network: Network, groups: ParameterGroups, arrays: Mapping[str, Array], part: Part | None
) -> Iterator[list[int]]:
    for layer, first, last, *rule_and_groups in cut_update(network, groups, part):
        if layer is None:
            row = _row(update_claims.SLOTS, first, last)
        else:
            factors = (arrays[f"{layer.name}.{kind}"] for kind in ("inputs", "deltas"))
            starts = (network.parameters.start(parameter.name) for parameter in layer.parameters)
            sizes = (*layer.input_shape, *layer.output_shape)
            row = _row(update_claims.UNITS, first, last, *(factor.ctypes.data for factor in factors), *sizes, *starts)
        row[update_claims.RULE :] = rule_and_groups
        yield row


def _row(*columns: int) -> list[int]:
    return [*columns, *[0] * (update_claims.NUM_COLUMNS - len(columns))]
