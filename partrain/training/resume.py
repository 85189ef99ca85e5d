"""What may change when a run goes on, and what may not.

Runtime fields of the configuration are free, its horizon moves by explicit flags alone, and all the rest is the
run's identity: if that changed, the run would not be the same run any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from partrain.config.reader import read_config
from partrain.config.schema.config import Config
from partrain.errors import ConfigError, DataError, RunError
from partrain.store.checkpoint import Checkpoint
from partrain.store.run_directory import RunDirectory
from partrain.training.early_stopping import EarlyStopping
from partrain.training.plan import TrainingPlan, num_steps
from partrain.training.run_record import horizon_of


@dataclass(frozen=True)
class Horizon:
    """How far to train, where that is to change: epochs, steps."""

    epochs: int | None = None
    max_steps: int | None = None

    def changes(self) -> dict[str, int]:
        """Return what is to change."""
        given = {"epochs": self.epochs, "max_steps": self.max_steps}
        return {name: value for name, value in given.items() if value is not None}


def _free_fields(config: Config) -> str:
    free = "logging, checkpoints, workers and the statistics of training.per_example"
    if config.training.stop_early is None:
        return free
    return f"{free}, and not how often it is evaluated, since training.stop_early goes by that"


def require_trained_here(record: dict[str, Any], run_path: Path) -> None:
    """Check that a run was not imported: then there are parameters, and no moments of the optimizer.

    Raises
    ------
    RunError
        It was.
    """
    if "imported" in record:
        raise RunError(
            f"{run_path}: was imported, and holds parameters alone, so that its training cannot go on. "
            f"To train from its parameters, begin a new run with --init-from {run_path}."
        )


def config_to_resume(
    path: Path, record: dict[str, Any], overrides: Sequence[str], horizon: Horizon, warn: Callable[[str], None]
) -> Config:
    """Read a run's configuration with what may change changed.

    Parameters
    ----------
    path : the run's config.yaml.
    record : the content of its run.json, which holds the identity that the run began with, and its horizon.
    overrides : `KEY=VALUE` texts for runtime fields.
    horizon : the new horizon.
    warn : told of a horizon that was changed in the file, which has no effect.

    Raises
    ------
    ConfigError
        An override is not for a runtime field.
    RunError
        The file's identity is not the run's; the message shows the differences.
    """
    stored = read_config(path)
    changed = list(value_differences(record["identity"], stored.identity()))
    if changed:
        raise RunError(
            "\n  ".join(
                [
                    f"{path} was changed since the run began; it would be another run "
                    "(undo the change, or train a new run):",
                    *changed,
                ]
            )
        )
    config = read_config(path, overrides)
    not_runtime = list(value_differences(stored.identity(), config.identity()))
    if not_runtime or horizon_of(config) != horizon_of(stored):
        what = not_runtime or ["training.epochs and training.max_steps change by --epochs and --max-steps"]
        raise ConfigError("\n  ".join([f"--set: a resumed run takes only {_free_fields(stored)}:", *what]))
    for name, value in horizon_of(stored).items():
        if value != record["horizon"][name]:
            flag = "--" + name.replace("_", "-")
            warn(f"{path} says training.{name}: {value}, the run's is {record['horizon'][name]}; {flag} changes it")
    training = config.training.model_copy(update=record["horizon"] | horizon.changes())
    return config.model_copy(update={"training": training})


def newest_state(
    run: RunDirectory, config: Config, record: dict[str, Any], warn: Callable[[str], None]
) -> Checkpoint | None:
    """Return the newest good checkpoint; None if the run was killed before it had saved any.

    A run that began with another run's parameters saved them first.

    Raises
    ------
    RunError
        There are checkpoints, and none is good; or they were deleted, or belong to another run.
    """
    found = run.checkpoints.newest_good(warn)
    if found is None:
        drew_its_parameters = "initialised_from" not in record
        if record["status"] == "running" and drew_its_parameters and not run.checkpoints.files():
            warn(f"{run.path} was killed before its first checkpoint; it starts again from step 0")
            return None
        raise RunError(f"{run.path}: has no good checkpoint to go on from; train it anew")
    state, path = found
    if state.metadata.get("config_digest") != config.identity_digest():
        raise RunError(f"{path}: belongs to a run of another configuration; train anew")
    return state


def require_steps_ahead(state: Checkpoint, config: Config, horizon: Horizon, run_path: Path) -> None:
    """Check that a horizon that was asked for lies ahead: a run cannot go back to it, nor end there as if it had.

    Raises
    ------
    ConfigError
        The run is there already, or beyond.
    """
    if horizon.changes() and state.step >= num_steps(config):
        flags = " and ".join(f"--{name.replace('_', '-')} {value}" for name, value in horizon.changes().items())
        raise ConfigError(
            f"{flags}: {run_path} would end at step {num_steps(config):,}, and is at step {state.step:,} already; "
            "ask for more, or train a new run"
        )


def why_stopped_early(config: Config, state: Checkpoint, record: dict[str, Any]) -> str | None:
    """Return why the training ended with this checkpoint before its last step, or None if it did not."""
    settings, privacy = config.training.stop_early, config.training.privacy
    reason = None if settings is None else EarlyStopping(settings, state.metadata["stop_early"]).reason
    if reason is None and privacy is not None and privacy.target_epsilon is not None:
        recorded = record.get("stopped_early")  # that the target is reached follows from the step, too
        return str(recorded) if recorded else None
    return reason


def require_same_data(plan: TrainingPlan, record: dict[str, Any], run_path: Path) -> None:
    """Check that the data set is the one that the run began with.

    Raises
    ------
    DataError
        It is not.
    """
    began_with, dataset = record["data"], plan.dataset
    if dataset.digest != began_with["digest"]:
        raise DataError(
            f"{run_path}: the data changed since the run began: it was {began_with['name']} from "
            f"{began_with['source']} with digest {began_with['digest'][:12]}…, now {dataset.source} has digest "
            f"{dataset.digest[:12]}…; put the old data back, or train a new run"
        )


def value_differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Yield a line for each value that differs: `path: before -> after`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before | after:
            yield from value_differences(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (x, y) in enumerate(zip(before, after, strict=True)):
            yield from value_differences(x, y, f"{path}.{place}")
    elif before != after:
        yield f"{path}: {before} -> {after}"
