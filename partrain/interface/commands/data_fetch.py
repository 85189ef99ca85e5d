"""`partrain data fetch`: download a data set's files."""

from __future__ import annotations

import argparse

from partrain.interface.arguments import add_data_set, add_quiet
from partrain.interface.command import Command, CommandContext, print_data


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_set(parser)
    add_quiet(parser)


def _run(context: CommandContext) -> None:
    from partrain.data.dataset_files import describe, fetch

    print_data(describe(fetch(context.options.name, context.messages.say)))


COMMAND = Command(
    name="data fetch",
    summary="download the files of a data set that this machine lacks, and verify all",
    description="Download the files of a data set that this machine lacks, and verify all of them against their "
    "digests. Prints a table of the files.",
    example="partrain data fetch mnist",
    add_arguments=_add_arguments,
    run=_run,
)
