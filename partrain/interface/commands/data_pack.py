"""`partrain data pack`: write a data set as NumPy arrays."""

from __future__ import annotations

import argparse
from pathlib import Path

from partrain.interface.arguments import add_quiet
from partrain.interface.command import Command, CommandContext, print_path
from partrain.interface.data_source import add_source, load_source


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    parser.add_argument(
        "--to",
        required=True,
        metavar="FILE.npz|DIR",
        help="an .npz file, which is replaced if it exists, or a new directory of memory-mapped .npy files",
    )
    add_quiet(parser)


def _run(context: CommandContext) -> None:
    from partrain.data.array_export import export_arrays, require_pack_target

    to = Path(context.options.to)
    require_pack_target(to)
    print_path(export_arrays(load_source(context), to))


COMMAND = Command(
    name="data pack",
    summary="write a data set as NumPy arrays",
    description="Write a data set as NumPy arrays, to be used with data.name: arrays, and print the path.",
    example="partrain data pack photos/ --size 32 --to photos.npz",
    add_arguments=_add_arguments,
    run=_run,
)
