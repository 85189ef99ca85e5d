"""How the gradients of tiles and examples become the gradient of the batch: the only home of the order of sums.

Slots are added in the order of the tiles, rows of factors in the order of the examples. Nothing here depends on
who computed them. The sum is divided by the batch size once, by Adam.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.kernels import loops
from partrain.kernels.compiler.kernel_set import KernelSet
from partrain.network.network import Network
from partrain.parallel.workers.tiles import Tiling

Array = NDArray[Any]


class GradientReduction:
    """Sums what the tiles of a batch left in the shared arrays.

    Parameters
    ----------
    network : its shapes.
    kernels : loaded for `dtype`.
    arrays : as parallel.array_plan.exchange_specs plans them; read.
    tiling : cuts the batch.
    dtype : "float32" or "float64".
    """

    def __init__(
        self, network: Network, kernels: KernelSet, arrays: Mapping[str, Array], tiling: Tiling, dtype: str
    ) -> None:
        self._network, self._kernels, self._arrays, self._tiling = network, kernels, arrays, tiling
        self._gradient_sum = np.zeros(network.parameters.size, dtype)
        self._views = network.parameters.views(self._gradient_sum)

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
            self._kernels.dense_backward_weights(inputs_BD, deltas_BE, dw_ED, db_E)
        return self._gradient_sum
