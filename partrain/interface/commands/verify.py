"""`partrain verify`: compute a run's steps again, and compare its checkpoints and metrics bit by bit."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from partrain.errors import ConfigError
from partrain.interface.arguments import (
    add_data,
    add_engine,
    add_json,
    add_quiet,
    add_run,
    add_workers,
    non_negative_integer,
    positive_integer,
)
from partrain.interface.command import Command, CommandContext, print_data
from partrain.interface.training_session import run_session
from partrain.system.durable_files import json_text

if TYPE_CHECKING:  # imports Numba
    from partrain.training.session import Session
    from partrain.training.verification.bisection import Search
    from partrain.training.verification.verification import Verification


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--all", action="store_true", help="verify all steps from step 0")
    start.add_argument(
        "--from",
        type=non_negative_integer,
        dest="first",
        metavar="STEP",
        help="start from the newest checkpoint that is not after STEP (default: the last checkpoint but one)",
    )
    start.add_argument(
        "--find",
        action="store_true",
        help="find the first wrong steps by bisection: compute few of the ranges between checkpoints again",
    )
    parser.add_argument(
        "--to",
        type=positive_integer,
        dest="last",
        metavar="STEP",
        help="the last step (default: that of the newest checkpoint)",
    )
    add_data(parser)
    add_workers(parser)
    add_engine(parser)
    add_json(parser)
    add_quiet(parser)


def _run(context: CommandContext) -> None:
    options = context.options
    if options.find and options.engine == "mpi":
        raise ConfigError("verify --find works with --engine process only; with --engine mpi, verify ranges of steps")
    found = run_session(lambda session: _verify(context, session), context)
    if found is not None:
        content = asdict(found) | {"run": str(found.run)}
        print_data(json_text(content) if options.json else found.describe())


def _verify(context: CommandContext, session: Session) -> Verification | Search:
    path = context.find_run()  # before Numba is imported: a wrong name is reported at once
    from partrain.training.verification.bisection import find_first_wrong
    from partrain.training.verification.verification import StepRange, verify_run

    options = context.options
    if options.find:
        return find_first_wrong(path, options.last, session, data_path=options.data)
    steps = StepRange(0 if options.all else options.first, options.last)
    return verify_run(path, steps, session, data_path=options.data)


COMMAND = Command(
    name="verify",
    summary="prove that a run's checkpoints and metrics come from its configuration and data",
    description="Compute steps of a run again, and compare every checkpoint, line of metrics and test result on the "
    "way bit by bit. Starts from the last checkpoint but one. Exits with 1 at the first difference, and names it. With "
    "checkpoints.digests in the configuration, --find names the wrong steps more precisely.",
    example="partrain verify last --all --workers 8",
    add_arguments=_add_arguments,
    run=_run,
)
