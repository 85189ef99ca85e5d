"""What a worker does: it computes tiles of the network, at the coordinator's command, until its pipe ends.

A tile is a pure function of the parameters and of the indices of its examples. So it does not matter which
worker computes it, nor how often.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from partrain.config.schema import Augment
from partrain.data.augmentation import Augmentation
from partrain.kernels import loops
from partrain.kernels.compiler.kernel_set import kernel_set
from partrain.kernels.compiler.options import load
from partrain.network.clipping import clipping_scales, gradient_norms
from partrain.network.execution import Factors, TrainingExamples
from partrain.network.execution_choice import make_execution
from partrain.network.network import Network
from partrain.network.normalisation import Normalisation
from partrain.network.softmax import softmax
from partrain.parallel.update.parameter_update import UpdateHelper
from partrain.parallel.workers.example_source import ExampleSource, example_source
from partrain.parallel.workers.mailboxes import WAKE, Mailbox
from partrain.parallel.workers.tiles import num_tiles
from partrain.parallel.workers.waiting import SPIN_SECONDS, spin
from partrain.system.fault_injection import kill_point
from partrain.system.parent_death import continue_after_parent
from partrain.system.shared_arrays import SharedArrays
from partrain.system.signals import SIGNALS_OF_RANKS

GRADIENTS = 0
EVALUATE = 1
MEASURED_GRADIENTS = 2
MEASURED_EVALUATION = 3
# Those that compute the tiles of a step, and those that also write the norms of each example's own gradient.
STEPS = (GRADIENTS, MEASURED_GRADIENTS)
MEASURED = (MEASURED_GRADIENTS, MEASURED_EVALUATION)

# The first byte of a reply, which one more byte, or a text, follows. There is none to a command that was carried out
# (see `parallel.workers.mailboxes`).
HELLO, ERROR = b"H", b"E"
# No message through a pipe is longer.
REPLY_BYTES = 8192


class Command(NamedTuple):
    """What a worker is to compute, for the positions `first` … `last`-1 of what is under way.

    GRADIENTS: a position is a place in the batch, `first` at the beginning of a tile; the examples are those of
    the shared `indices`, from the file "train", in this epoch. EVALUATE: a position is a place in the evaluation; the
    example is the one at `offset` + position of `file`. MEASURED_GRADIENTS and MEASURED_EVALUATION do the same, and
    write the squared norms of each example's gradient by layer; where `Computation.clip` is given, the former clips
    by them.
    """

    operation: int
    file: int  # its place in FILES
    offset: int
    first: int
    last: int
    epoch: int = 0


FILES = ("train", "test")


@dataclass(frozen=True)
class Computation:
    """All that a worker must know.

    Attributes
    ----------
    arrays : those that `parallel.array_plan` plans, and the data set's.
    class_weights : by which an example's loss and its gradient in a step are multiplied, for each output; None: by 1.
    clip : the largest norm of an example's gradient in a MEASURED_GRADIENTS; None: as it is.
    seed : by which is drawn what is random in a step.
    augment : how far the images of a step are changed at random; None: not at all.
    """

    network: Network
    kernels: str
    dtype: str
    tile: int
    normalisation: Normalisation
    arrays: SharedArrays
    class_weights: tuple[float, ...] | None = None
    clip: float | None = None
    seed: int = 0
    augment: Augment | None = None


class TileComputer:
    """Carries out commands on the shared arrays; in a worker, or in the coordinator itself."""

    def __init__(self, computation: Computation) -> None:
        network, arrays, dtype = computation.network, computation.arrays, computation.dtype
        normalisation, tile = computation.normalisation, computation.tile
        kernels = kernel_set(computation.kernels)
        load(kernels.for_training(augments=computation.augment is not None, drops=network.drops), dtype)
        self._arrays, self._tile, self._dense_layers = arrays, tile, network.dense_layers
        self._clip, self._dtype = computation.clip, dtype
        self._execution = make_execution(computation.kernels, network, arrays["parameters"], normalisation, tile, dtype)
        self._dlogits_NE = np.empty((self._execution.capacity, network.num_outputs), dtype)
        self._class_weights: NDArray[Any] | None = None
        if computation.class_weights is not None:
            self._class_weights = np.array(computation.class_weights, dtype)
        self._sources: dict[str, ExampleSource] = {}
        self._seed = computation.seed
        self._augmentation: Augmentation | None = None
        if computation.augment is not None:
            self._augmentation = Augmentation(
                computation.augment, network.input_shape, self._execution.capacity, kernels.augment
            )

    def carry_out(self, command: Command, is_wanted: Callable[[], bool] = lambda: True) -> None:
        """Compute what `command` says, as many tiles at a time as the execution takes.

        Parameters
        ----------
        command : what to compute.
        is_wanted : asked between two calls of the execution; if it is false, the rest is left undone.
        """
        file = FILES[command.file]
        for first in range(command.first, command.last, self._execution.capacity):
            if first > command.first and not is_wanted():
                return
            last = min(first + self._execution.capacity, command.last)
            measured = command.operation in MEASURED
            if command.operation in STEPS:
                indices_N = self._arrays["indices"][first:last]
                training = TrainingExamples(self._seed, command.epoch, indices_N)
                self._forward(file, indices_N, first, last, training)
                if self._class_weights is not None:
                    self._weigh(self._class_weights[self._arrays[f"{file}.labels"][indices_N]], first, last)
                kill_point("worker: in the middle of a tile")
                self._backward(first, last, measured)
            else:
                logits_NE = self._forward(file, np.arange(command.offset + first, command.offset + last), first, last)
                self._arrays["confidences"][first:last] = softmax(logits_NE).max(axis=1)
                if measured:
                    self._measure(first, last, self._own_factors(last - first))

    def _forward(
        self,
        file: str,
        indices_N: NDArray[np.int64],
        first: int,
        last: int,
        training: TrainingExamples | None = None,
    ) -> NDArray[Any]:
        if file not in self._sources:  # an evaluation has one file alone
            self._sources[file] = example_source(self._arrays, file, self._execution.capacity)
        images, places_N = self._sources[file].take(indices_N)
        labels = self._arrays[f"{file}.labels"]
        losses_N, predictions_N = self._arrays["losses"][first:last], self._arrays["predictions"][first:last]
        if training is not None and self._augmentation is not None:
            images, places_N = self._augmentation.apply(
                images, places_N, seed=training.seed, epoch=training.epoch, examples_N=indices_N
            )
        logits_NE = self._execution.forward(images, places_N, training)
        dlogits_NE = self._dlogits_NE[: last - first]
        loops.softmax_cross_entropy(logits_NE, labels[indices_N], losses_N, predictions_N, dlogits_NE)
        return logits_NE

    def _weigh(self, weights_N: NDArray[Any], first: int, last: int) -> None:
        """Multiply the examples' losses, and their gradients at the logits, by the weights of their classes."""
        self._arrays["losses"][first:last] *= weights_N
        self._dlogits_NE[: last - first] *= weights_N[:, np.newaxis]

    @cached_property
    def _factors(self) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        """The arrays of the factors: they are there where something is trained."""
        return {
            layer.name: (self._arrays[f"{layer.name}.inputs"], self._arrays[f"{layer.name}.deltas"])
            for layer in self._dense_layers
        }

    def _backward(self, first: int, last: int, measured: bool) -> None:
        factors = {
            name: Factors(inputs_BD[first:last], deltas_BE[first:last])
            for name, (inputs_BD, deltas_BE) in self._factors.items()
        }
        slots_TK = self._arrays["tile_sums"][first // self._tile : num_tiles(last, self._tile)]
        if not measured:
            self._execution.backward(self._dlogits_NE[: last - first], slots_TK, factors)
            return
        norms_N = gradient_norms(self._measure(first, last, factors))
        scales_N = None if self._clip is None else clipping_scales(norms_N, self._clip, self._dtype)
        self._execution.sum_tiles(scales_N, slots_TK, factors)

    def _measure(self, first: int, last: int, factors: dict[str, Factors]) -> NDArray[np.float64]:
        squared_norms_NL: NDArray[np.float64] = self._arrays["squared_norms"][first:last]
        self._execution.measure(self._dlogits_NE[: last - first], factors, squared_norms_NL)
        return squared_norms_NL

    def _own_factors(self, num: int) -> dict[str, Factors]:
        """Return rows for the factors of `num` examples that nobody else reads: an evaluation shares none."""
        return {
            layer.name: Factors(np.empty((num, *layer.input_shape), self._dtype),
                                np.empty((num, *layer.output_shape), self._dtype))
            for layer in self._dense_layers
        }  # fmt: skip


def work(
    commands: Connection,
    replies: Connection,
    boxes: SharedArrays,
    number: int,
    num_workers: int,
    computation: Computation,
    preload_module: str,
) -> None:
    """Run a worker process: say hello, then carry out commands until their pipe ends.

    Through the pipe of replies go HELLO with whether the kernels were preloaded by the fork server, ERROR with a
    traceback (after which the worker goes on), and what wakes the coordinator.

    Parameters
    ----------
    commands, replies : the worker's ends of its pipes.
    boxes, number : those of its `Mailbox`.
    num_workers : how many there are.
    computation : what it computes on.
    preload_module : by its presence is seen that the fork server has loaded the kernels.
    """
    # Read and written as they are, for a message is never longer than one write: without the framing of `Connection`,
    # which reads each message in two calls.
    source, target = commands.fileno(), replies.fileno()
    # A command may take a minute, and the coordinator may be killed meanwhile: an end of the pipe is looked for
    # between the calls that a command consists of, too.
    hang_up = select.poll()
    hang_up.register(source, 0)
    with contextlib.suppress(ConnectionError):  # the coordinator is gone
        try:
            was_preloaded = preload_module in sys.modules
            ignore_signals()
            continue_after_parent()
            kill_point("worker: start-up")
            computer = TileComputer(computation)
            helper = UpdateHelper(computation.network, computation.arrays, number, num_workers)
            mailbox = Mailbox(boxes, number, helper.calls)
            os.write(target, HELLO + (b"1" if was_preloaded else b"0"))
            while command := _receive(mailbox, source, helper):
                kill_point("worker: before computing")
                try:
                    computer.carry_out(command, is_wanted=lambda: not hang_up.poll(0))
                except Exception:
                    os.write(target, _report())
                else:
                    kill_point("worker: before answering")
                    if mailbox.answer():
                        os.write(target, WAKE)
                    kill_point("worker: after answering")
        except ConnectionError:
            raise
        except Exception:
            os.write(target, _report())
    kill_point("worker: shutting down")


def _receive(mailbox: Mailbox, source: int, helper: UpdateHelper) -> Command | None:
    """Return the next command, or None at the end of the pipe that wakes the worker. Help with updates meanwhile."""
    if not (mailbox.more_follows and spin(lambda: mailbox.await_command(helper.help), SPIN_SECONDS)):
        mailbox.say_asleep(True)
        while not mailbox.has_command():
            if not os.read(source, REPLY_BYTES):
                return None
        mailbox.say_asleep(False)
    return Command._make(mailbox.take_command())


def _report() -> bytes:
    """Return the message that tells of the exception being handled; short enough to go out in one write.

    The coordinator would wait for the rest of a longer one, if the worker were stopped between two writes.
    """
    return ERROR + traceback.format_exc()[-4000:].encode()[: REPLY_BYTES - 1]


def ignore_signals() -> None:
    """Leave to the coordinator what reaches the whole process group: from a terminal, or from mpiexec (SIGUSR1)."""
    for number in SIGNALS_OF_RANKS:
        signal.signal(number, signal.SIG_IGN)
