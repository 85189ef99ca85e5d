"""Compares recomputed metrics and states with those of a run, as they are computed.

Both classes take the place of what stores them during a training run, and raise VerificationFailed at the first
difference.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.errors import VerificationFailed
from partrain.store.checkpoint import Checkpoint, CorruptCheckpoint, load
from partrain.store.checkpoint_directory import CheckpointDirectory
from partrain.training.metrics_logger import DIGEST_METRIC
from partrain.training.resume import changed_values

# Epsilon has no fixed bits: SciPy's Fourier transforms round differently on another processor. This fraction of epsilon
# is far more than the rounding changes.
EPSILON, EPSILON_TOLERANCE = ("privacy/epsilon", "epsilon"), 1e-6

# The fields of a row that depend on the speed of the machine.
TIMES = ("time_s", "examples_per_s")
# The fields of summary.json that depend on the machine, and on the number of processes.
MACHINE = ("examples_per_second", "workers", "ranks", "peak_memory_bytes", "format")

Row = dict[str, Any]


class MetricsComparison:
    """Compares rows of metrics with a run's.

    Parameters
    ----------
    name : the name of the run's file, for messages.
    rows : the rows that the recomputed steps must make, in their order.

    Attributes
    ----------
    num_equal : the number of rows that were equal so far.
    right_step : the last step whose row has an equal digest of the parameters; 0 if there is none.
    reached_step : the step of the last recomputed row.
    """

    def __init__(self, name: str, rows: Sequence[Row]) -> None:
        self._name, self._rows = name, rows
        self.num_equal = self.right_step = self.reached_step = 0

    def reopen(self) -> bool:
        """Return False: there is no file that another process could replace."""
        return False

    def flush_durably(self) -> None:
        """Do nothing: nothing is written."""

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def append(self, row: Row) -> None:
        """Compare the next recomputed row.

        Raises
        ------
        VerificationFailed
            The run's row differs, or the run has no such row.
        """
        self.reached_step = step = row["step"]
        if self.num_equal == len(self._rows) or self._rows[self.num_equal]["step"] > step:
            raise VerificationFailed(f"{self._name}: step {step}: a line with {_names(row)} is missing")
        stored = self._rows[self.num_equal]
        if stored["step"] < step:
            raise self._not_computed()
        for difference in metric_differences(stored, row):
            raise VerificationFailed(f"{self._name}: step {step}: {difference}")
        self.num_equal += 1
        if DIGEST_METRIC in row:
            self.right_step = step

    def require_no_more(self) -> None:
        """Check that all rows were compared; called after the last step.

        Raises
        ------
        VerificationFailed
            The run has another row.
        """
        if self.num_equal < len(self._rows):
            raise self._not_computed()

    def _not_computed(self) -> VerificationFailed:
        row = self._rows[self.num_equal]
        return VerificationFailed(f"{self._name}: step {row['step']}: training makes no line with {_names(row)} here")


def _names(row: Row) -> str:
    return ", ".join(name for name in row if name not in ("step", "epoch", "examples", *TIMES)) or "no metrics"


def metric_differences(stored: Row, computed: Row) -> Iterator[str]:
    """Yield a line for each value that differs, except times."""
    for name in sorted((stored.keys() | computed.keys()) - set(TIMES)):
        before, now = (json.dumps(values.get(name)) for values in (stored, computed))
        if before != now and not (name in EPSILON and is_same_epsilon(stored.get(name), computed.get(name))):
            yield f"{name} is {before}, recomputed {now}"


def result_differences(stored: Row, computed: Row) -> Iterator[str]:
    """Yield a line for each result in summary.json that differs, except those that depend on the machine."""
    names = [name for name in sorted(stored.keys() | computed.keys()) if not name.endswith("_seconds")]
    for name in names:
        match stored.get(name), computed.get(name):
            case {}, {}:
                yield from (f"{name}: {line}" for line in metric_differences(stored[name], computed[name]))
            case before, now if name not in MACHINE:
                yield from metric_differences({name: before}, {name: now})


def is_same_epsilon(stored: object, computed: object) -> bool:
    """Return whether both are numbers that differ by rounding errors at most."""
    if not isinstance(stored, int | float) or not isinstance(computed, int | float):
        return False
    return math.isclose(stored, computed, rel_tol=EPSILON_TOLERANCE)


class StateComparison:
    """Compares states with a run's checkpoints.

    Parameters
    ----------
    checkpoints : the run's checkpoints.
    steps : the steps of the checkpoints to compare.

    Attributes
    ----------
    num_equal : the number of checkpoints that were equal so far.
    right_step : the step of the last of them; 0 if there is none.
    reached_step : the step of the last recomputed state.
    """

    def __init__(self, checkpoints: CheckpointDirectory, steps: Sequence[int]) -> None:
        self.checkpoints: CheckpointDirectory | None = checkpoints
        self._directory, self._steps = checkpoints, set(steps)
        self.saved_step: int | None = None
        self.num_equal = self.right_step = self.reached_step = 0

    def is_due(self, step: int, *, is_best: bool) -> bool:
        """Return whether the run has a checkpoint of `step`."""
        return step in self._steps

    def notice_removal(self) -> bool:
        """Return False: no checkpoint is written again."""
        return False

    def save_first(self, state: Checkpoint) -> None:
        """Compare the state that the run starts from."""
        self._compare(state)

    def save(self, step: int, make_state: Callable[[], Checkpoint], *, best_step: int | None, is_last: bool) -> None:
        """Compare the state after `step`, if the run has a checkpoint of it.

        Raises
        ------
        VerificationFailed
            The checkpoint differs, or is damaged.
        """
        if step in self._steps and step != self.saved_step:
            self.saved_step = step
            self._compare(make_state())

    def _compare(self, state: Checkpoint) -> None:
        self.reached_step = state.step
        path = self._directory.path_of(state.step)
        try:
            stored = load(path)
        except (CorruptCheckpoint, OSError) as error:
            raise VerificationFailed(f"{path}: cannot be compared: {error}") from error
        for difference in state_differences(stored, state):
            raise VerificationFailed(f"{path}: {difference}")
        self.num_equal += 1
        self.right_step = state.step


def state_differences(stored: Checkpoint, computed: Checkpoint) -> Iterator[str]:
    """Yield a line for each tensor that differs, and for each field of the metadata.

    Fields that only one of the states has are no difference: versions of partrain add some.
    """
    for name in sorted(stored.tensors.keys() | computed.tensors.keys()):
        if name not in stored.tensors:
            yield f"{name}: is missing"
        elif name not in computed.tensors:
            yield f"{name}: is no tensor of this run"
        elif difference := _first_difference(stored.tensors[name], computed.tensors[name]):
            yield f"{name}{difference}"
    plain = json.loads(json.dumps(computed.metadata))
    common = {k: stored.metadata[k] for k in stored.metadata.keys() & plain.keys()}
    match common.get("privacy"), plain.get("privacy"):
        case {"epsilon": epsilon}, {"epsilon": now} if is_same_epsilon(epsilon, now):
            plain["privacy"]["epsilon"] = epsilon
    for path, before, now in changed_values(common, {k: plain[k] for k in common}):
        yield f"{path} is {json.dumps(before)}, recomputed {json.dumps(now)}"


def _first_difference(stored: NDArray[Any], computed: NDArray[Any]) -> str | None:
    """Return place and values of the first number with other bits, and how many differ; None if all are equal."""
    if (stored.dtype, stored.shape) != (computed.dtype, computed.shape):
        return f": is {stored.dtype} {stored.shape}, recomputed {computed.dtype} {computed.shape}"
    bits = np.dtype(f"u{stored.dtype.itemsize}")
    flat, other = np.ascontiguousarray(stored).ravel(), np.ascontiguousarray(computed).ravel()
    places = np.flatnonzero(flat.view(bits) != other.view(bits))
    if not len(places):
        return None
    index = [int(k) for k in np.unravel_index(places[0], stored.shape)]
    more = f"; {len(places):,} of {flat.size:,} numbers differ" if len(places) > 1 else ""
    return f"{index}: is {flat[places[0]]!s}, recomputed {other[places[0]]!s}{more}"
