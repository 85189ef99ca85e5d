"""A run as its directory records it, read without trusting the directory.

The run may come from another version, be damaged or edited by hand, or be in training at this moment. Parts that
cannot be read are reported in `notes`, and the rest is used.
"""

from __future__ import annotations

import contextlib
import math
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from partrain.config.yaml_loader import load_yaml
from partrain.data.split_name import SplitName
from partrain.errors import ConfigError, ResourceError, RunError
from partrain.kernels.bits_version import bits_version_of
from partrain.store.checkpoint import is_parameter
from partrain.store.metrics_log import read_good_metrics
from partrain.store.run_directory import RunDirectory
from partrain.store.run_notes import read_notes

Row = dict[str, Any]

# This program writes no larger ones. YAML aliases can make a few lines expand to any number of values.
MAX_CONFIG_BYTES = 1_000_000
MAX_CONFIG_VALUES = 10_000
MAX_KEY_CHARACTERS = 1_000
# The bound of float32. Larger finite numbers come from no training, and their squares would exceed every float.
LARGEST_NUMBER = 2.0**128

# The text of a list: whole lists of numbers up to MAX_KEY_CHARACTERS, but never an expansion of nested aliases.
_BOUNDED = reprlib.Repr()
_BOUNDED.maxlist = _BOUNDED.maxstring = _BOUNDED.maxother = MAX_KEY_CHARACTERS


def number(value: object) -> float | None:
    """Return a value from a file if it is a plausible number, which may be NaN or infinite; otherwise None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return None if LARGEST_NUMBER < abs(value) < math.inf else value


def finite(value: object) -> float | None:
    """Return a value from a file if it is a finite number; otherwise None."""
    found = number(value)
    return found if found is not None and math.isfinite(found) else None


def is_step(value: object) -> bool:
    """Return whether a value from a file is the number of a step."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def text(value: object) -> str | None:
    """Return a value from a file if it is a text; otherwise None."""
    return value if isinstance(value, str) else None


def nested(document: object, *keys: str) -> Any:
    """Return the value under `keys` in nested mappings, or None."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


@dataclass(frozen=True, eq=False)
class LoggedRun:
    """A run and its log.

    Attributes
    ----------
    directory : the run's directory.
    status : running, completed, interrupted or failed; correct after a crash as well.
    record : the content of run.json.
    notes : messages about parts that could not be read; reading more of the run adds to them.
    """

    directory: RunDirectory
    status: str
    record: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    _series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> LoggedRun:
        """Open the run at `path`.

        Raises
        ------
        RunError
            The directory is not a run, or its run.json is damaged.
        """
        directory = RunDirectory.open(path)
        status = directory.status()
        return cls(directory, status, directory.read_run_json())

    @property
    def name(self) -> str:
        """The name of the directory."""
        return self.directory.path.resolve().name

    @property
    def finished(self) -> bool:
        """Whether the training is complete."""
        return self.status == "completed"

    @property
    def config_name(self) -> str:
        """The name in the configuration; empty if the record lacks it."""
        return text(nested(self.record, "identity", "name")) or ""

    @property
    def started(self) -> datetime | None:
        """The start of the run, in UTC; None if it is not recorded."""
        with contextlib.suppress(LookupError, TypeError, ValueError, OverflowError):
            moment = datetime.fromisoformat(self.record["started"])
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        return None

    @property
    def bits_version(self) -> int | None:
        """The version of the bits; None for an imported run, which partrain did not train."""
        version = bits_version_of(self.record)
        is_version = isinstance(version, int) and not isinstance(version, bool) and 0 < version < 2**31
        return version if is_version and "imported" not in self.record else None

    @property
    def num_ranks(self) -> int | None:
        """The number of MPI ranks of the last session; None without MPI."""
        ranks = self.record.get("ranks")
        return len(ranks) if isinstance(ranks, list) and ranks else None

    @cached_property
    def rows(self) -> list[Row]:
        """The rows of the metrics that have a step, in order."""
        path = self.directory.metrics_path
        try:
            rows, damaged = read_good_metrics(path)
        except RunError as error:
            self.notes.append(str(error))
            return []
        except OSError as error:
            self.notes.append(f"{path.name} cannot be read: {error.strerror}")
            return []
        good = [row for row in rows if is_step(row.get("step"))]
        foreign = len(damaged) + len(rows) - len(good)
        if foreign:
            where = f" (first: line {damaged[0]})" if damaged else ""
            self.notes.append(f"{path.name}: {foreign} lines are not metrics and are ignored{where}")
        return good

    @cached_property
    def evaluation_rows(self) -> list[Row]:
        """The rows that have a validation accuracy."""
        return [row for row in self.rows if finite(row.get("validation/accuracy")) is not None]

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json; empty if it is missing or older than the metrics."""
        if self.status == "running":
            return {}  # the file is from an earlier session
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
        """The resolved configuration as a flat mapping from dotted keys to values."""
        path = self.directory.config_path
        try:
            with open(path, "rb") as file:
                content = file.read(MAX_CONFIG_BYTES + 1)
            if len(content) > MAX_CONFIG_BYTES:
                raise ValueError("it is too large")
            mapping = load_yaml(content.decode(), path.name)
            if not isinstance(mapping, dict):
                raise ValueError("it is not a mapping")
            return flatten(mapping)
        except OSError as error:
            reason = f"{path.name} cannot be read: {error.strerror}"
        except (ValueError, RecursionError) as error:
            reason = f"{path.name} is damaged: {error}"
        except ConfigError as error:
            reason = str(error)
        self.notes.append(f"{reason}; the copy in run.json is used")
        with contextlib.suppress(ValueError, RecursionError):
            return flatten(nested(self.record, "identity") or {})
        return {}

    @cached_property
    def user_notes(self) -> list[dict[str, str]]:
        """What the user has noted, the oldest first: each with `time` and `text`."""
        path = self.directory.notes_path
        try:
            return [{"time": note.time, "text": note.text} for note in read_notes(path)]
        except ResourceError as error:
            self.notes.append(str(error))
        except OSError as error:
            self.notes.append(f"{path.name} cannot be read: {error.strerror}")
        return []

    @cached_property
    def num_parameters(self) -> int | None:
        """The number of parameters of the network, from the header of the newest checkpoint."""
        try:
            shapes = self.directory.checkpoints.newest_shapes()
        except (RunError, OSError) as error:
            self.notes.append(f"the number of parameters is unknown: {error}")
            return None
        if shapes is None:
            return None
        size = number(sum(math.prod(shape) for name, shape in shapes.items() if is_parameter(name)))
        return None if size is None else int(size)

    @cached_property
    def evaluations(self) -> dict[str, dict[str, Any]]:
        """The files that `evaluate` wrote, by split; only those that are consistent."""
        found: dict[str, dict[str, Any]] = {}
        for split in reversed(SplitName):
            if self.directory.evaluation_path(split).exists():
                try:
                    evaluation = self.directory.read_evaluation(split)
                    found[split] = _checked_evaluation(evaluation)
                except RunError as error:
                    self.notes.append(str(error))
                except ValueError as error:
                    self.notes.append(f"{self.directory.evaluation_path(split).name} is not used: {error}")
        return found

    def series(self, name: str) -> list[tuple[float, float]]:
        """Return step and value of each row that has the metric; values may be NaN or infinite."""
        if name not in self._series:
            pairs = ((row["step"], number(row[name])) for row in self.rows if name in row)
            self._series[name] = [(step, value) for step, value in pairs if value is not None]
        return self._series[name]

    @cached_property
    def parameter_digests(self) -> dict[int, str]:
        """The logged digests of the parameters by step, with that of the end."""
        logged = ((row["step"], row.get("parameters_sha256")) for row in self.rows)
        end = (self.summary.get("steps"), self.summary.get("parameters_sha256"))
        return {step: digest for step, digest in (*logged, end) if is_step(step) and isinstance(digest, str)}

    def last(self, name: str) -> float | None:
        """Return the last value of the metric."""
        series = self.series(name)
        return series[-1][1] if series else None

    def best(self, name: str, *, highest: bool) -> tuple[float, float] | None:
        """Return step and value of the earliest best value of the metric; None if no value is finite."""
        finite_pairs = [(step, value) for step, value in self.series(name) if math.isfinite(value)]
        if not finite_pairs:
            return None
        return max(finite_pairs, key=lambda pair: pair[1] if highest else -pair[1])

    def total(self, key: str, metric: str) -> float | None:
        """Return a number from the summary, or the last value of a metric if the summary lacks it."""
        value = number(self.summary.get(key))
        return value if value is not None else self.last(metric)


def flatten(mapping: dict[str, Any]) -> dict[str, str | float | bool | None]:
    """Return the values of nested mappings and lists by dotted key; list items have their index as key.

    Raises
    ------
    ValueError
        There are too many values, or too long keys.
    """
    flat: dict[str, str | float | bool | None] = {}
    num_visits = 0

    def walk(value: Any, key: str) -> None:
        nonlocal num_visits
        num_visits += 1
        # Visits, not keys: two paths of nested aliases may have the same key.
        if num_visits > MAX_CONFIG_VALUES or len(key) > MAX_KEY_CHARACTERS:
            raise ValueError("it has too many values or too long keys")
        entries: Iterable[tuple[object, object]] = ()
        if isinstance(value, dict) and value:
            entries = value.items()
        elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
            entries = enumerate(value)
        elif isinstance(value, str | bool | None) or number(value) is not None:
            flat[key] = value
        else:
            flat[key] = _BOUNDED.repr(value)[:MAX_KEY_CHARACTERS]
        for name, item in entries:
            walk(item, f"{key}.{name}" if key else str(name))

    walk(mapping, "")
    return flat


def _checked_evaluation(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Return an evaluation with plausible numbers; raise ValueError unless its parts are consistent with each other."""
    classes = evaluation.get("classes")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("it has no list of class names")
    for key in ("recall", "precision"):
        shares = evaluation.get(key)
        if not isinstance(shares, list) or len(shares) != len(classes):
            raise ValueError(f"it does not have the {key} of each class")
    confusion = evaluation.get("confusion")
    if confusion is not None and not (
        isinstance(confusion, list)
        and len(confusion) == len(classes)
        and all(isinstance(row, list) and len(row) == len(classes) for row in confusion)
        and all(isinstance(count, int) and 0 <= count < LARGEST_NUMBER for row in confusion for count in row)
    ):
        raise ValueError("its confusion matrix is not a square matrix of counts")
    for key in ("labels", "predictions"):
        values = evaluation.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, int) for value in values):
            raise ValueError(f"its {key} are not a list of class indices")
    if len(evaluation.get("labels", [])) != len(evaluation.get("predictions", [])):
        raise ValueError("its labels and predictions differ in number")
    return evaluation | {
        "accuracy": number(evaluation.get("accuracy")),
        "recall": [number(share) for share in evaluation["recall"]],
        "confusion": confusion,
        "labels": evaluation.get("labels", []),
        "predictions": evaluation.get("predictions", []),
    }
