"""What a run's directory says of the run, read by somebody else than its writer.

Nothing in the directory is trusted: a run may be of another version, damaged, edited by hand, or be written at this
moment. What cannot be read is told in `notes`, and the rest is used.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from partrain.errors import RunError
from partrain.store import checkpoint
from partrain.store.metrics_log import read_good_metrics
from partrain.store.run_directory import RunDirectory

Row = dict[str, Any]

SPLITS = ("test", "validation", "train")
# Beyond these a file was not written by this program; a few lines of YAML can stand for any number of values.
MOST_CONFIG_BYTES = 1_000_000
MOST_CONFIG_VALUES = 10_000
# A count or a time above this one is no count and no time.
LARGEST_NUMBER = 2.0**63


def number(value: object) -> float | None:
    """Return a number that came out of a file, or None if it is none; NaN and infinity are numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
        return None
    return value


def finite(value: object) -> float | None:
    """Return a number that came out of a file, or None if it is none or not finite."""
    found = number(value)
    return found if found is not None and math.isfinite(found) else None


def part(document: object, *keys: str) -> Any:
    """Return what stands in nested mappings under `keys`, or None."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


@dataclass(frozen=True, eq=False)
class LoggedRun:
    """A run that was logged.

    Attributes
    ----------
    directory : where it is.
    status : running, completed, interrupted or failed, and true also after a crash.
    record : run.json.
    notes : what could not be read, in words; it grows as more is read.
    """

    directory: RunDirectory
    status: str
    record: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    _series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> LoggedRun:
        """Return the run at `path`.

        Raises
        ------
        RunError : it is no run, or run.json is damaged.
        """
        directory = RunDirectory.open(path)
        status = directory.status()
        return cls(directory, status, directory.read_run_json())

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.directory.path.resolve().name

    @property
    def finished(self) -> bool:
        """Whether all its steps are done."""
        return self.status == "completed"

    @property
    def config_name(self) -> str:
        """The configuration's name; of an unusual record, an empty one."""
        found = part(self.record, "identity", "name")
        return found if isinstance(found, str) else ""

    @property
    def started(self) -> datetime | None:
        """When it began; None if that is not recorded."""
        with contextlib.suppress(TypeError, ValueError):
            moment = datetime.fromisoformat(self.record["started"])
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return None

    @property
    def num_ranks(self) -> int | None:
        """On how many ranks of MPI it was trained last; None if without MPI."""
        ranks = self.record.get("ranks")
        return len(ranks) if isinstance(ranks, list) and ranks else None

    @cached_property
    def rows(self) -> list[Row]:
        """The metrics' rows that have a step, in their order."""
        path = self.directory.metrics_path
        try:
            rows, damaged = read_good_metrics(path)
        except OSError as error:
            self.notes.append(f"{path.name} cannot be read: {error.strerror}")
            return []
        good = [row for row in rows if (step := finite(row.get("step"))) is not None and step >= 0]
        foreign = len(damaged) + len(rows) - len(good)
        if foreign:
            where = f", the first is line {damaged[0]}" if damaged else ""
            self.notes.append(f"{path.name}: {foreign} lines are not metrics and are passed over{where}")
        return good

    @cached_property
    def evaluation_rows(self) -> list[Row]:
        """The rows that hold a validation accuracy."""
        return [row for row in self.rows if finite(row.get("validation/accuracy")) is not None]

    @cached_property
    def summary(self) -> dict[str, Any]:
        """summary.json, or nothing where it is missing or older than the metrics."""
        if self.status == "running":
            return {}  # what an earlier session left
        try:
            summary = self.directory.read_summary()
        except RunError as error:
            if self.finished or self.directory.summary_path.exists():
                self.notes.append(str(error))
            return {}
        if self.finished:
            return summary
        steps, logged = finite(summary.get("steps")), self.last("step")
        return summary if steps is not None and (logged is None or steps >= logged) else {}

    @cached_property
    def config(self) -> dict[str, str | float | bool | None]:
        """The resolved configuration, flat: a value for each dotted key."""
        path = self.directory.config_path
        try:
            with open(path, "rb") as file:
                text = file.read(MOST_CONFIG_BYTES + 1)
            if len(text) > MOST_CONFIG_BYTES:
                raise ValueError("is too large")
            mapping = yaml.safe_load(text)
            if not isinstance(mapping, dict):
                raise ValueError("is no mapping")
            return flatten(mapping)
        except OSError as error:
            reason = f"cannot be read: {error.strerror}"
        except (ValueError, RecursionError, yaml.YAMLError) as error:
            reason = f"is damaged: {' '.join(str(error).split())}"
        self.notes.append(f"{path.name} {reason}; what run.json has of it is used")
        with contextlib.suppress(ValueError, RecursionError):
            return flatten(part(self.record, "identity") or {})
        return {}

    @cached_property
    def num_parameters(self) -> int | None:
        """How many parameters the network has, from the newest checkpoint's header."""
        try:
            shapes = checkpoint.newest_shapes(self.directory.checkpoints_path)
        except (RunError, OSError) as error:
            self.notes.append(f"the number of parameters is not known: {error}")
            return None
        if shapes is None:
            return None
        return sum(math.prod(shape) for name, shape in shapes.items() if not name.startswith("adam."))

    @cached_property
    def evaluations(self) -> dict[str, dict[str, Any]]:
        """What `evaluate` wrote, by split; only what is sound in itself."""
        found = {}
        for split in SPLITS:
            if self.directory.evaluation_path(split).exists():
                try:
                    evaluation = self.directory.read_evaluation(split)
                    _check_evaluation(evaluation)
                    found[split] = evaluation
                except RunError as error:
                    self.notes.append(str(error))
                except ValueError as error:
                    self.notes.append(f"{self.directory.evaluation_path(split).name} is not used: {error}")
        return found

    def series(self, name: str) -> list[tuple[float, float]]:
        """Return step and value of each row that has the metric; a value may be NaN or infinite."""
        if name not in self._series:
            pairs = ((row["step"], number(row[name])) for row in self.rows if name in row)
            self._series[name] = [(step, value) for step, value in pairs if value is not None]
        return self._series[name]

    def last(self, name: str) -> float | None:
        """Return the metric's last value."""
        series = self.series(name)
        return series[-1][1] if series else None

    def best(self, name: str, *, highest: bool) -> tuple[float, float] | None:
        """Return step and value of the metric's best value, of equal ones the earliest; None without a finite one."""
        finite_ones = [(step, value) for step, value in self.series(name) if math.isfinite(value)]
        if not finite_ones:
            return None
        return max(finite_ones, key=lambda pair: pair[1] if highest else -pair[1])

    def total(self, key: str, metric: str) -> float | None:
        """Return a number of the summary, or where there is none, the last value of a metric."""
        found = number(self.summary.get(key))
        return found if found is not None else self.last(metric)


def flatten(mapping: dict[str, Any]) -> dict[str, str | float | bool | None]:
    """Return the values of nested mappings and lists by dotted key; places in lists are counted from 0.

    Raises
    ------
    ValueError : there are too many values.
    """
    flat: dict[str, str | float | bool | None] = {}

    def walk(value: object, key: str) -> None:
        if len(flat) > MOST_CONFIG_VALUES:
            raise ValueError("has too many values")
        entries: Iterable[tuple[object, object]] = ()
        if isinstance(value, dict) and value:
            entries = value.items()
        elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
            entries = enumerate(value)
        elif isinstance(value, str | int | float | bool | None):
            flat[key] = value
        else:
            flat[key] = str(value)[:1000]
        for name, item in entries:
            walk(item, f"{key}.{name}" if key else str(name))

    walk(mapping, "")
    return flat


def _check_evaluation(evaluation: dict[str, Any]) -> None:
    """Raise a ValueError unless what the evaluation says of each class and each example fits together."""
    classes = evaluation.get("classes")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("it names no classes")
    for key in ("recall", "precision"):
        shares = evaluation.get(key)
        if not isinstance(shares, list) or len(shares) != len(classes):
            raise ValueError(f"it has no {key} for each class")
    confusion = evaluation.get("confusion")
    if confusion is not None and not (
        isinstance(confusion, list)
        and len(confusion) == len(classes)
        and all(isinstance(row, list) and len(row) == len(classes) for row in confusion)
        and all(isinstance(count, int) and 0 <= count < LARGEST_NUMBER for row in confusion for count in row)
    ):
        raise ValueError("its confusion matrix is no square of numbers")
    for key in ("labels", "predictions"):
        values = evaluation.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, int) for value in values):
            raise ValueError(f"its {key} are no list of classes")
    if len(evaluation.get("labels", [])) != len(evaluation.get("predictions", [])):
        raise ValueError("it has not as many labels as predictions")
