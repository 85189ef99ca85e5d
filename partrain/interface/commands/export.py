"""`partrain export`: write a run's parameters or metrics in another format."""

from __future__ import annotations

import argparse
from pathlib import Path

from partrain.interface.arguments import add_checkpoint, add_quiet, add_run, add_weights
from partrain.interface.command import Command, CommandContext, print_path


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument(
        "--to",
        required=True,
        metavar="FILE",
        help="the file to write, replaced if it exists. Its suffix selects the format: .safetensors, .npz, .onnx "
        "(parameters), .py (a PyTorch module, and its parameters in a .safetensors file beside it) or .csv (metrics). "
        "For tensorboard a directory",
    )
    parser.add_argument(
        "--format",
        metavar="FORMAT",
        help="the format, if the suffix does not say it: safetensors, npz, onnx, py, csv or tensorboard",
    )
    add_checkpoint(parser)
    add_weights(parser)
    add_quiet(parser)


def _run(context: CommandContext) -> None:
    from partrain.analysis.export.formats import choose_format, export_run

    options, messages = context.options, context.messages
    format_name = choose_format(options.to, options.format)
    path = context.find_run()
    checkpoint, weights = options.checkpoint, options.weights
    print_path(
        export_run(path, Path(options.to), format_name, checkpoint, weights, say=messages.say, warn=messages.warn)
    )


COMMAND = Command(
    name="export",
    summary="write a run's parameters or metrics in another format",
    description="Write the parameters of a run's checkpoint, or the run's metrics, in another format.",
    example="partrain export last --to model.onnx --checkpoint best",
    add_arguments=_add_arguments,
    run=_run,
)
