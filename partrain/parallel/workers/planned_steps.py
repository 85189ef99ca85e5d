"""Steps that workers make by themselves, as the coordinator has planned them (kernels.ipc.step_ring).

The coordinator writes the batches and the coefficients of several steps into a ring in shared memory. Workers compute
the tiles, and then their pieces of the reduction and of the update. The coordinator reads the results of complete
steps, and plans further ones, while the workers go on.

Shapes: R steps in the ring; B examples of the largest batch; N examples of a batch; U parameters.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from partrain.kernels import planned_update
from partrain.kernels.compiler.flags import Kernel
from partrain.kernels.ipc import step_ring
from partrain.network.network import Network
from partrain.network.parameter_groups import ParameterGroups
from partrain.parallel.update.piece_plan import share_pieces
from partrain.parallel.update.piece_rows import update_rows
from partrain.parallel.workers.commands import Command, Operation, StepsCommand
from partrain.parallel.workers.tile_computer import Computation, Results, TileComputer
from partrain.parallel.workers.tiles import Tiling
from partrain.system.fault_injection import kill_point

Array = NDArray[Any]

# How often a waiting member yields its processor before it looks for the end of the coordinator: about 2 milliseconds
# if no other process runs. From then on it sleeps between two looks. On a virtual machine a sleep of 50 microseconds
# takes 150: with 32 yields, one meeting in ten slept, and steps took a tenth longer.
NUM_YIELDS = 640
NAP_SECONDS = 50e-6


def makes_steps(computation: Computation) -> bool:
    """Return whether workers can make steps of this computation by themselves."""
    return "steps.numbers" in computation.arrays and computation.groups is not None


class PlannedStep(NamedTuple):
    """What workers need to know of a step.

    Attributes
    ----------
    step : its number, counted from 1.
    operation : GRADIENTS or GRADIENTS_WITH_NORMS.
    epoch : counted from 0.
    indices_N : its examples.
    coefficients : those of each group of parameters; see `ParameterOptimizer.coefficients`.
    """

    step: int
    operation: Operation
    epoch: int
    indices_N: Array
    coefficients: Sequence[Sequence[float]]


class StepTimes(NamedTuple):
    """When the first member came to each point of a step; `time.monotonic`.

    Attributes
    ----------
    began : it began its tiles.
    computed : it had computed them.
    all_computed : all members had computed theirs.
    updated : it had updated its pieces.
    """

    began: float
    computed: float
    all_computed: float
    updated: float


class StepRing:
    """The coordinator's side of the ring.

    Parameters
    ----------
    arrays : the shared arrays, with those of `array_plan.planned_specs`.
    words : the shared words of the members.

    Attributes
    ----------
    capacity : the number of steps in the ring.
    """

    KERNELS = (step_ring.write_word, step_ring.last_complete)

    def __init__(self, arrays: Mapping[str, Array], words: NDArray[np.int64]) -> None:
        self._arrays, self._words = arrays, words
        self._first_step = self._num_members = 0
        self._num_steps: Counter[int] = Counter()  # by number of examples
        self.capacity = len(arrays["steps.numbers"])

    def open(self, first_step: int, num_members: int) -> None:
        """Begin a series of steps of `num_members` workers, which have not yet received their commands."""
        self._first_step, self._num_members = first_step, num_members
        self._num_steps.clear()
        self._words[:] = 0
        for member in range(num_members):
            place = step_ring.words_of(member)
            self._words[place : place + step_ring.REFUSED] = first_step - 1
        self._write(step_ring.PLANNED, first_step - 1)

    @property
    def completed(self) -> int:
        """The last complete step: its results can be read."""
        last: int = step_ring.last_complete(self._words, self._num_members)
        return last

    @property
    def awaits_plan(self) -> bool:
        """Whether the members have made all planned steps, and are to wait for more."""
        words = self._words
        is_open = not (words[step_ring.CLOSED] or words[step_ring.ABANDONED])
        return is_open and bool(self.completed >= words[step_ring.PLANNED])

    def reports(self) -> list[list[int]]:
        """Return how far each member is: the last steps that it updated and computed."""
        places = (step_ring.words_of(member) for member in range(self._num_members))
        return [self._words[place : place + step_ring.REFUSED][::-1].tolist() for place in places]

    def plan(self, steps: Sequence[PlannedStep]) -> None:
        """Add the next steps; the results of the steps that are `capacity` before them have been read."""
        if not steps:
            return
        numbers, indices, coefficients = (
            self._arrays[f"steps.{name}"] for name in ("numbers", "indices", "coefficients")
        )
        with np.errstate(over="ignore"):  # such a step is refused, because parameters are infinite then
            for step, operation, epoch, indices_N, coefficients_of_step in steps:
                slot, num_examples = step % self.capacity, len(indices_N)
                self._num_steps[num_examples] += 1
                numbers[slot] = num_examples, epoch, operation
                indices[slot, :num_examples] = indices_N
                coefficients[slot] = coefficients_of_step
        self._write(step_ring.PLANNED, steps[-1].step)

    def close(self) -> None:
        """Let the series end after the last planned step."""
        self._write(step_ring.CLOSED, int(self._words[step_ring.PLANNED]))

    def abandon(self) -> None:
        """Let all members leave the series."""
        self._write(step_ring.ABANDONED, 1)

    def results(self, step: int) -> dict[str, Array]:
        """Return examples, losses and predictions of a completed step; valid until the ring has gone round."""
        slot = step % self.capacity
        num_examples = self._arrays["steps.numbers"][slot, 0]
        return {name: self._arrays[f"steps.{name}"][slot, :num_examples] for name in Results._fields}

    def finished_at(self, step: int) -> float:
        """Return when the first member finished a complete step; `time.monotonic`."""
        return StepTimes(*self._arrays["steps.times"][step % self.capacity].tolist()).updated

    def num_tiles(self, member: int, tiling: Tiling) -> int:
        """Return the number of tiles of a member in all planned steps."""
        num_tiles = 0
        for num_examples, num_steps in self._num_steps.items():
            for first, last in tiling.shards(0, num_examples, self._num_members)[member : member + 1]:
                num_tiles += num_steps * tiling.num_tiles(last - first)
        return num_tiles

    def end(self) -> int:
        """Return the last complete step; the parameters are then its parameters. All members have left the series."""
        last = self.completed
        if step_ring.parameters_row(last, self._first_step) == 1:
            self._arrays["parameters"][:] = self._arrays["steps.parameters"]
        return last

    def _write(self, place: int, number: int) -> None:
        step_ring.write_word(self._words, place, number)


class StepMember:
    """A worker's side of the ring.

    Parameters
    ----------
    computation : the network, the arrays and the tiling.
    computer : computes the tiles.
    words : the shared words of the members.
    """

    KERNELS = (
        step_ring.await_plan,
        step_ring.meet,
        step_ring.write_word,
        planned_update.update_pieces_ahead,
    )

    def __init__(self, computation: Computation, computer: TileComputer, words: NDArray[np.int64]) -> None:
        network, arrays, groups = computation.network, computation.arrays, computation.groups
        assert groups is not None
        self._arrays, self._words, self._computer = arrays, words, computer
        self._tiling = computation.tiling
        self._parameters = arrays["parameters"], arrays["steps.parameters"]
        self._moments = tuple(zip(arrays["steps.first_moments"], arrays["steps.second_moments"], strict=True))
        self._numbers = arrays["steps.numbers"]
        self._first_step = 1
        self._pieces = update_rows(network, groups, arrays)
        self._gradient_K = np.zeros(network.tile_sums.size, np.float32)
        self._times: list[float] = []  # those of `StepTimes` in the current step so far
        self._shards = functools.lru_cache(maxsize=4)(functools.partial(_shards, computation.tiling))
        self._piece_range = functools.lru_cache(maxsize=4)(functools.partial(_piece_range, network, groups))

    def carry_out(self, command: StepsCommand, is_wanted: Callable[[], bool]) -> None:
        """Make the steps of a series, until it ends.

        Parameters
        ----------
        command : the series.
        is_wanted : called during long waits and between the parts of a shard; if it returns False, the series ends.
        """
        self._first_step = command.first_step
        action, step = step_ring.AWAIT_PLAN, command.first_step
        while action != step_ring.LEFT:
            action, step = step_ring.after(action, step, self._succeeds(action, step, command, is_wanted))

    def _succeeds(self, action: int, step: int, command: StepsCommand, is_wanted: Callable[[], bool]) -> bool:
        """Do what `step_ring.after` asks for; return whether that succeeded."""
        words, member, num_members = self._words, command.member, command.num_members
        if action == step_ring.AWAIT_PLAN:
            return self._wait(is_wanted, step_ring.await_plan, words, step)
        if action in step_ring.REPORTS:
            return self._wait(is_wanted, step_ring.meet, words, member, num_members, step_ring.REPORTS[action], step)
        if action == step_ring.COMPUTE:
            self._compute(step, member, num_members, is_wanted)
        elif action == step_ring.UPDATE:
            return self._update(step, member, num_members)
        else:
            step_ring.write_word(words, step_ring.words_of(member) + step_ring.REFUSED, step)
        return True

    def _compute(self, step: int, member: int, num_members: int, is_wanted: Callable[[], bool]) -> None:
        """Compute the member's tiles."""
        began, arrays, slot = time.monotonic(), self._arrays, self._slot(step)
        num_examples, epoch, operation = self._numbers[slot].tolist()
        shard = self._shards(num_examples, num_members, member, operation, epoch)
        if shard is not None:
            rows = arrays["steps.indices"][slot], arrays["steps.losses"][slot], arrays["steps.predictions"][slot]
            self._computer.carry_out(shard, is_wanted, Results(*rows), self._parameters_after(step - 1))
        self._times = [began, time.monotonic()]
        kill_point("worker: before it reports its tiles")

    def _update(self, step: int, member: int, num_members: int) -> bool:
        """Write the new values of the member's pieces; return whether all are finite."""
        self._times.append(time.monotonic())
        arrays, slot = self._arrays, self._slot(step)
        num_examples = int(self._numbers[slot, 0])
        is_finite: bool = planned_update.update_pieces_ahead(
            self._pieces, *self._piece_range(num_examples, num_members, member), num_examples,
            arrays["steps.losses"][slot], self._tiling.tile_size, self._tiling.block_size, arrays["tile_sums"],
            arrays["steps.coefficients"][slot], self._gradient_K,
            *self._moments[step_ring.moments_row(step - 1)], self._parameters_after(step - 1),
            *self._moments[step_ring.moments_row(step)], self._parameters_after(step),
        )  # fmt: skip
        if member == 0:
            arrays["steps.times"][slot] = *self._times, time.monotonic()
        kill_point("worker: before it reports its pieces")
        return is_finite

    def _parameters_after(self, step: int) -> Array:
        return self._parameters[step_ring.parameters_row(step, self._first_step)]

    def _slot(self, step: int) -> int:
        return step % len(self._numbers)

    def _wait(self, is_wanted: Callable[[], bool], look: Kernel, *arguments: Any) -> bool:
        """Return whether what `look` polls for has come; False: leave the series."""
        found: int
        while (found := look(*arguments, NUM_YIELDS)) == step_ring.NOT_YET:
            if not is_wanted():
                return False
            time.sleep(NAP_SECONDS)
        return found == step_ring.ARRIVED


def _shards(
    tiling: Tiling, num_examples: int, num_members: int, member: int, operation: int, epoch: int
) -> Command | None:
    """Return the member's command of a step with `num_examples`; None if nothing is left for it."""
    shards = tiling.shards(0, num_examples, num_members)
    if member >= len(shards):
        return None
    return Command.of_step(operation, *shards[member], epoch)


def _piece_range(
    network: Network, groups: ParameterGroups, num_examples: int, num_members: int, member: int
) -> tuple[int, int]:
    return share_pieces(network, groups, num_examples, num_members)[member]
