"""`partrain list`: list the runs of a directory."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from partrain.analysis.run_table import COLUMNS, STATUSES, describe
from partrain.interface.arguments import add_json, add_quiet, add_runs_dir
from partrain.interface.command import Command, CommandContext, print_data, terminal_width
from partrain.system.durable_files import json_text


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_runs_dir(parser)
    parser.add_argument(
        "--sort",
        choices=tuple(COLUMNS),
        default="age",
        metavar="KEY",
        help=f"the column to sort by: {', '.join(COLUMNS)} (default: age, newest first)",
    )
    parser.add_argument("--status", choices=STATUSES, metavar="S", help=f"only runs that are {' | '.join(STATUSES)}")
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="CONDITION",
        help="only runs that meet a condition, such as 'training.optimizer.lr>1e-3', data=mnist, 'test>=98.5%%' or "
        "'age<2d'; the key is a configuration key or a column, the operator one of = != < <= > >=, the value may be "
        "null; repeatable, and then all must be met",
    )
    add_json(parser)
    add_quiet(parser)


def _run(context: CommandContext) -> None:
    from partrain.analysis.listing import list_runs
    from partrain.analysis.run_filter import parse_filter

    options = context.options
    filters = [parse_filter(text) for text in options.filter]
    runs_dir = context.runs_dir
    # The first training creates the default directory.
    nothing_yet = options.runs_dir is None and not runs_dir.exists()
    entries = [] if nothing_yet else list_runs(runs_dir, options.sort, options.status, filters)
    if options.json:
        print_data(json_text(entries))
    elif entries:
        print_data(describe(entries, datetime.now(UTC), width=terminal_width()))
    else:
        kind = f"{options.status} " if options.status else ""
        found = f"no {kind}run in {runs_dir} meets the filter" if filters else f"no {kind}runs in {runs_dir}"
        context.messages.say(found)


COMMAND = Command(
    name="list",
    summary="list runs: status, steps, accuracies, time",
    description="List the runs in a directory, newest first. Runs that cannot be read are listed as broken.",
    example="partrain list --sort validation --status completed --filter 'training.optimizer.lr>1e-3'",
    add_arguments=_add_arguments,
    run=_run,
)
