"""`partrain compare`: compare configurations and results of runs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from partrain.analysis.sweep_listing import runs_of_sweep
from partrain.errors import ConfigError
from partrain.interface.arguments import RUN_HELP, add_json, add_quiet, add_runs_dir
from partrain.interface.command import Command, CommandContext, print_data, terminal_width
from partrain.store.output_files import require_output_file
from partrain.store.run_lookup import find_run
from partrain.store.sweep_paths import is_sweep
from partrain.system.durable_files import json_text


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help=f"{RUN_HELP}; or a sweep, for all of its runs; at least two runs, or one with --html",
    )
    add_runs_dir(parser)
    parser.add_argument("--all", action="store_true", help="also show what all runs have in common")
    add_json(parser)
    parser.add_argument("--html", metavar="FILE", help="also write an HTML page with curves and tables")
    add_quiet(parser)


def _run(context: CommandContext) -> None:
    options = context.options
    paths = _find_runs(options.runs, context.runs_dir)
    if len(paths) < 2 and options.html is None:
        raise ConfigError(
            "compare: give two runs or more, e.g. partrain compare last~1 last; or one run and --html FILE"
        )
    if options.html is not None:
        require_output_file(Path(options.html), "--html")
    from partrain.analysis.comparison.comparison import compare
    from partrain.analysis.comparison.text import describe
    from partrain.analysis.logged_run import LoggedRun

    runs = [LoggedRun.open(path) for path in paths]
    facts = compare(runs, everything=options.all or len(runs) == 1)
    if options.html is not None:
        from partrain.analysis.html_report.page import write_page

        write_page(Path(options.html), runs, facts)
        context.messages.say(f"comparison page: {options.html}")
    if options.json:
        print_data(json_text(facts))
    else:
        width = terminal_width()
        bold = width is not None and not os.environ.get("NO_COLOR")
        print_data(describe(facts, width=width, bold=bold), styled=bold)


def _find_runs(references: Sequence[str], runs_dir: Path) -> list[Path]:
    """Return the directories of the runs, which must be different ones; those of a sweep if it is named."""
    named: list[tuple[str, Path]] = []
    for reference in references:
        path = find_run(reference, runs_dir)
        named += [(reference, run) for run in (runs_of_sweep(path) if is_sweep(path) else [path])]
    first_references: dict[str, str] = {}
    for reference, path in named:
        directory = os.path.realpath(path)
        if directory in first_references:
            first = first_references[directory]
            raise ConfigError(f"compare: {first} and {reference} are the same run, {path}. Name each run once.")
        first_references[directory] = reference
    return [path for _, path in named]


COMMAND = Command(
    name="compare",
    summary="compare configurations and results of runs",
    description="Compare runs: the differences between their configurations, their results side by side, whether "
    "their parameters are bit for bit the same, and whether a difference in accuracy is statistically significant.",
    example="partrain compare last~1 last --html comparison.html",
    add_arguments=_add_arguments,
    run=_run,
)
