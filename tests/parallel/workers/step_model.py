"""A model of workers that make steps by themselves: the real protocol, on versions instead of numbers.

A parameter, moment, tile or result of step s has the value s; while it is written it is TORN, and a refused one is BAD.
So a process that reads a mixture, or too early or late, reads another version than it expects. A write takes two
transitions, and each access to a word one; between any two, any other process may go on or die.

The coordinator is that of `training.step.step_series` and `WorkerPool.run_steps`: it plans, reads results of completed
steps, closes the series; after a death it abandons it, and begins the next series with the step after the last one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from partrain.kernels.ipc.step_ring import size
from partrain.parallel.workers.commands import Operation
from partrain.parallel.workers.planned_steps import PlannedStep
from tests.parallel.workers.step_protocol import ALL, Protocol, SuspendedError

TORN, BAD = -1, -2
SLOT_ARRAYS = ("steps.numbers", "steps.indices", "steps.coefficients")
# Transitions that may happen, but on which nothing may depend.
FAULTS = frozenset({"die", "refuse", "raise", "close early"})
Choice = tuple[str, int]


class ViolationError(AssertionError):
    """The protocol did something wrong."""


class Case(NamedTuple):
    """The size of a model, and how much may go wrong in it."""

    num_members: int = 2
    num_steps: int = 2
    capacity: int = 2
    num_deaths: int = 1
    num_refusals: int = 0
    num_errors: int = 0
    may_close_early: bool = False


class _Recorder:
    """A shared array that takes note of its writes."""

    def __init__(self, name: str, length: int, operations: list[tuple[Any, ...]]) -> None:
        self._name, self._length, self._operations = name, length, operations

    def __len__(self) -> int:
        return self._length

    def __setitem__(self, key: Any, value: object) -> None:
        self._operations.append((self._name, key[0] if isinstance(key, tuple) else key))


class StepModel:
    """The state of members and coordinator, and its transitions."""

    def __init__(self, case: Case, protocol: Protocol) -> None:
        self.case, self.protocol = case, protocol
        num, self._is_faultless = case.num_members, True
        self._operations: list[tuple[Any, ...]] = []
        self._ring_words = np.zeros(size(num), np.int64)
        arrays: Any = {name: _Recorder(name, case.capacity, self._operations) for name in SLOT_ARRAYS}
        self._vectors = {name: np.zeros(num, np.int64) for name in ("parameters", "steps.parameters")}
        self._ring = protocol.make_ring(
            arrays | self._vectors | {"steps.times": np.zeros((case.capacity, 4))}, self._ring_words
        )
        self.deaths, self.refusals, self.errors = case.num_deaths, case.num_refusals, case.num_errors
        self.words = [0] * size(num)
        self.tiles = [0] * num
        self.parameters = [[0] * num, [TORN] * num]
        self.moments = [[0] * num, [TORN] * num]
        self.losses = [[TORN] * num for _ in range(case.capacity)]
        self.slots = [[TORN] * len(SLOT_ARRAYS) for _ in range(case.capacity)]
        self.is_over = False
        self.blocked = [-1] * num
        self._open(1)

    def _open(self, first_step: int) -> None:
        num, ring = self.case.num_members, self.protocol.ring
        self._ring_words[:] = self.words
        self.protocol.access.begin()
        self._ring.open(first_step, num)
        self.words = self._ring_words.tolist()
        self.first_step = first_step
        self.members: list[tuple[Any, ...]] = [(ring.AWAIT_PLAN, first_step, 0, ())] * num
        self.alive = [True] * num
        self.planned = self.reported = first_step - 1
        self.is_closed = self.is_abandoned = self.has_raised = False
        self.refused = 0
        self._is_faultless = True
        self.pending: list[tuple[Any, ...]] = []

    # The state as a value.
    def save(self) -> tuple[Any, ...]:
        return (
            tuple(self.words), tuple(self.tiles), tuple(map(tuple, self.parameters)),
            tuple(map(tuple, self.moments)), tuple(map(tuple, self.losses)), tuple(map(tuple, self.slots)),
            tuple(self.members), tuple(self.alive), tuple(self.pending), self.first_step, self.planned, self.reported,
            self.is_closed, self.is_abandoned, self.has_raised, self.refused, self._is_faultless,
            self.deaths, self.refusals, self.errors, self.is_over,
        )  # fmt: skip

    def restore(self, state: tuple[Any, ...]) -> None:
        (words, tiles, parameters, moments, losses, slots, members, alive, pending, self.first_step, self.planned,
         self.reported, self.is_closed, self.is_abandoned, self.has_raised, self.refused, self._is_faultless,
         self.deaths, self.refusals, self.errors, self.is_over) = state  # fmt: skip
        self.words, self.tiles = list(words), list(tiles)
        self.parameters, self.moments, self.losses, self.slots = (
            list(map(list, rows)) for rows in (parameters, moments, losses, slots)
        )
        self.members, self.alive, self.pending = list(members), list(alive), list(pending)

    # What can happen.
    def choices(self) -> list[Choice]:
        if self.is_over:
            return []
        ring, found = self.protocol.ring, list[Choice]()
        stores = self.protocol.access.num_stores
        is_running = False
        for member, (action, _, half, _) in enumerate(self.members):
            if action == ring.LEFT or not self.alive[member]:
                continue
            is_running = True
            if self.blocked[member] != stores:
                found.append(("go on", member))
            if self.deaths:
                found.append(("die", member))
            if self.refusals and action == ring.UPDATE and half:
                found.append(("refuse", member))
        if self.pending:
            found.append(("write", 0))
        elif not is_running:
            found.append(("end", 0))
        else:
            found += self._choices_of_coordinator()
        return found

    def _choices_of_coordinator(self) -> list[Choice]:
        case, found = self.case, list[Choice]()
        if self.has_raised:  # it waits until all members have left
            return found
        if not self.is_closed:
            if most := min(case.num_steps, self.reported + case.capacity) - self.planned:
                found += [("plan", number) for number in sorted({1, most})]
            if self.planned == case.num_steps:
                found.append(("close", 0))
            elif case.may_close_early and self.planned >= self.first_step:
                found.append(("close early", 0))
        if self.reported < min(self._completed(), self.planned - self.is_closed):
            found.append(("report", 0))
        if not self.is_abandoned:
            if not all(self.alive):
                found.append(("abandon", 0))
            if self.errors:
                found.append(("raise", 0))
        return found

    def _completed(self) -> int:
        self.protocol.access.begin()
        completed: int = self.protocol.ring.last_complete(self.words, self.case.num_members)
        return completed

    def take(self, choice: Choice, budget: int = 1) -> None:
        """Make a transition; a member that looks at words makes up to `budget` accesses."""
        kind, member = choice
        if kind == "go on":
            self._go_on(member, budget, is_finite=True)
        elif kind == "refuse":
            self.refusals -= 1
            self.refused, self._is_faultless = self.members[member][1], False
            self._go_on(member, budget, is_finite=False)
        elif kind == "die":
            self.deaths -= 1
            self.alive[member] = self._is_faultless = False
        elif kind == "end":
            self._end()
        elif kind == "write":
            self._write(self.pending.pop(0))
        elif kind == "report":
            self._check_results(self.reported + 1)
            self.pending = [("reported", 0, 0)]
        else:
            self._begin(kind, member)

    # The coordinator.
    def _begin(self, kind: str, num_steps: int) -> None:
        ring, access, operations = self._ring, self.protocol.access, self._operations
        self._ring_words[:] = self.words
        operations.clear()
        access.recorded = operations  # type: ignore[assignment]
        access.begin()
        if kind == "plan":
            steps = range(self.planned + 1, self.planned + num_steps + 1)
            self.planned = steps[-1]
            ring.plan([PlannedStep(step, Operation.GRADIENTS, 0, np.zeros(1, np.int64), np.zeros(1)) for step in steps])
        elif kind in ("close", "close early"):
            self.is_closed = True
            ring.close()
        else:
            self.has_raised = kind == "raise"
            self.errors -= self.has_raised
            self.is_abandoned, self._is_faultless = True, False
            ring.abandon()
        access.recorded = None
        # The k-th write to an array of the ring is that of the k-th step.
        places = [place for place, _ in operations]
        first = self.planned - num_steps + 1
        self.pending = [
            (place, number, first + places[:k].count(place)) for k, (place, number) in enumerate(operations)
        ]

    def _write(self, operation: tuple[Any, ...]) -> None:
        place, number, step = operation
        if place == "reported":
            self._check_results(self.reported + 1)
            self.reported += 1
        elif isinstance(place, str):
            self.slots[number][SLOT_ARRAYS.index(place)] = step
        else:
            self.protocol.access.begin()
            self.protocol.access.store(self.words, place, number)

    def _check_results(self, step: int) -> None:
        slot = step % self.case.capacity
        self._expect(f"results of step {step}", [*self.losses[slot], *self.slots[slot]], step)

    def _end(self) -> None:
        num, words = self.case.num_members, self.protocol.ring
        completed = self._completed()
        for vector, row in zip(self._vectors.values(), self.parameters, strict=True):
            vector[:] = row
        self.protocol.access.begin()
        self._ring.open(self.first_step, num)
        self._ring_words[:] = self.words
        last = self._ring.end()
        # In steps that the coordinator makes itself, only the first vector changes.
        self.parameters = [self._vectors["parameters"].tolist(), [TORN] * num]
        updated = min(self.words[words.words_of(member) + words.UPDATED] for member in range(num))
        least = max(completed, self.reported, updated - (updated == self.refused))
        if not least <= last <= self.planned:
            raise ViolationError(f"the last complete step is {last}, but at least {least} are complete")
        if self._is_faultless and last != self.planned:
            raise ViolationError(f"nothing failed, but the series ended with step {last} of {self.planned}")
        if self.refused and last >= self.refused:
            raise ViolationError(f"step {self.refused} was refused, and the series ended with step {last}")
        self._expect("parameters at the end", self.parameters[0], last)
        self._expect("moments at the end", self.moments[words.moments_row(last)], last)
        for step in range(self.reported + 1, last + 1):
            self._check_results(step)
        if last == self.case.num_steps:
            self.is_over = True
        else:
            self._open(last + 1)

    # A member.
    def _go_on(self, member: int, budget: int, *, is_finite: bool) -> None:
        ring = self.protocol.ring
        action, step, half, log = self.members[member]
        if action == ring.AWAIT_PLAN or action == ring.REFUSE or action in ring.REPORTS:
            found = self._access(member, action, step, log, budget)
            if found is None:
                return
            succeeded = found == ring.ARRIVED
        else:
            self._compute(ring, member, action, step, half, is_finite=is_finite)
            if not half:
                self.members[member] = (action, step, 1, ())
                return
            succeeded = is_finite
        self.members[member] = (*ring.after(action, step, succeeded), 0, ())

    def _access(self, member: int, action: int, step: int, log: tuple[Any, ...], budget: int) -> int | None:
        """Go on with looking at words; return what has been found, or None if there is more to look at."""
        ring, access, words, found = self.protocol.ring, self.protocol.access, self.words, -1
        access.begin(log, budget)
        stores = access.num_stores
        try:
            if action == ring.AWAIT_PLAN:
                found = ring.await_plan(words, step, 0)
            elif action == ring.REFUSE:
                ring.write_word(words, ring.words_of(member) + ring.REFUSED, step)
                found = ring.ARRIVED
            else:
                found = ring.meet(words, member, self.case.num_members, ring.REPORTS[action], step, 0)
        except SuspendedError:
            self.members[member] = (action, step, 0, tuple(access.log))
            return None
        if found == ring.NOT_YET:
            self.members[member] = (action, step, 0, ())
            if not log and stores == access.num_stores and budget == ALL:
                self.blocked[member] = stores  # it looked at everything at once: nothing changes before the next store
            return None
        return int(found)

    def _compute(self, ring: Any, member: int, action: int, step: int, half: int, *, is_finite: bool) -> None:
        """Make the first or second half of a computation: read and tear, or read again and write."""
        slot, value = step % self.case.capacity, step if half else TORN
        old, new = self.moments[ring.moments_row(step - 1)], self.moments[ring.moments_row(step)]
        current, following = (
            self.parameters[ring.parameters_row(number, self.first_step)] for number in (step - 1, step)
        )
        self._expect("plan", self.slots[slot], step)
        if action == ring.COMPUTE:
            self._expect("parameters", current, step - 1)
            self.tiles[member] = self.losses[slot][member] = value
        else:
            self._expect("tiles", self.tiles, step)
            self._expect("losses", self.losses[slot], step)
            self._expect("current parameters and moments", [current[member], old[member]], step - 1)
            following[member] = new[member] = value if is_finite else BAD

    def _expect(self, name: str, values: list[int], version: int) -> None:
        if values.count(version) != len(values):
            raise ViolationError(f"the {name} must be of step {version}: {values}")
