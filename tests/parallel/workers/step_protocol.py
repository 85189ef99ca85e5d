"""The protocol of `kernels.ipc.step_ring`, read from its sources for a model, with planted bugs if wanted.

The kernels run as Python functions. Each of their accesses to a word can be a point at which another process goes on:
`Access` suspends the function there, and runs it again later with the values that it has already read.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from partrain.kernels.ipc import step_ring
from partrain.parallel.workers import planned_steps

ALL = 1 << 30


class Edit(NamedTuple):
    """Replaces `old`, which occurs once in the source of a module, by `new`."""

    module: ModuleType
    old: str
    new: str


class SuspendedError(Exception):
    """A kernel has made as many accesses as it may."""


class Access:
    """Atomic operations that suspend their caller.

    Attributes
    ----------
    log : what the current call has loaded; None for a store.
    budget : the number of further accesses.
    recorded : if it is a list, stores are appended to it and not made.
    num_stores : the number of stores so far.
    """

    def __init__(self) -> None:
        self.log: list[int | None] = []
        self._position = 0
        self.budget = ALL
        self.recorded: list[tuple[int, int]] | None = None
        self.num_stores = 0

    def begin(self, log: Sequence[int | None] = (), budget: int = ALL) -> None:
        """Begin a call, or go on with one that has logged `log`."""
        self.log, self._position, self.budget = list(log), 0, budget

    def load(self, words: Any, index: int) -> int:
        if self._is_new():
            self.log.append(int(words[index]))
        value = self.log[self._position - 1]
        assert value is not None
        return value

    def store(self, words: Any, index: int, number: int) -> None:
        if self._is_new():
            self.log.append(None)
            if self.recorded is not None:
                self.recorded.append((index, number))
            elif words[index] != number:
                words[index] = number
                self.num_stores += 1

    def _is_new(self) -> bool:
        self._position += 1
        if self._position <= len(self.log):
            return False
        if self.budget == 0:
            raise SuspendedError
        self.budget -= 1
        return True


class Protocol:
    """The modules `step_ring` and `planned_steps`, with edited sources."""

    def __init__(self, edits: Sequence[Edit] = ()) -> None:
        self.access = Access()
        ring = ModuleType("step_ring_of_the_model")
        ring.__dict__.update(
            inlined=lambda function: function,
            kernel=lambda signature: lambda function: function,
            atomic_load=self.access.load,
            atomic_store=self.access.store,
            relax_processor=lambda: None,
            yield_processor=lambda: None,
        )
        imports = ("from partrain.kernels.compiler.flags import", "from partrain.kernels.ipc.atomics import")
        _execute(step_ring, edits, imports, ring)
        steps = ModuleType("planned_steps_of_the_model")
        steps.__dict__["step_ring"] = ring
        _execute(planned_steps, edits, ("from partrain.kernels.ipc import step_ring",), steps)
        self.ring: Any = ring
        self.make_ring: Callable[..., planned_steps.StepRing] = steps.StepRing


def _execute(module: ModuleType, edits: Sequence[Edit], imports: tuple[str, ...], result: ModuleType) -> None:
    source = inspect.getsource(module)
    for edit in edits:
        if edit.module is module:
            assert source.count(edit.old) == 1, f"{edit.old!r} must occur once in {module.__name__}"
            source = source.replace(edit.old, edit.new)
    source = "\n".join(line for line in source.split("\n") if not line.startswith(imports))
    exec(compile(source, result.__name__, "exec"), result.__dict__)
