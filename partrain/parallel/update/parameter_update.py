"""Updates the parameters with the results that the tiles of a batch left in the shared arrays.

Without the fast path the update is: reduce (parallel.update.reduction), check for non-finite values, let the optimizer
change the parameters, check again. With the fast kernels, and if the gradient is proven to be finite without being
stored, all of this is one pass over pieces, by threads of the coordinator while the workers sleep (kernels.update). It
makes the same sums in the same order, so the result is bit for bit the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.kernels import loops, norms, update, update_claims
from partrain.kernels.compiler.flags import Kernel
from partrain.kernels.update_rules import NUM_COEFFICIENTS, Rule
from partrain.network.network import Network
from partrain.network.optimizer import ParameterOptimizer
from partrain.parallel.update.lent_moments import LentMoments
from partrain.parallel.update.node_sums import NodeSums
from partrain.parallel.update.piece_plan import Part, useful_noise_threads, useful_threads
from partrain.parallel.update.piece_rows import check_rows, update_rows
from partrain.parallel.update.reduction import GradientReduction
from partrain.parallel.update.span_threads import SpanThreads, useful_span_threads
from partrain.parallel.update.thread_team import PieceThreads, ThreadTeam
from partrain.parallel.workers.tiles import Tiling
from partrain.system.machine import available_processors

Array = NDArray[Any]


@dataclass(frozen=True)
class NotFinite:
    """A value is NaN or infinite: in the gradient, before anything was written, or in the result of the update.

    Attributes
    ----------
    name : the parameter, or "Adam's second moment of" the parameter.
    is_gradient : whether it is the parameter's gradient.
    """

    name: str
    is_gradient: bool


class ParameterUpdate:
    """Updates the parameters in each step of a training run.

    Parameters
    ----------
    network : the network's shapes.
    kernels : "fast" or "loops"; the kernels of `kernels` must be loaded for `dtype`.
    arrays : the arrays of `array_plan.exchange_specs`; read.
    tiling : cuts the batch.
    dtype : "float32" or "float64".
    optimizer : updates arrays["parameters"].
    num_threads : the largest number of threads; None: the fastest number on this machine. Any number gives the same
        bits.
    part : the parameters that are updated; None: all. Another part is updated by its owners (parallel.mpi).
    is_private : whether each step calls `gradient_sum`, and adds noise. Then threads compute the sum where updates are
        in pieces; the kernels of `NodeSums` must be loaded.

    Attributes
    ----------
    noise_threads : for the noise of private steps.
    moments : takes the moments of `optimizer` back that are lent to workers.

    Side effects
    ------------
    The first update, sum or noise starts threads; `close` ends them.
    """

    KERNELS = (loops.first_not_finite, norms.slot_squared_norms)

    def __init__(
        self,
        network: Network,
        kernels: str,
        arrays: Mapping[str, Array],
        tiling: Tiling,
        dtype: str,
        optimizer: ParameterOptimizer,
        num_threads: int | None = None,
        part: Part | None = None,
        *,
        is_private: bool = False,
    ) -> None:
        self._network, self._optimizer = network, optimizer
        self.moments = LentMoments(optimizer, arrays)
        self._reduction = GradientReduction(network, kernels, arrays, tiling, dtype, part)
        self._threads: _UpdateThreads | None = None
        self._sums: NodeSums | None = None
        self.noise_threads = PieceThreads(
            num_threads or useful_noise_threads(network.parameters.size, available_processors())
        )
        groups = optimizer.groups
        spans = groups.spans if part is None else part.spans(network, groups)
        self._span_threads = SpanThreads(
            optimizer, spans, num_threads or useful_span_threads(groups, spans, available_processors())
        )
        part = part or Part.whole(network)
        if _is_in_pieces(kernels, groups.rules) and not part.is_empty:
            self._threads = _UpdateThreads(network, arrays, tiling, optimizer, num_threads, part)
            if is_private:
                capacity = len(arrays["indices"])
                self._sums = NodeSums(network, kernels, arrays, tiling, dtype, groups, part, 1, capacity, num_threads)

    @staticmethod
    def kernels(kernels: str, rules: frozenset[Rule]) -> tuple[Kernel, ...]:
        """Return the kernels that updates by these rules call."""
        of_threads = _UpdateThreads.KERNELS if _is_in_pieces(kernels, rules) else ()
        of_rules = ParameterOptimizer.kernels(rules, kernels)
        return (*of_threads, *of_rules, *GradientReduction.kernels(kernels), *ParameterUpdate.KERNELS)

    @property
    def num_threads(self) -> int:
        """The number of threads that compute an update."""
        return self._span_threads.number if self._threads is None else self._threads.number

    def apply(self, num_examples: int, step: int) -> NotFinite | None:
        """Make step `step` (counted from 1) with the gradient of the batch's first `num_examples`.

        Returns
        -------
        None, or the value that is not finite. If it is a gradient, parameters and moments have not changed.
        """
        self.moments.collect()
        outcome = update.UNPROVEN if self._threads is None else self._threads.update(num_examples, step)
        if outcome == update.UPDATED:
            return None
        if outcome == update.UNPROVEN:
            return self.apply_sum(self._reduction.reduce(num_examples), num_examples, step)
        return self._not_finite_result()

    def apply_sum(self, gradient_sum: Array, num_examples: int, step: int) -> NotFinite | None:
        """Make step `step` with the sum of the gradients of `num_examples`; returns as `apply` does."""
        if (bad := self.first_not_finite(gradient_sum)) is not None:
            return NotFinite(bad, is_gradient=True)
        self.moments.collect()
        self._span_threads.update(gradient_sum, num_examples, step)
        return self._not_finite_result()

    def gradient_sum(self, num_examples: int) -> Array:
        """Return the sum of the gradients of the batch's first `num_examples`; valid until the next call."""
        if self._sums is None:
            return self._reduction.reduce(num_examples)
        gradient_sum: Array = self._sums.compute([(0, num_examples)])[0]
        return gradient_sum

    def squared_norm_of(self, gradient_sum: Array) -> float:
        """Return the squared norm of a flat vector of all parameters' gradient, in float64, without statistics."""
        total, result = 0.0, np.empty((1, 1))
        for first, last in self._optimizer.groups.learned:
            norms.slot_squared_norms(gradient_sum.reshape(1, -1), first, last, result, 0)
            total += float(result[0, 0])
        return total

    def first_not_finite(self, vector: Array) -> str | None:
        """Return the first parameter whose part of a flat vector of all parameters is not finite, or None."""
        place = loops.first_not_finite(vector)
        return None if place < 0 else self._network.parameters.name_at(place)

    def close(self) -> None:
        """End the threads."""
        self._span_threads.close()
        for threads in (self.noise_threads, self._threads, self._sums):
            if threads is not None:
                threads.close()

    def _not_finite_result(self) -> NotFinite | None:
        """Return a parameter or second moment that is not finite. An infinite first moment makes its parameter so."""
        if (bad := self.first_not_finite(self._optimizer.parameters)) is not None:
            return NotFinite(bad, is_gradient=False)
        bad = self.first_not_finite(self._optimizer.second_moment)
        return None if bad is None else NotFinite(f"Adam's second moment of {bad}", is_gradient=False)


def _is_in_pieces(kernels: str, rules: frozenset[Rule]) -> bool:
    """Return whether the fast path applies. Muon needs the gradient of a whole matrix."""
    return kernels == "fast" and Rule.MUON not in rules


class _UpdateThreads:
    """Runs `kernels.update.update_parameters` in this thread, and in others that sleep between updates."""

    KERNELS = (update.begin_update, update.update_parameters)

    def __init__(
        self,
        network: Network,
        arrays: Mapping[str, Array],
        tiling: Tiling,
        optimizer: ParameterOptimizer,
        num_threads: int | None,
        part: Part,
    ) -> None:
        groups = optimizer.groups
        checks, pieces = check_rows(network, arrays, part), update_rows(network, groups, arrays, part)
        self._coefficients_GC = np.zeros((len(groups.groups), NUM_COEFFICIENTS), np.float32)
        self.number = num_threads or useful_threads(network, len(arrays["indices"]), available_processors())
        self._optimizer, self._num_layers = optimizer, len(network.dense_layers)
        self._control = np.zeros(update_claims.control_size(self.number, self._num_layers), np.int64)
        self._arguments = (
            self.number,
            checks,
            pieces,
            self._num_layers,
            tiling.tile_size,
            tiling.block_size,
            arrays["tile_sums"],
            self._coefficients_GC,
            np.zeros(network.tile_sums.size, np.float32),
            optimizer.first_moment,
            optimizer.second_moment,
            optimizer.parameters,
        )
        self._arrays = arrays  # keeps them alive: the kernel has only their addresses
        self._team = ThreadTeam(self.number)

    def update(self, num_examples: int, step: int) -> int:
        with np.errstate(over="ignore"):  # the step ends with a message about the parameters, which are infinite then
            self._coefficients_GC[:] = self._optimizer.coefficients(num_examples, step)
        update.begin_update(self._control, self.number, self._num_layers, num_examples)
        return self._team.work(self._participate)

    def close(self) -> None:
        self._team.close()

    def _participate(self, number: int) -> int:
        outcome: int = update.update_parameters(self._control, number, *self._arguments)
        return outcome
