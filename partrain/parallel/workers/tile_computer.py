"""Computes tiles of the network, in a worker or in the coordinator itself.

A tile is a pure function of the parameters and of the indices of its examples. So it does not matter which process
computes it, nor how often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from partrain.data.split_name import SplitName
from partrain.errors import DataError
from partrain.kernels import loops
from partrain.kernels.compiler.flags import Kernel
from partrain.network.clipping import clipping_scales, gradient_norms
from partrain.network.execution import Factors, TrainingExamples
from partrain.network.execution_choice import execution_kernels, make_execution
from partrain.network.fast_execution import FastExecution
from partrain.network.layers import Layer
from partrain.network.network import Network
from partrain.network.normalisation import Normalisation
from partrain.network.parameter_groups import ParameterGroups
from partrain.parallel.workers.commands import Command
from partrain.parallel.workers.example_source import ExampleSource, example_source, pixel_type
from partrain.parallel.workers.step_examples import NO_CHANGES, ExampleChanges, StepExamples
from partrain.parallel.workers.tiles import Tiling
from partrain.system.fault_injection import kill_point
from partrain.system.shared_arrays import SharedArrays


@dataclass(frozen=True)
class Computation:
    """Everything that a worker needs to compute tiles.

    Attributes
    ----------
    arrays : the shared arrays of `parallel.array_plan`, and those of the data set.
    class_weights : one per class; in a step, the loss and the gradient of an example are multiplied by the weight of
        its class. None: 1 for all.
    clip : the maximum norm of an example's gradient in GRADIENTS_WITH_NORMS; None: gradients are not clipped.
    measures : whether steps compute the norms of single examples' gradients.
    seed : the seed of all that is random in a step.
    changes : what a step changes in its examples.
    groups : the groups of the parameters, where workers make steps by themselves.
    """

    network: Network
    kernels: str
    dtype: str
    tiling: Tiling
    normalisation: Normalisation
    arrays: SharedArrays
    class_weights: tuple[float, ...] | None = None
    clip: float | None = None
    measures: bool = True
    seed: int = 0
    changes: ExampleChanges = NO_CHANGES
    groups: ParameterGroups | None = None


# Ranges of examples whose arrays are kept: where batches vary in size, these are many.
MOST_PARTS = 64


class _Part(NamedTuple):
    """What a step computes in one call of the execution: the arrays of some consecutive examples.

    They are made once for each range of examples. So a recorded pass finds the same arrays in each step.

    Attributes
    ----------
    indices_N : scratch for the indices of the examples.
    confidences_N, dlogits_NE : scratch for confidences, and for the gradient at the logits.
    slots_TK : the slots of the tiles, in the shared array.
    factors : the rows of each dense layer, in the shared arrays.
    """

    indices_N: NDArray[np.int64]
    confidences_N: NDArray[Any]
    dlogits_NE: NDArray[Any]
    slots_TK: NDArray[Any]
    factors: dict[str, Factors]


class Results(NamedTuple):
    """The rows of a batch: its examples, which are read, and their losses and predictions, which are written."""

    indices: NDArray[np.int64]
    losses: NDArray[np.float64]
    predictions: NDArray[np.int64]


class TileComputer:
    """Carries out commands on the shared arrays, in a worker or in the coordinator.

    The kernels of `tile_kernels` must be loaded before.
    """

    KERNELS = (loops.softmax_cross_entropy,)

    def __init__(self, computation: Computation) -> None:
        network, arrays, dtype = computation.network, computation.arrays, computation.dtype
        normalisation, tiling = computation.normalisation, computation.tiling
        self._arrays, self._tiling, self._dense_layers = arrays, tiling, network.dense_layers
        indices = arrays.get("indices", np.empty(0, np.int64))  # an evaluation has none
        self._results = Results(indices, arrays["losses"], arrays["predictions"])
        self._clip, self._dtype = computation.clip, dtype
        # Norms are computed with the execution's first parameters alone. Those of planned steps alternate, so they are
        # copied to that vector.
        self._copied: NDArray[Any] | None = None
        if computation.clip is not None and "steps.numbers" in arrays:
            self._copied = np.empty_like(arrays["parameters"])
        parameters = arrays["parameters"] if self._copied is None else self._copied
        self._execution = make_execution(
            computation.kernels,
            network,
            parameters,
            normalisation,
            tiling.tile_size,
            dtype,
            keeps_gradients=computation.measures,
        )
        self._dlogits_NE = np.empty((self._execution.capacity, network.num_outputs), dtype)
        self._confidences_N = np.empty(self._execution.capacity)
        self._class_weights: NDArray[Any] | None = None
        if computation.class_weights is not None:
            self._class_weights = np.array(computation.class_weights, dtype)
        self._sources: dict[SplitName, ExampleSource] = {}
        self._parts: dict[tuple[int, int], _Part] = {}
        self._computation = computation

    def carry_out(
        self,
        command: Command,
        is_wanted: Callable[[], bool] = lambda: True,
        results: Results | None = None,
        parameters: NDArray[Any] | None = None,
    ) -> None:
        """Carry out a command, as many tiles at a time as the execution can take.

        Parameters
        ----------
        command : the command; its positions are indices of the shared arrays, which are written.
        is_wanted : called between two calls of the execution; if it returns False, the rest is not computed.
        results : the rows of the positions; None: those of the shared arrays.
        parameters : float32 vector; None: that of the shared arrays.
        """
        split, operation = command.split, command.operation
        self._read(self._arrays["parameters"] if parameters is None else parameters)
        results = results or self._results
        for first in range(command.first, command.last, self._execution.capacity):
            if first > command.first and not is_wanted():
                return
            last = min(first + self._execution.capacity, command.last)
            if operation.is_step:
                self._make_step(command, first, last, results)
            else:
                self._forward(split, np.arange(first, last), first, last, results)
                self._arrays["confidences"][first:last] = self._confidences_N[: last - first]
                if operation.has_norms:
                    self._measure(first, last, self._own_factors(last - first))

    def _read(self, parameters: NDArray[Any]) -> None:
        """Let the execution read these parameters."""
        if self._copied is not None:
            self._copied[:] = parameters
        elif isinstance(self._execution, FastExecution):
            self._execution.parameters = parameters

    def _forward(self, split: SplitName, indices_N: NDArray[np.int64], first: int, last: int, results: Results) -> None:
        images, places_N = self._take(split, indices_N)
        labels_N = self._arrays[f"{split}.labels"][indices_N]
        logits_NE = self._execution.forward(images, places_N)
        loops.softmax_cross_entropy(logits_NE, labels_N, *self._outputs(first, last, results))

    def _make_step(self, command: Command, first: int, last: int, results: Results) -> None:
        """Compute some examples of a training step, forward and backward."""
        part, split, examples = self._part(first, last), command.split, self._step_examples
        losses_N = results.losses[first:last]
        part.indices_N[:] = results.indices[first:last]
        training = TrainingExamples(self._computation.seed, command.epoch, part.indices_N)
        images, places_N = examples.images(partial(self._take, split), training)
        logits_NE = self._execution.forward(images, places_N, training)
        outputs = losses_N, results.predictions[first:last], part.confidences_N, part.dlogits_NE
        examples.compute_loss(logits_NE, part.indices_N, outputs)
        if self._class_weights is not None:
            weights_N = self._class_weights[self._arrays[f"{split}.labels"][part.indices_N]]
            losses_N *= weights_N
            part.dlogits_NE[:] *= weights_N[:, np.newaxis]
        kill_point("worker: in the middle of a tile")
        if not command.operation.has_norms:
            self._execution.backward(part.dlogits_NE, part.slots_TK, part.factors)
            return
        norms_N = gradient_norms(self._measure(first, last, part.factors))
        scales_N = None if self._clip is None else clipping_scales(norms_N, self._clip, self._dtype)
        self._execution.sum_tiles(scales_N, part.slots_TK, part.factors)

    def _part(self, first: int, last: int) -> _Part:
        """Return the arrays of the examples `first` to `last` - 1 of a step."""
        if (first, last) not in self._parts:
            if len(self._parts) == MOST_PARTS:
                self._parts.clear()
            num = last - first
            self._parts[first, last] = _Part(
                np.empty(num, np.int64),
                self._confidences_N[:num],
                self._dlogits_NE[:num],
                self._arrays["tile_sums"][self._tiling.tile_range(first, last)],
                {
                    layer.name: Factors(
                        self._arrays[f"{layer.name}.inputs"][first:last],
                        self._arrays[f"{layer.name}.deltas"][first:last],
                    )
                    for layer in self._dense_layers
                },
            )
        return self._parts[first, last]

    def _take(self, split: SplitName, indices_N: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return an array of images, and the indices of the examples in it."""
        if split not in self._sources:  # an evaluation shares one split alone
            num_images = self._execution.capacity * self._computation.changes.images_per_example
            self._sources[split] = example_source(self._arrays, split, num_images)
        try:
            return self._sources[split].take(indices_N)
        except OSError as error:
            raise DataError(f"{error}. Restore the file.") from error

    def _outputs(self, first: int, last: int, results: Results) -> tuple[NDArray[Any], ...]:
        """Return the arrays for losses, predictions, confidences and the gradient at the logits."""
        N = last - first
        own = self._confidences_N[:N], self._dlogits_NE[:N]
        return results.losses[first:last], results.predictions[first:last], *own

    @cached_property
    def _step_examples(self) -> StepExamples:
        """The examples of a step; they exist only in training."""
        computation = self._computation
        return StepExamples(
            computation.changes,
            computation.kernels,
            self._execution.capacity,
            self._arrays[f"{SplitName.TRAIN}.labels"],
            computation.network.input_shape,
            computation.normalisation.mean,
            seed=computation.seed,
            is_uint8=pixel_type(self._arrays, SplitName.TRAIN) == np.uint8,
        )

    def _measure(self, first: int, last: int, factors: dict[str, Factors]) -> NDArray[np.float64]:
        squared_norms_NL: NDArray[np.float64] = self._arrays["squared_norms"][first:last]
        self._execution.measure(self._dlogits_NE[: last - first], factors, squared_norms_NL)
        return squared_norms_NL

    def _own_factors(self, num: int) -> dict[str, Factors]:
        """Return private arrays for the factors of `num` examples: in an evaluation, no other process reads them."""
        return {
            layer.name: Factors(np.empty((num, *layer.input_shape), self._dtype),
                                np.empty((num, *layer.output_shape), self._dtype))
            for layer in self._dense_layers
        }  # fmt: skip


def tile_kernels(kernels: str, layers: Iterable[Layer], changes: ExampleChanges) -> tuple[Kernel, ...]:
    """Return the kernels that a `TileComputer` calls.

    Parameters
    ----------
    kernels : "fast" or "loops".
    layers : the network's layers.
    changes : what a step changes in its examples.
    """
    return (*execution_kernels(kernels, layers), *changes.kernels(kernels), *TileComputer.KERNELS)
