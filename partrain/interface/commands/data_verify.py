"""`partrain data verify`: check a data set's files against their digests."""

from __future__ import annotations

import argparse

from partrain.interface.arguments import add_data_set, add_quiet
from partrain.interface.command import Command, CommandContext, print_data


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_set(parser)
    add_quiet(parser)


def _run(context: CommandContext) -> None:
    from partrain.data.dataset_files import describe, require_valid, verify

    reports = verify(context.options.name)
    print_data(describe(reports))
    require_valid(context.options.name, reports)


COMMAND = Command(
    name="data verify",
    summary="check the files of a data set against their digests",
    description="Check the files of a data set on this machine against their digests; download nothing. Prints a "
    "table of the files. The exit code is 2 if a file is missing or wrong.",
    example="partrain data verify mnist",
    add_arguments=_add_arguments,
    run=_run,
)
