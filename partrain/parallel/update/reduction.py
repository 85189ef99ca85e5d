"""Sums tile and example gradients into the batch gradient; only this file defines the order of the sums.

Within a block, slots are added in the order of the tiles, and rows of factors in the order of the examples, whichever
worker computed them; blocks are added in a tree (kernels.block_tree). Adam divides the sum by the batch size, once.

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
from partrain.parallel.update.piece_plan import Part
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
    part : the parameters whose gradients are summed; None: all.
    """

    def __init__(
        self,
        network: Network,
        kernels: str,
        arrays: Mapping[str, Array],
        tiling: Tiling,
        dtype: str,
        part: Part | None = None,
    ) -> None:
        self._network, self._arrays, self._tiling = network, arrays, tiling
        self._part = part or Part.whole(network)
        self._dense_backward_weights = _DENSE_BACKWARD_WEIGHTS[kernels]
        self._sum = np.zeros(network.parameters.size, dtype)
        self._stack: list[Array] = []  # of the tree

    @staticmethod
    def kernels(kernels: str) -> tuple[Kernel, ...]:
        """Return the kernels that a reduction calls."""
        return (loops.sum_slots, _DENSE_BACKWARD_WEIGHTS[kernels])

    def reduce(self, num_examples: int, first: int = 0) -> Array:
        """Return the sum of the gradients of `num_examples` examples of the batch.

        Parameters
        ----------
        first : the first of them, where a block begins. If they are not the whole batch, they are a node of the tree.

        Returns
        -------
        The flat vector (network.parameters.size,), 0 outside of the part; valid until the next call.
        """
        self._sum[:] = 0
        for number, (begin, end) in enumerate(self._tiling.blocks(num_examples)):
            self._sum_block(first + begin, first + end)
            level, waiting = 0, number
            while waiting & 1 or (waiting and end == num_examples):
                if waiting & 1:
                    self._sum += self._stack[level]
                waiting >>= 1
                level += 1
            if end < num_examples:
                self._put_away(level)
        return self._sum

    def _sum_block(self, first: int, last: int) -> None:
        """Overwrite the sum with that of the examples `first` … `last`-1."""
        if self._part.has_slots:
            slots = self._arrays["tile_sums"][self._tiling.tile_range(first, last)]
            loops.sum_slots(slots, self._sum[: self._network.tile_sums.size])
        views = self._network.parameters.views(self._sum)
        for layer in self._part.layers:
            dw_ED, db_E = (views[p.name] for p in layer.parameters)
            inputs_BD = self._arrays[f"{layer.name}.inputs"][first:last]
            deltas_BE = self._arrays[f"{layer.name}.deltas"][first:last]
            self._dense_backward_weights(inputs_BD, deltas_BE, dw_ED, db_E)

    def _put_away(self, level: int) -> None:
        """Put the sum into the stack, and take another vector for the next one."""
        while len(self._stack) <= level:
            self._stack.append(np.zeros_like(self._sum))
        self._sum, self._stack[level] = self._stack[level], self._sum
