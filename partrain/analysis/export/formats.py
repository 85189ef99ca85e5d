"""The formats that a run can be exported to, and how one is chosen."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from partrain.analysis.export.metrics import events_name, metrics_csv, metrics_events
from partrain.analysis.export.onnx_model import encode_onnx
from partrain.analysis.export.parameter_files import encode_npz, encode_safetensors
from partrain.analysis.export.target import write_target
from partrain.analysis.trained_run import TrainedRun, load_trained_run
from partrain.errors import ConfigError
from partrain.store.run_directory import RunDirectory

# Of the trained network, and of what was measured on the way.
_PARAMETERS: dict[str, Callable[[TrainedRun], bytes]] = {
    "safetensors": encode_safetensors,
    "npz": encode_npz,
    "onnx": encode_onnx,
}
_METRICS = ("csv", "tensorboard")
FORMATS = (*_PARAMETERS, *_METRICS)


def choose_format(to: str, asked: str | None) -> str:
    """Return the format to export to: the one that was asked for, else the one that the file's ending names.

    Raises
    ------
    ConfigError
        There is no such format, or the ending names none.
    """
    if asked is not None:
        if asked not in FORMATS:
            raise ConfigError(f"--format {asked}: there is no such format; the formats are {', '.join(FORMATS)}")
        return asked
    ending = os.path.splitext(to)[1].lower().removeprefix(".")
    if ending in FORMATS and ending != "tensorboard":
        return ending
    raise ConfigError(
        f"--to {to}: its ending does not say which format to write. End it with .safetensors, .npz, .onnx or .csv, "
        f"or give --format: {', '.join(FORMATS)}"
    )


def export_run(
    path: Path, to: Path, format_name: str, *, say: Callable[[str], None], warn: Callable[[str], None]
) -> Path:
    """Write a run's parameters or metrics in another format.

    Parameters
    ----------
    path : the run's directory.
    to : the file to write; replaced if it exists. For "tensorboard" the folder that the file goes into.
    format_name : one of `FORMATS`.
    say, warn : told what was written; told of damaged checkpoints that were passed over.

    Returns
    -------
    The file that was written.

    Raises
    ------
    UserError
        The run has nothing to export, a package is missing, or the file cannot be written.
    """
    if format_name in _PARAMETERS:
        trained = load_trained_run(path, "last", warn)
        data = _PARAMETERS[format_name](trained)
        content = f"{trained.network.parameters.size:,} parameters after step {trained.step:,}"
    else:
        run = RunDirectory.open(path)
        data, num_rows = metrics_csv(run) if format_name == "csv" else metrics_events(run)
        content = f"{num_rows:,} rows of metrics"
        if format_name == "tensorboard":
            to = to / events_name(run)
            _require_no_other_events(to)
    written = write_target(to, data)
    say(f"{path}: {content}, {len(data):,} bytes of {format_name}")
    return written


def _require_no_other_events(file: Path) -> None:
    folder = file.parent
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ConfigError(f"--to {folder}: is no folder; TensorBoard's events go into one")
    others = [name for name in os.listdir(folder) if "tfevents" in name] if os.path.isdir(folder) else []
    if any(name != file.name for name in others):
        raise ConfigError(
            f"--to {folder}: holds the events of another run, and TensorBoard would show both as one; "
            "name a folder of its own for each run"
        )
