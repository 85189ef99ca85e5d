"""`partrain list`: list the runs of a directory."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

from partrain.analysis.run_table import COLUMNS, STATUSES, describe
from partrain.errors import RunError
from partrain.interface.arguments import add_json, add_quiet, add_runs_dir
from partrain.interface.command import Command, CommandContext, print_data, terminal_width
from partrain.store.run_lookup import find_run
from partrain.store.sweep_paths import is_sweep
from partrain.system.durable_files import json_text


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sweep", nargs="?", metavar="SWEEP", help="list the runs of this sweep")
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
    from partrain.analysis.sweep_listing import list_sweeps

    options = context.options
    filters = [parse_filter(text) for text in options.filter]
    runs_dir = context.runs_dir if options.sweep is None else _find_sweep(options.sweep, context.runs_dir)
    # The first training creates the default directory.
    nothing_yet = options.runs_dir is None and not runs_dir.exists()
    entries = [] if nothing_yet else list_runs(runs_dir, options.sort, options.status, filters)
    if options.json:
        print_data(json_text(entries))
        return
    sweeps = [] if nothing_yet or options.status or filters else list_sweeps(runs_dir)
    if entries:
        print_data(describe(entries, datetime.now(UTC), width=terminal_width()))
    if sweeps:
        print_data("\n".join([*([""] if entries else []), *sweeps]))
    if not entries and not sweeps:
        kind = f"{options.status} " if options.status else ""
        found = f"no {kind}run in {runs_dir} meets the filter" if filters else f"no {kind}runs in {runs_dir}"
        context.messages.say(found)


def _find_sweep(reference: str, runs_dir: Path) -> Path:
    """Return the directory of a sweep."""
    path = find_run(reference, runs_dir)
    if not is_sweep(path):
        raise RunError(f"{path}: is not a sweep. `partrain list` shows runs and sweeps.")
    return path


COMMAND = Command(
    name="list",
    summary="list runs: status, steps, accuracies, time",
    description="List runs and sweeps in a directory, newest first. Runs that cannot be read are listed as broken.",
    example="partrain list --sort validation --status completed --filter 'training.optimizer.lr>1e-3'",
    add_arguments=_add_arguments,
    run=_run,
)
