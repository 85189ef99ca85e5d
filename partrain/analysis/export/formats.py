"""The export formats, and how one is chosen."""

from __future__ import annotations

import keyword
import os
from collections.abc import Callable
from pathlib import Path

from partrain.analysis.export.metrics import events_name, metrics_csv, metrics_events
from partrain.analysis.export.onnx_model import encode_onnx
from partrain.analysis.export.parameter_files import encode_npz, encode_safetensors
from partrain.analysis.export.pytorch_module import encode_pytorch
from partrain.analysis.trained_run import TrainedRun, Weights, load_trained_run
from partrain.errors import ConfigError
from partrain.store.output_files import require_output_file, write_output_file
from partrain.store.run_directory import RunDirectory

# Formats of parameters, and formats of metrics. `py` is a PyTorch module and a safetensors file beside it.
_PARAMETERS: dict[str, Callable[[TrainedRun], bytes]] = {
    "safetensors": encode_safetensors,
    "npz": encode_npz,
    "onnx": encode_onnx,
}
_MODULE = "py"
_METRICS = ("csv", "tensorboard")
FORMATS = (*_PARAMETERS, _MODULE, *_METRICS)


def choose_format(to: str, format_name: str | None) -> str:
    """Return the format to export to: `format_name` if given, otherwise the one that the suffix of the file selects.

    Raises
    ------
    ConfigError
        There is no such format, or the suffix does not select one.
    """
    if format_name is not None:
        if format_name not in FORMATS:
            raise ConfigError(f"--format {format_name}: there is no such format; the formats are {', '.join(FORMATS)}")
        return format_name
    suffix = os.path.splitext(to)[1].lower().removeprefix(".")
    if suffix in FORMATS and suffix != "tensorboard":
        return suffix
    raise ConfigError(
        f"--to {to}: its suffix does not select a format. Use .safetensors, .npz, .onnx, .py or "
        f".csv, or give --format: {', '.join(FORMATS)}"
    )


def export_run(
    path: Path,
    to: Path,
    format_name: str,
    checkpoint: str = "last",
    weights: Weights = "raw",
    *,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> Path:
    """Write a run's parameters or metrics in another format.

    Parameters
    ----------
    path : the run's directory.
    to : the file to write; replaced if it exists. For "tensorboard" the directory to write the file into.
    format_name : one of `FORMATS`. "py" also writes a file of parameters with the same name and the suffix
        .safetensors.
    checkpoint : the checkpoint whose parameters are exported: "last", "best" or a file, see `load_trained_run`.
    weights : "ema": the averaged weights.
    say, warn : receive messages about the export, and warnings about damaged checkpoints.

    Returns
    -------
    The file.

    Raises
    ------
    UserError
        The run has nothing to export, a package is missing, or the file cannot be written.
    """
    if format_name in _METRICS and checkpoint != "last":
        raise ConfigError(f"--checkpoint {checkpoint}: goes with parameters; {format_name} holds the run's metrics")
    if format_name in _METRICS and weights != "raw":
        raise ConfigError(f"--weights {weights}: goes with parameters; {format_name} holds the run's metrics")
    if format_name not in _METRICS:
        trained = load_trained_run(path, checkpoint, warn, weights)
        averaged = "averaged " * (weights == "ema")
        content = f"{trained.network.parameters.size:,} {averaged}parameters after step {trained.step:,}"
        if format_name == _MODULE:
            data = _write_weights(trained, to, say, content)
            content = "its network as a PyTorch module"
        else:
            data = _PARAMETERS[format_name](trained)
    else:
        run = RunDirectory.open(path)
        data, num_rows = metrics_csv(run) if format_name == "csv" else metrics_events(run)
        content = f"{num_rows:,} rows of metrics"
        if format_name == "tensorboard":
            to = to / events_name(run)
            _require_no_other_events(to)
    write_output_file(to, data, "--to", make_parents=True)
    say(f"{path}: {content}, {len(data):,} bytes of {format_name}")
    return to


def _write_weights(trained: TrainedRun, to: Path, say: Callable[[str], None], content: str) -> bytes:
    """Write the file of parameters that a PyTorch module loads; return the code of the module."""
    if not to.stem.isidentifier() or keyword.iskeyword(to.stem):
        raise ConfigError(f"--to {to}: Python cannot import a file of this name; use letters, digits and _")
    weights = to.with_suffix(".safetensors")
    code = encode_pytorch(trained, to.stem, weights.name)
    require_output_file(to, "--to")  # before the other file is written
    data = encode_safetensors(trained)
    write_output_file(weights, data, "--to", make_parents=True)
    say(f"{trained.run.path}: {content}, {len(data):,} bytes of safetensors in {weights}")
    return code


def _require_no_other_events(file: Path) -> None:
    directory = file.parent
    if os.path.exists(directory) and not os.path.isdir(directory):
        raise ConfigError(f"--to {directory}: is not a directory; TensorBoard events are written into a directory")
    others = [name for name in os.listdir(directory) if "tfevents" in name] if os.path.isdir(directory) else []
    if any(name != file.name for name in others):
        raise ConfigError(
            f"--to {directory}: contains the events of another run, and TensorBoard would show both as one run; "
            "use a separate directory for each run"
        )
