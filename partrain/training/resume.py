"""Rules of resuming: which runs can be resumed, and which parts of their configuration may change.

Runtime fields may change freely, and so may the place of the data, whose digest must not. The horizon changes only by
explicit flags. All other fields are the run's identity and must not change.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from partrain.config.identity import identity_digest, without_location
from partrain.config.reader import read_run_config
from partrain.config.schema.config import Config
from partrain.errors import ConfigError, DataError, RunError
from partrain.kernels.bits_version import BITS_VERSION, bits_version_of
from partrain.store.checkpoint import Checkpoint
from partrain.store.run_directory import RunDirectory
from partrain.training.early_stopping import EarlyStopping
from partrain.training.plan import TrainingPlan, num_steps
from partrain.training.run_record import horizon_of


@dataclass(frozen=True)
class Horizon:
    """The new horizon of a resumed run. None: the value of the run is kept."""

    epochs: int | None = None
    max_steps: int | None = None

    def changes(self) -> dict[str, int]:
        """Return the values that change, by name."""
        values = {"epochs": self.epochs, "max_steps": self.max_steps}
        return {name: value for name, value in values.items() if value is not None}


def _free_fields(config: Config) -> str:
    free = "data.path, logging, checkpoints, workers and the statistics of training.per_example"
    if (key := config.training.needs_evaluations) is None:
        return free
    return f"{free}, but not logging.evaluate_every_epochs and evaluate_every_steps, which {key} uses"


def require_trained_here(record: dict[str, Any], run_path: Path) -> None:
    """Check that a run was not imported: an imported run has parameters, but no optimizer state.

    Raises
    ------
    RunError
        The run was imported.
    """
    if "imported" in record:
        raise RunError(
            f"{run_path}: was imported and has parameters only, no optimizer state, so it cannot be resumed. "
            f"To train from its parameters, start a new run with --init-from {run_path}."
        )


def require_same_bits(record: dict[str, Any], run_path: Path, *, to: str) -> None:
    """Check that this partrain computes the same bits as the one that trained a run.

    Parameters
    ----------
    record : the content of the run's run.json.
    run_path : the run's directory.
    to : what would be done with the run: "resume" or "verify".

    Raises
    ------
    RunError
        The run has another version of the bits.
    """
    version = bits_version_of(record)
    if version != BITS_VERSION:
        message = (
            f"{run_path}: was trained with version {version} of the bits, and this partrain computes version "
            f"{BITS_VERSION}: the same steps would give other parameters. To {to} the run, use the partrain that "
            f"trained it ({record['versions'].get('partrain')})"
        )
        if to == "resume":
            message += f", or train a new run: --init-from {run_path} starts it from this run's parameters"
        raise RunError(f"{message}.")


def config_to_resume(
    path: Path, record: dict[str, Any], overrides: Sequence[str], horizon: Horizon, warn: Callable[[str], None]
) -> Config:
    """Read a run's configuration, and apply the overrides and the new horizon.

    Parameters
    ----------
    path : the run's config.yaml.
    record : the content of the run's run.json, with its identity and horizon.
    overrides : `KEY=VALUE` texts for runtime fields and for `data.path`.
    horizon : the new horizon.
    warn : receives a warning if the horizon was edited in the file, which has no effect.

    Raises
    ------
    ConfigError
        An override is not for a runtime field.
    RunError
        The identity in the file differs from the run's; the message shows the differences.
    DataError
        There is nothing at the data's path.
    """
    stored = read_run_config(path)
    changed = list(value_differences(without_location(record["identity"]), without_location(stored.identity())))
    if changed:
        raise RunError(
            "\n  ".join(
                [
                    f"{path} was changed after the run started, in fields that define the run; "
                    "undo the change, or train a new run:",
                    *changed,
                ]
            )
        )
    config = read_run_config(path, overrides)
    not_runtime = list(value_differences(without_location(stored.identity()), without_location(config.identity())))
    if not_runtime or horizon_of(config) != horizon_of(stored):
        changes = not_runtime or ["change training.epochs and training.max_steps with --epochs and --max-steps"]
        raise ConfigError("\n  ".join([f"--set: a resumed run can change only {_free_fields(stored)}:", *changes]))
    for name, value in horizon_of(stored).items():
        if value != record["horizon"][name]:
            flag = "--" + name.replace("_", "-")
            warn(
                f"{path}: training.{name}: {value} has no effect; the run has {record['horizon'][name]}, "
                f"and {flag} changes it"
            )
    if config.data.path is not None and not os.path.exists(os.path.expanduser(config.data.path)):
        raise DataError(f"{config.data.path}: the run's data is not there. Give its path with --set data.path=PATH.")
    training = config.training.model_copy(update=record["horizon"] | horizon.changes())
    return config.model_copy(update={"training": training})


def newest_state(run: RunDirectory, record: dict[str, Any], warn: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest good checkpoint; None if the run ended before its first checkpoint.

    A run that starts from another run's parameters saves them first, so it always has a checkpoint.

    Raises
    ------
    RunError
        All checkpoints are damaged, were deleted, or belong to another run.
    """
    found = run.checkpoints.newest_good(warn)
    if found is None:
        drew_its_parameters = "initialised_from" not in record
        if record["status"] != "completed" and drew_its_parameters and not run.checkpoints.files():
            ended = "was killed" if record["status"] == "running" else record["status"]
            warn(f"{run.path} {ended} before its first checkpoint; it starts again from step 0")
            return None
        raise RunError(f"{run.path}: has no good checkpoint to resume from; train a new run")
    state, path = found
    if state.metadata.get("config_digest") != identity_digest(record["identity"]):
        raise RunError(f"{path}: belongs to a run with another configuration; train a new run")
    if bits_version_of(state.metadata) != bits_version_of(record):
        raise RunError(f"{path}: belongs to a run with another version of the bits; train a new run")
    return state


def require_steps_ahead(state: Checkpoint, config: Config, horizon: Horizon, run_path: Path) -> None:
    """Check that a new horizon lies after the checkpoint: a run cannot go back.

    Raises
    ------
    ConfigError
        The checkpoint is at the new last step, or after it.
    """
    if horizon.changes() and state.step >= num_steps(config):
        flags = " and ".join(f"--{name.replace('_', '-')} {value}" for name, value in horizon.changes().items())
        raise ConfigError(
            f"{flags}: {run_path} would end at step {num_steps(config):,}, but is already at step {state.step:,}; "
            "give a larger number, or train a new run"
        )


def why_stopped_early(config: Config, state: Checkpoint, record: dict[str, Any]) -> str | None:
    """Return the reason why the training ended early at this checkpoint; None if it did not end early."""
    settings, privacy = config.training.stop_early, config.training.privacy
    reason = None if settings is None else EarlyStopping(settings, state.metadata["stop_early"]).reason
    if reason is None and privacy is not None and privacy.target_epsilon is not None:
        recorded = record.get("stopped_early")  # the step alone also tells that the target is reached
        return str(recorded) if recorded else None
    return reason


def require_same_data(plan: TrainingPlan, record: dict[str, Any], run_path: Path) -> None:
    """Check that the data set is the one that the run started with.

    Raises
    ------
    DataError
        The digests differ.
    """
    began_with, dataset = record["data"], plan.dataset
    if dataset.digest != began_with["digest"]:
        raise DataError(
            f"{run_path}: the data changed after the run started: it was {began_with['name']} from "
            f"{began_with['source']} with digest {began_with['digest'][:12]}…, now {dataset.source} has digest "
            f"{dataset.digest[:12]}…; restore the old data or give its path (--set data.path=…), or train a new run"
            f"{dataset.hint_at_other_digest}"
        )


def value_differences(before: Any, after: Any) -> Iterator[str]:
    """Yield a line for each value that differs: `path: before -> after`."""
    for path, old, new in changed_values(before, after):
        yield f"{path}: {old} -> {new}"


def changed_values(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield each value that differs: its path, such as `best.step`, and both values."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before | after:
            yield from changed_values(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (x, y) in enumerate(zip(before, after, strict=True)):
            yield from changed_values(x, y, f"{path}.{place}")
    elif before != after:
        yield path, before, after
