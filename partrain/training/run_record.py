"""`run.json`: the identity, origin, horizon and status of a run, and its resumptions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pydantic
from pydantic import BaseModel, ConfigDict

from partrain.config.schema.config import Config
from partrain.config.schema.values import PositiveInt
from partrain.data.label_noise import flipped_examples
from partrain.errors import RunError
from partrain.kernels.bits_version import BITS_FIELD, BITS_VERSION
from partrain.store.run_directory import RunDirectory
from partrain.system.provenance import differences, provenance
from partrain.training.plan import TrainingPlan

# The largest number of skipped files that are listed by name.
MOST_NAMED = 20


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Data(_Part):
    name: str
    source: str
    digest: str | None  # None: not known, of an imported run


class _Processor(_Part):
    name: str
    features: list[str]


class _Horizon(_Part):
    epochs: PositiveInt
    max_steps: PositiveInt | None


class _Record(_Part):
    """The fields of run.json that a resume needs."""

    status: str
    command_lines: list[list[str]]
    data: _Data
    identity: dict[str, Any]
    horizon: _Horizon
    lineage: list[dict[str, Any]]
    bits: PositiveInt = 1
    versions: dict[str, str | None]
    processor: _Processor


def read_record(run: RunDirectory) -> dict[str, Any]:
    """Return the content of run.json; check that it has all fields that a resume needs.

    Raises
    ------
    RunError
        The file is missing or damaged, or has a newer format.
    """
    content = run.read_run_json()
    try:
        _Record.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunError(f"{run.run_json_path}: is damaged: {where}: {first['msg']}.") from error
    return content


def first_record(
    plan: TrainingPlan,
    command_line: Sequence[str],
    num_workers: int,
    ranks: Sequence[dict[str, Any]] | None,
) -> dict[str, Any]:
    """Return the record of a new run.

    Parameters
    ----------
    plan : the plan of the training.
    command_line : the command that started the run.
    num_workers : the number of workers of all ranks together.
    ranks : host and number of workers of each rank, and how it differs from rank 0; None without MPI.
    """
    dataset, normalisation = plan.dataset, plan.normalisation
    data: dict[str, Any] = {
        "name": dataset.name,
        "source": dataset.source,
        "digest": dataset.digest,
        "class_names": list(dataset.class_names),
        "normalisation": {"mean": list(normalisation.mean), "std": list(normalisation.std)},
    }
    if plan.config.data.on_broken is not None:
        data |= {"skipped": len(dataset.skipped), "skipped_files": list(dataset.skipped[:MOST_NAMED])}
    if noise := plan.config.data.label_noise:
        flipped = flipped_examples(plan.dataset.train.size, noise, plan.config.seed)
        data["label_noise"] = {"share": noise, "num_flipped": len(flipped), "flipped": flipped.tolist()}
    if plan.class_weights is not None:
        data["class_weights"] = list(plan.class_weights)
    session = plan.logged_session(from_step=0).record()
    began = {"status": "running", "workers": num_workers, "started": now(), "ended": None}
    bits = {BITS_FIELD: BITS_VERSION}
    return began | bits | _ranks(ranks) | _origin(plan.config, data, command_line) | session


def imported_record(
    config: Config, data: dict[str, Any], imported: dict[str, Any], command_line: Sequence[str]
) -> dict[str, Any]:
    """Return the record of a run that another program trained; `imported` is the file that it was imported from.

    It has no version of the bits, because partrain computed nothing.
    """
    time = now()
    ended = {"status": "completed", "imported": imported, "workers": None, "started": time, "ended": time}
    return ended | _origin(config, data, command_line)


def _origin(config: Config, data: dict[str, Any], command_line: Sequence[str]) -> dict[str, Any]:
    return {
        "command_lines": [list(command_line)],
        "data": data,
        "identity": config.identity(),
        "horizon": horizon_of(config),
        "lineage": [],
        **provenance(),
    }


def next_record(
    before: dict[str, Any],
    plan: TrainingPlan,
    from_step: int,
    command_line: Sequence[str],
    num_workers: int,
    ranks: Sequence[dict[str, Any]] | None,
) -> dict[str, Any]:
    """Return the record of a run that is resumed from a step; the last entry of its lineage lists the changes."""
    current, horizon = provenance(), horizon_of(plan.config)
    resumption = {
        "resumed": now(),
        "from_step": from_step,
        "workers": num_workers,
        **_ranks(ranks),
        "horizon": {name: value for name, value in horizon.items() if value != before["horizon"][name]},
        **_moved_data(before, plan.config),
        "differences": differences(before, current),
        "host": current["host"],
        **plan.logged_session(from_step=from_step).record(),
    }
    return {name: value for name, value in before.items() if name not in ("cause", "stopped_early", "ranks")} | {
        "status": "running",
        "command_lines": [*before["command_lines"], list(command_line)],
        "workers": num_workers,
        **_ranks(ranks),
        "ended": None,
        "horizon": horizon,
        "lineage": [*before["lineage"], resumption],
    }


def _moved_data(before: dict[str, Any], config: Config) -> dict[str, Any]:
    """Return the field `data_path`; no field if the data lies where it was when the run began."""
    path = config.data.path
    return {} if path == before["identity"]["data"].get("path") else {"data_path": path}


def _ranks(ranks: Sequence[dict[str, Any]] | None) -> dict[str, Any]:
    """Return the field `ranks`; no field without MPI."""
    return {} if ranks is None else {"ranks": list(ranks)}


def horizon_of(config: Config) -> dict[str, int | None]:
    """Return the horizon of a configuration: the fields that determine its last step."""
    return {"epochs": config.training.epochs, "max_steps": config.training.max_steps}


def now() -> str:
    """Return the current time in UTC, in ISO format."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
