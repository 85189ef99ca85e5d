"""`partrain data show`: describe a data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from partrain.interface.arguments import add_json, add_quiet
from partrain.interface.command import Command, CommandContext, print_data
from partrain.interface.data_source import add_source, load_source
from partrain.system.durable_files import json_text


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    parser.add_argument(
        "--sheet",
        metavar="FILE",
        help="also draw examples of each class into this PNG file",
    )
    add_json(parser)
    add_quiet(parser)


def _run(context: CommandContext) -> None:
    from partrain.analysis.data_inspection import describe, inspect, write_sheet
    from partrain.store.output_files import require_output_file

    options, messages = context.options, context.messages
    if options.sheet is not None:
        require_output_file(Path(options.sheet), "--sheet")
    dataset = load_source(context)
    facts = inspect(dataset)
    print_data(json_text(facts) if options.json else describe(facts))
    if options.sheet is not None:
        write_sheet(dataset, Path(options.sheet))
        messages.say(f"examples of each class: {options.sheet}")


COMMAND = Command(
    name="data show",
    summary="describe a data set: classes, balance, duplicates; draw examples",
    description="Print how many examples of each class a data set has and which images appear in two splits. With "
    "--sheet, draw examples of each class into an image file.",
    example="partrain data show photos/ --size 32",
    add_arguments=_add_arguments,
    run=_run,
)
