"""The directory of a sweep: `sweep.json` says which trials it has, and each trial is an ordinary run directory in it.

The state of a trial is what its run says; sweep.json does not repeat it. So a sweep that is killed needs no repair, and
any process can follow it by reading files.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from partrain.errors import ResourceError, RunError
from partrain.store.run_directory import RunDirectory
from partrain.store.run_documents import read_document, write_document
from partrain.store.run_lock import RunLock
from partrain.store.run_paths import RunPaths
from partrain.store.sweep_paths import (
    PREDICTIONS_FILE,
    STUDY_FILE,
    SWEEP_FILE,
    SWEEP_LOCK_FILE,
    is_sweep,
    is_trial_name,
    trial_name,
)
from partrain.system.durable_files import make_folders, remedy_for, sweep_temporaries

# How long the trainings of a killed sweep may take to end. The kernel kills them; a save in progress is completed.
ORPHAN_SECONDS = 60.0

TrialStatus = Literal["waiting", "running", "completed", "interrupted", "failed", "pruned"]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Axis(_Part):
    """A key of the configuration that differs between trials.

    Attributes
    ----------
    key : the dotted path of the key.
    values : the values that it takes; empty if a sampler draws them from a range.
    low, high : the ends of the range, which are included; None without a range.
    scale : of the range: on a logarithmic scale, each factor is equally probable.
    """

    key: str
    values: list[Any] = []
    low: float | int | None = None
    high: float | int | None = None
    scale: Literal["linear", "log"] = "linear"


class Sampler(_Part):
    """How the settings are drawn that are tried.

    Attributes
    ----------
    name : "random" or "tpe".
    num_settings : how many are tried; each is trained with every seed.
    prune : whether trials are ended whose validation curve is below the median of the others'.
    """

    name: Literal["random", "tpe"]
    num_settings: int = Field(ge=1)
    prune: bool = False


class Trial(_Part):
    """A training of a sweep.

    Attributes
    ----------
    number : counts from 1.
    run : the name of its run directory, in the sweep's.
    settings : the values of the axes, by key.
    seed : the seed of the configuration.
    fold : the number of the fold that it does not train on, from 1; None if this is no cross-validation.
    setting : counts the settings from 1; trials that differ only in the seed or the fold have the same number.
    pruned : whether the sweep ended it early, because its validation curve was worse than others'.
    """

    number: int = Field(ge=1)
    run: str
    settings: dict[str, Any]
    seed: int = Field(ge=0)
    fold: int | None = None
    setting: int = Field(ge=1)
    pruned: bool = False

    @pydantic.field_validator("run")
    @classmethod
    def _stay_inside(cls, name: str) -> str:
        if not is_trial_name(name):
            raise ValueError(f"{name!r} is not the name of a trial's directory, such as {trial_name(1)}")
        return name


class SweepRecord(_Part):
    """The content of sweep.json.

    Attributes
    ----------
    kind : "sweep" or "cross-validation".
    command_lines : the commands that have worked on it; the first created it.
    started : when it was created, in UTC.
    config : the configuration of the first trial. The others differ from it in the axes, the seed and the fold.
    axes : what differs between settings; empty if only seeds or folds differ.
    seeds : each setting is trained with each of them.
    folds : the number of folds; None if this is no cross-validation.
    sampler : how settings are drawn; None: all combinations of the axes' values are tried.
    objective : the metric by which settings are judged, at the end of the training.
    num_trials : how many trials there will be.
    trials : those that have been started, or may be; with a sampler, later ones are added when they are drawn.
    """

    kind: Literal["sweep", "cross-validation"]
    command_lines: list[list[str]]
    started: str
    config: dict[str, Any]
    axes: list[Axis]
    seeds: list[int]
    folds: int | None = None
    sampler: Sampler | None = None
    objective: Literal["validation/accuracy", "validation/loss"]
    num_trials: int = Field(ge=1)
    trials: list[Trial]

    @property
    def wants_highest(self) -> bool:
        """Whether a larger value of the objective is better."""
        return self.objective != "validation/loss"


class SweepDirectory:
    """A sweep's directory, which may not exist yet.

    Parameters
    ----------
    path : the directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = RunLock(path / SWEEP_LOCK_FILE, "sweep")

    @classmethod
    def open(cls, path: Path) -> SweepDirectory:
        """Return the sweep at `path`.

        Raises
        ------
        RunError
            There is no sweep.
        """
        if not is_sweep(path):
            raise RunError(f"{path}: is not a sweep: it has no {SWEEP_FILE}.")
        return cls(path)

    @property
    def record_path(self) -> Path:
        """The record of the sweep and its trials."""
        return self.path / SWEEP_FILE

    @property
    def study_path(self) -> Path:
        """What the sampler remembers, an SQLite file."""
        return self.path / STUDY_FILE

    @property
    def predictions_path(self) -> Path:
        """The predictions of a cross-validation, one line per example."""
        return self.path / PREDICTIONS_FILE

    def trial_path(self, trial: Trial) -> Path:
        """Return the run directory of a trial; it exists when the trial has begun."""
        return self.path / trial.run

    def trial_status(self, trial: Trial) -> TrialStatus:
        """Return how far a trial is: "waiting", "pruned", or the status of its run.

        Raises
        ------
        RunError
            Its run.json is damaged.
        """
        path = self.trial_path(trial)
        if not os.path.isfile(RunPaths(path).run_json_path):
            return "waiting"
        status = RunDirectory.open(path).status()
        if trial.pruned and status == "interrupted":
            return "pruned"
        if status not in ("running", "completed", "interrupted", "failed"):
            raise RunError(f"{path}: has the unknown status {status!r}. Its run.json is damaged.")
        return status  # type: ignore[return-value]

    def read(self) -> SweepRecord:
        """Return the content of sweep.json.

        Raises
        ------
        RunError
            The file is missing, damaged, or of a newer format.
        """
        try:
            return SweepRecord.model_validate(read_document(self.record_path))
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RunError(f"{self.record_path}: is damaged: {where}: {first['msg']}.") from error

    def write(self, record: SweepRecord) -> None:
        """Replace sweep.json durably.

        Raises
        ------
        ResourceError
            It cannot be written.
        """
        try:
            write_document(self.record_path, record.model_dump(mode="json"))
        except OSError as error:
            raise ResourceError(
                f"{self.record_path}: cannot be written: {error.strerror}. {remedy_for(error)}."
            ) from error

    def holder(self) -> dict[str, Any] | None:
        """Return `host` and `pid` of the process that works on the sweep; None if there is none."""
        return self._lock.holder()

    def require_free(self) -> None:
        """Check that no other process works on the sweep, before anything is done for it.

        Raises
        ------
        RunError
            One does, or the path is not a directory for a sweep.
        """
        if os.path.lexists(self.path) and not is_sweep(self.path) and not self._is_new():
            raise RunError(f"{self.path}: exists already, and is not a sweep. Choose another directory.")
        holder = self._lock.holder()
        if holder is not None and _is_alive(holder):
            raise RunError(
                f"{self.path}: process {holder['pid']} on {holder['host']} is writing into this sweep. Wait until it "
                "ends, or stop it; --sweep-dir chooses another directory."
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Create the directory if it is missing, and allow only this process to work on the sweep within the block.

        Processes that this one forks hold the lock with it: it is free when the last of them has ended.

        Raises
        ------
        RunError
            Another process works on it, or the path is not a directory for a sweep.
        ResourceError
            The directory cannot be written.
        """
        self.require_free()
        try:
            make_folders(self.path)
        except OSError as error:
            raise ResourceError(f"{self.path}: cannot be created: {error.strerror}. {remedy_for(error)}.") from error
        self._acquire()
        try:
            sweep_temporaries(self.path)
            yield
        finally:
            self._lock.release()

    def _acquire(self) -> None:
        """Take the lock; wait for the trainings of a killed process, which hold it until the kernel has ended them."""
        deadline = time.monotonic() + ORPHAN_SECONDS
        while True:
            try:
                return self._lock.acquire()
            except RunError:
                holder = self._lock.holder()
                if holder is not None and (_is_alive(holder) or time.monotonic() > deadline):
                    raise
                time.sleep(0.05)

    def _is_new(self) -> bool:
        """Return whether a sweep has just been created here: nothing but its lock, or nothing at all."""
        try:
            return set(os.listdir(self.path)) <= {SWEEP_LOCK_FILE}
        except OSError:
            return False


def _is_alive(holder: dict[str, Any]) -> bool:
    """Return whether the process that took a lock still runs; True if it is on another host, or not known."""
    if holder["host"] != socket.gethostname() or not isinstance(holder["pid"], int):
        return True
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
