"""Sums tile and example gradients into the batch gradient; only this file defines the order of the sums.

Slots are added in the order of the tiles, rows of factors in the order of the examples, whichever worker computed them.
Adam divides the sum by the batch size, once.

Shapes: B examples of the batch; D, E inputs, outputs of a dense layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.kernels import dense, loops
from partrain.kernels.compiler.flags import Kernel
from partrain.network.network import Network
from partrain.parallel.workers.tiles import Tiling

Array = NDArray[Any]


_DENSE_BACKWARD_WEIGHTS = {"fast": dense.dense_backward_weights, "loops": loops.dense_backward_weights}


class GradientReduction:
    """Sums the results of a batch's tiles in the shared arrays.

    Parameters
    ----------
    network : the network's shapes.
    kernels : "fast" or "loops"; the kernels of `kernels` must be loaded for `dtype`.
    arrays : the arrays of `array_plan.exchange_specs`; read.
    tiling : cuts the batch.
    dtype : "float32" or "float64".
    """

    def __init__(self, network: Network, kernels: str, arrays: Mapping[str, Array], tiling: Tiling, dtype: str) -> None:
        self._network, self._arrays, self._tiling = network, arrays, tiling
        self._dense_backward_weights = _DENSE_BACKWARD_WEIGHTS[kernels]
        self._gradient_sum = np.zeros(network.parameters.size, dtype)
        self._views = network.parameters.views(self._gradient_sum)

    @staticmethod
    def kernels(kernels: str) -> tuple[Kernel, ...]:
        """Return the kernels that a reduction calls."""
        return (loops.sum_slots, _DENSE_BACKWARD_WEIGHTS[kernels])

    def reduce(self, num_examples: int) -> Array:
        """Return the sum of the gradients of the batch's first `num_examples` examples.

        Returns
        -------
        The flat vector (network.parameters.size,); valid until the next call.
        """
        slots = self._arrays["tile_sums"][: self._tiling.num_tiles(num_examples)]
        loops.sum_slots(slots, self._gradient_sum[: self._network.tile_sums.size])
        for layer in self._network.dense_layers:
            dw_ED, db_E = (self._views[p.name] for p in layer.parameters)
            inputs_BD = self._arrays[f"{layer.name}.inputs"][:num_examples]
            deltas_BE = self._arrays[f"{layer.name}.deltas"][:num_examples]
            self._dense_backward_weights(inputs_BD, deltas_BE, dw_ED, db_E)
        return self._gradient_sum
