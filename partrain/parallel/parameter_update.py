"""From what the tiles of a batch left in the shared arrays to new parameters.

The plain way is: reduce (parallel.reduction), check, Adam, check. Where the kernels are made for it, and the gradient
can be seen to be finite without being written down, all of that is one pass in pieces, by threads of the coordinator
while the workers sleep (kernels.update): the same sums in the same order, so the same bits. Where an update is too
short for a second thread to be woken, workers that wait without sleeping help with it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.adam import Adam
from partrain.kernels import loops, norms, update
from partrain.kernels.kernel_set import KernelSet
from partrain.kill_switch import kill_point
from partrain.network.network import Network
from partrain.parallel import update_plan
from partrain.parallel.machine import available_processors
from partrain.parallel.reduction import GradientReduction
from partrain.parallel.update_plan import cut_update, ranges, useful_threads

Array = NDArray[Any]


@dataclass(frozen=True)
class NotFinite:
    """A value is NaN or infinite: a gradient, before anything was written, or an updated parameter."""

    parameter: str
    is_gradient: bool


class ParameterUpdate:
    """Makes the steps of a training out of what its tiles computed.

    Parameters
    ----------
    network : its shapes.
    kernels : loaded for `dtype`.
    arrays : as exchange.exchange_specs plans them; read. With those of `help_specs` among them, helpers are called.
    tile : examples a tile.
    dtype : "float32" or "float64".
    adam : over arrays["parameters"].
    num_threads : how many compute, at most; None: as many as pay here. The bits are the same for any number.

    Side effects
    ------------
    The first update starts threads; `close` ends them.
    """

    def __init__(
        self,
        network: Network,
        kernels: KernelSet,
        arrays: Mapping[str, Array],
        tile: int,
        dtype: str,
        adam: Adam,
        num_threads: int | None = None,
    ) -> None:
        self._network, self._adam = network, adam
        self._reduction = GradientReduction(network, kernels, arrays, tile, dtype)
        self._threads: _UpdateThreads | None = None
        if kernels.in_pieces:
            if num_threads is None:
                num_threads = useful_threads(network, len(arrays["indices"]), available_processors())
            self._threads = _UpdateThreads(network, arrays, tile, adam, num_threads)

    @property
    def num_threads(self) -> int:
        """How many threads compute an update."""
        return 1 if self._threads is None else self._threads.number

    def apply(self, num_examples: int, step: int) -> NotFinite | None:
        """Make step `step` (counted from 1) with the gradient of the batch's first `num_examples`.

        Returns
        -------
        None, or what is not finite. If that is a gradient, parameters and moments are as they were.
        """
        outcome = update.UNPROVEN if self._threads is None else self._threads.update(num_examples, step)
        if outcome == update.UPDATED:
            return None
        if outcome == update.UNPROVEN:
            return self.apply_sum(self._reduction.reduce(num_examples), num_examples, step)
        return self._not_finite_parameter()

    def apply_sum(self, gradient_sum: Array, num_examples: int, step: int) -> NotFinite | None:
        """Make step `step` with a sum of gradients that stands for `num_examples`; returns as `apply` does."""
        if (bad := self._first_not_finite(gradient_sum)) is not None:
            return NotFinite(bad, is_gradient=True)
        self._adam.update(gradient_sum, num_examples, step)
        return self._not_finite_parameter()

    def gradient_sum(self, num_examples: int) -> Array:
        """Return the sum of the gradients of the batch's first `num_examples`; valid until the next call."""
        return self._reduction.reduce(num_examples)

    def squared_norm_of(self, gradient_sum: Array) -> float:
        """Return the squared norm of a flat vector of all parameters' gradient, in float64."""
        result = np.empty((1, 1))
        norms.slot_squared_norms(gradient_sum.reshape(1, -1), 0, gradient_sum.size, result, 0)
        return float(result[0, 0])

    def find_not_finite(self, num_examples: int) -> str | None:
        """Return the parameter whose gradient is not finite (the first one), or None."""
        return self._first_not_finite(self._reduction.reduce(num_examples))

    def close(self) -> None:
        """End the threads."""
        if self._threads is not None:
            self._threads.close()

    def _not_finite_parameter(self) -> NotFinite | None:
        bad = self._first_not_finite(self._adam.parameters)
        return None if bad is None else NotFinite(bad, is_gradient=False)

    def _first_not_finite(self, vector: Array) -> str | None:
        place = loops.first_not_finite(vector)
        return None if place < 0 else self._network.parameters.name_at(place)


class UpdateHelper:
    """A worker's part in updates.

    Parameters
    ----------
    network : its shapes.
    arrays : the shared ones.
    helper, num_helpers : which of the workers this is, counted from 0, and how many there are.

    Attributes
    ----------
    calls : whose first element is the number of the newest call; 0 before the first, and if nobody calls.
    """

    def __init__(self, network: Network, arrays: Mapping[str, Array], helper: int, num_helpers: int) -> None:
        is_wanted = "update.calls" in arrays
        self.calls = arrays["update.calls"] if is_wanted else np.zeros(1, np.int64)
        self._arguments: tuple[Any, ...] = ()
        if is_wanted:
            self._arguments = (np.array(list(_pieces(network, arrays))), helper, num_helpers, arrays["update.gradient"])
        self._arrays = arrays  # the kernel has their addresses

    def help(self, step: int) -> None:
        """Compute gradients for the update of `step`, until it is over or nothing is left."""
        kill_point("helper: in an update")
        update.sum_units_ahead(self.calls, step, *self._arguments)


class _UpdateThreads:
    """The calling thread, and others that sleep between updates, in `kernels.update.update_parameters`."""

    def __init__(self, network: Network, arrays: Mapping[str, Array], tile: int, adam: Adam, num_threads: int) -> None:
        checks, pieces = np.array(list(_checks(network, arrays))), np.array(list(_pieces(network, arrays)))
        self._calls_helpers = "update.calls" in arrays
        nobody = {"update.calls": np.empty(0, np.int64), "update.gradient": np.empty(0, np.float32)}
        self._calls, ahead = ((arrays if self._calls_helpers else nobody)[name] for name in nobody)
        self.number = num_threads
        self._adam, self._num_layers = adam, len(network.dense_layers)
        self._control = np.zeros(update.control_size(num_threads, self._num_layers), np.int64)
        self._coefficients = np.zeros(len(adam.coefficients(1, 1)), np.float32)
        slots = arrays["tile_sums"]
        gradient = np.zeros(network.tile_sums.size, np.float32)
        self._arguments = (
            num_threads,
            checks,
            pieces,
            self._num_layers,
            tile,
            slots,
            self._coefficients,
            gradient,
            self._calls,
            ahead,
            adam.first_moment,
            adam.second_moment,
            adam.parameters,
        )
        self._arrays = arrays  # the kernel has their addresses
        self._sleepers: list[_Sleeper] = []

    def update(self, num_examples: int, step: int) -> int:
        if self._calls_helpers:
            update.call_helpers(self._calls, step, num_examples)
        self._coefficients[:] = self._adam.coefficients(num_examples, step)
        update.begin_update(self._control, self.number, self._num_layers, num_examples)
        while len(self._sleepers) < self.number - 1:
            self._sleepers.append(_Sleeper(self._participate, len(self._sleepers) + 1))
        for sleeper in self._sleepers:
            sleeper.wake()
        return self._participate(0)

    def close(self) -> None:
        while self._sleepers:
            self._sleepers.pop().close()

    def _participate(self, number: int) -> int:
        outcome: int = update.update_parameters(self._control, number, *self._arguments)
        return outcome


class _Sleeper:
    """A thread that calls `call(number)` each time that it is woken."""

    def __init__(self, call: Callable[[int], object], number: int) -> None:
        self._call, self._number = call, number
        self._closing = False
        self._asleep = threading.Lock()
        self._asleep.acquire()
        self._thread = threading.Thread(target=self._run, name=f"partrain update {number}", daemon=True)
        # Signals are for the main thread: where another one took them, the main one would not wake up from a wait.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def wake(self) -> None:
        """Have it call; if it has not yet begun the call that it was woken for before, that one will do."""
        if self._asleep.locked():
            self._asleep.release()

    def close(self) -> None:
        """End the thread."""
        self._closing = True
        self.wake()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._asleep.acquire()
            if self._closing:
                return
            self._call(self._number)


def _checks(network: Network, arrays: Mapping[str, Array]) -> Iterator[list[int]]:
    """Yield the rows of the first round: SLOTS, first, last; FACTORS, first, last example, address, length, place."""
    for first, last in ranges(network.tile_sums.size, update_plan.PIECE):
        yield _row(update.SLOTS, first, last)
    for k, layer in enumerate(network.dense_layers):
        for kind, place in (("inputs", 2 * k), ("deltas", 2 * k + 1)):
            factor = arrays[f"{layer.name}.{kind}"]
            length = factor.shape[1]
            for first, last in ranges(len(factor), max(1, update_plan.PIECE // length)):
                yield _row(update.FACTORS, first, last, factor.ctypes.data, length, place)


def _pieces(network: Network, arrays: Mapping[str, Array]) -> Iterator[list[int]]:
    """Yield the rows of the second round.

    They are SLOTS, first, last parameter; UNITS, first, last unit, address of inputs and of deltas, D, E, and where
    weights and biases begin.
    """
    for layer, first, last in cut_update(network):
        if layer is None:
            yield _row(update.SLOTS, first, last)
        else:
            factors = (arrays[f"{layer.name}.{kind}"] for kind in ("inputs", "deltas"))
            starts = (network.parameters.start(parameter.name) for parameter in layer.parameters)
            sizes = (*layer.input_shape, *layer.output_shape)
            yield _row(update.UNITS, first, last, *(factor.ctypes.data for factor in factors), *sizes, *starts)


def _row(*columns: int) -> list[int]:
    return [*columns, *[0] * (update.NUM_COLUMNS - len(columns))]
