"""Sums of the gradients of whole nodes of the tree of blocks (kernels.block_tree), on one rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.kernels import node_sums, update_claims
from partrain.kernels.compiler.flags import Kernel
from partrain.network.network import Network
from partrain.network.parameter_groups import ParameterGroups
from partrain.parallel.update.piece_plan import Part, useful_threads
from partrain.parallel.update.piece_rows import update_rows
from partrain.parallel.update.reduction import GradientReduction
from partrain.parallel.update.thread_team import ThreadTeam
from partrain.parallel.workers.tiles import Range, Tiling
from partrain.system.machine import available_processors

Array = NDArray[Any]


class NodeSums:
    """Sums the gradients of nodes. All have the bits of `GradientReduction`.

    Parameters
    ----------
    network, kernels, arrays, tiling, dtype : as for `GradientReduction`.
    groups : the groups of the parameters.
    part : the parameters whose gradients are summed.
    most_nodes, most_examples : the largest number of nodes, and of examples of a node.
    num_threads : the largest number of threads; None: the fastest number on this machine.

    Attributes
    ----------
    sums_MU : the sums of the first nodes, after `compute`, until the next.

    Side effects
    ------------
    The first sum starts threads; `close` ends them.
    """

    def __init__(
        self,
        network: Network,
        kernels: str,
        arrays: Mapping[str, Array],
        tiling: Tiling,
        dtype: str,
        groups: ParameterGroups,
        part: Part,
        most_nodes: int,
        most_examples: int,
        num_threads: int | None = None,
    ) -> None:
        self._arrays, self._tiling = arrays, tiling  # the kernel has only their addresses
        # A thread that wakes up late has the arguments of earlier sums: the newest nodes must be in the same arrays.
        self.sums_MU = np.zeros((most_nodes, network.parameters.size), dtype)
        self._nodes = np.zeros((most_nodes, 2), np.int64)
        self._reduction: GradientReduction | None = None
        if kernels != "fast":
            self._reduction = GradientReduction(network, kernels, arrays, tiling, dtype, part)
            return
        self._pieces = update_rows(network, groups, arrays, part)
        self._num_threads = num_threads or useful_threads(network, most_examples, available_processors())
        self._control = np.zeros(update_claims.control_size(self._num_threads, 0), np.int64)
        self._team = ThreadTeam(self._num_threads)

    @staticmethod
    def kernels(kernels: str) -> tuple[Kernel, ...]:
        """Return the kernels that sums call; "loops": those of `GradientReduction`."""
        return (node_sums.begin_sums, node_sums.sum_nodes) if kernels == "fast" else ()

    def compute(self, nodes: Sequence[Range]) -> Array:
        """Return the sums (nodes, network.parameters.size) of nodes, given by their examples; a view of `sums_MU`."""
        if self._reduction is not None:
            for sum_U, (first, last) in zip(self.sums_MU, nodes, strict=False):
                sum_U[:] = self._reduction.reduce(last - first, first)
        elif nodes:
            self._nodes[: len(nodes)] = nodes
            node_sums.begin_sums(self._control, self._num_threads, len(nodes))
            self._team.work(self._participate)
        return self.sums_MU[: len(nodes)]

    def close(self) -> None:
        """End the threads."""
        if self._reduction is None:
            self._team.close()

    def _participate(self, number: int) -> int:
        tiling, slots_TK = self._tiling, self._arrays["tile_sums"]
        node_sums.sum_nodes(
            self._control,
            number,
            self._num_threads,
            self._pieces,
            self._nodes,
            tiling.tile_size,
            tiling.block_size,
            slots_TK,
            self.sums_MU,
        )
        return 0
