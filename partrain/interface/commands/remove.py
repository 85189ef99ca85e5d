"""`partrain remove`: remove runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from partrain.errors import ConfigError
from partrain.interface.arguments import RUN_HELP, add_quiet, add_runs_dir
from partrain.interface.command import Command, CommandContext
from partrain.store.run_lookup import find_run
from partrain.system.standard_streams import is_terminal
from partrain.system.terminal_text import printable_lines

if TYPE_CHECKING:
    from partrain.store.run_removal import RemovableRun

_MIB = 2**20
_MAX_NAMED_FILES = 3


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help=RUN_HELP)
    add_runs_dir(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    add_quiet(parser)


def _run(context: CommandContext) -> None:
    from partrain.store.run_removal import find_removable, remove

    options, runs_dir = context.options, context.runs_dir
    paths = {os.path.realpath(path): path for path in [find_run(reference, runs_dir) for reference in options.runs]}
    runs = [find_removable(path, runs_dir) for path in paths.values()]
    if not options.yes and not _is_confirmed(runs):
        context.messages.say("nothing was removed")
        return
    for run in runs:
        remove(run)
        context.messages.say(f"removed {_describe(run)}")


def _is_confirmed(runs: Sequence[RemovableRun]) -> bool:
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        raise ConfigError("remove: there is no terminal to ask on. Add --yes to remove without a question.")
    lines = [*map(_describe, runs), f"remove {'this run' if len(runs) == 1 else f'these {len(runs)} runs'}? [y/N] "]
    print(printable_lines("\n".join(lines)), end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _describe(run: RemovableRun) -> str:
    others = [str(path) for path in run.other_files[:_MAX_NAMED_FILES]]
    others += ["…"] * (len(run.other_files) > _MAX_NAMED_FILES)
    noun = "file" if len(run.other_files) == 1 else "files"
    more = f", with {len(run.other_files)} {noun} that partrain has not written: {', '.join(others)}" if others else ""
    return f"{run.path}: {run.num_bytes / _MIB:,.1f} MiB{more}"


COMMAND = Command(
    name="remove",
    summary="remove runs",
    description="Remove runs with all their files, after a question. A run that is being written is never removed, nor "
    "is anything outside the directory of runs.",
    example="partrain remove last --yes",
    add_arguments=_add_arguments,
    run=_run,
)
