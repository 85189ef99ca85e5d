"""`partrain config`: print every configuration key."""

from __future__ import annotations

import argparse
import shutil

from partrain.interface.arguments import add_quiet
from partrain.interface.command import Command, CommandContext, print_data


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--json", action="store_true", help="print the keys as JSON")
    formats.add_argument("--markdown", action="store_true", help="print the keys as a Markdown table")
    add_quiet(parser)


def _run(context: CommandContext) -> None:
    from partrain.config import reference
    from partrain.system.durable_files import json_text

    keys = reference.configuration_keys()
    if context.options.json:
        print_data(json_text(reference.to_json(keys)))
    elif context.options.markdown:
        print_data(reference.to_markdown(keys))
    else:
        print_data(reference.to_text(keys, shutil.get_terminal_size().columns))


COMMAND = Command(
    name="config",
    summary="list the configuration keys: type, default, meaning",
    description="Print every key of a configuration file with its type, default and meaning.",
    example="partrain config",
    add_arguments=_add_arguments,
    run=_run,
)
