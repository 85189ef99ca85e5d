"""`partrain watch`: follow a run or a sweep in the terminal while it trains."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from partrain.errors import MissingPackage
from partrain.interface.arguments import add_quiet, add_run
from partrain.interface.command import Command, CommandContext
from partrain.store.sweep_paths import is_sweep

if TYPE_CHECKING:  # packages of the extra `watch`
    from partrain.analysis.watch.followed_run import FollowedRun
    from partrain.analysis.watch.followed_sweep import FollowedSweep
    from partrain.interface.live_screen import Draw


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    add_quiet(parser)


def _run(context: CommandContext) -> None:
    path = context.find_run()
    try:
        from partrain.interface.live_screen import show_live
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("rich", "uniplot"):
            raise
        raise MissingPackage(package, "watch", "watch") from error
    from partrain.analysis.watch.watched_directory import WatchedDirectory

    followed, draw = _follow_sweep(path) if is_sweep(path) else _follow_run(path)
    with contextlib.closing(WatchedDirectory(path)) as directory:

        def poll() -> bool:
            followed.path = directory.find()
            followed.poll()
            return not followed.has_ended

        show_live(poll, draw, context.interruption)


def _follow_run(path: Path) -> tuple[FollowedRun, Draw]:
    from partrain.analysis.watch.followed_run import FollowedRun
    from partrain.analysis.watch.run_picture import draw_run
    from partrain.store.run_directory import RunDirectory

    RunDirectory.open(path).read_run_json()
    run = FollowedRun(path)
    return run, lambda columns, lines, look: draw_run(run, columns, lines, look)


def _follow_sweep(path: Path) -> tuple[FollowedSweep, Draw]:
    from partrain.analysis.watch.followed_sweep import FollowedSweep
    from partrain.analysis.watch.sweep_picture import draw_sweep

    sweep = FollowedSweep(path)
    return sweep, lambda columns, lines, look: draw_sweep(sweep, columns, lines, look)


COMMAND = Command(
    name="watch",
    summary="follow a run or a sweep in the terminal: curves, rate, time left",
    description="Show a run, or the trials of a sweep, in the terminal while they train. The picture is redrawn in "
    "place until all have ended, or until Ctrl-C. Only files are read: they may train on another machine that shares "
    "the directory, and watching may start and stop at any time. If stdout is no terminal, the present state is "
    "printed once.",
    example="partrain watch last",
    add_arguments=_add_arguments,
    run=_run,
)
