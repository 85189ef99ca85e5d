"""A picture on the terminal that is redrawn in place until there is nothing more to come. Needs the extra `watch`."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

from rich.console import Console, RenderableType
from rich.live import Live

from partrain.analysis.watch.charts import Look
from partrain.interface.command import print_data, writing_stdout
from partrain.system.signals import Interruption
from partrain.system.standard_streams import is_terminal

# Between two looks at the files, and at the terminal's size and signals.
LOOK_SECONDS = 1.0
NOTICE_SECONDS = 0.1
# The width where stdout is no terminal.
PLAIN_COLUMNS = 80

# Returns the picture for a width and a greatest height, if there is one.
Draw = Callable[[int, int | None, Look], RenderableType]


def show_live(poll: Callable[[], bool], draw: Draw, interruption: Interruption) -> None:
    """Draw a picture again and again, on the terminal's alternate screen; at the end leave the last one.

    If stdout is no terminal, the picture is printed once, in plain text.

    Parameters
    ----------
    poll : looks for changes; returns whether more may come.
    draw : draws the picture of the state that `poll` found.
    interruption : the signals that end the command. Ctrl-C is the usual end, and no error.

    Raises
    ------
    Interrupted
        A signal other than SIGINT asked to end; the terminal is as before.
    ResourceError
        The picture cannot be written.
    """
    console = _console()
    look = Look(console.color_system is not None and not console.no_color, not console.encoding.startswith("utf"))
    if not console.is_terminal:
        poll()
        _print(console, draw(console.width, None, look))
        return
    with interruption.deferred():
        try:
            with writing_stdout():
                _follow(console, poll, lambda: draw(console.width, console.height, look), interruption)
        finally:
            if interruption.received in (None, signal.SIGINT):  # otherwise the terminal may have closed
                _print(console, draw(console.width, console.height - 1, look))
    if interruption.received != signal.SIGINT:
        interruption.check()


def _console() -> Console:
    is_shown = is_terminal(sys.stdout) and os.environ.get("TERM") != "dumb"
    width = None if is_shown else PLAIN_COLUMNS
    return Console(file=sys.stdout, force_terminal=is_shown, width=width, highlight=False, markup=False, emoji=False)


def _follow(
    console: Console, poll: Callable[[], bool], draw: Callable[[], RenderableType], interruption: Interruption
) -> None:
    """Redraw until there is nothing more to come, or a signal is received."""
    with Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        while poll() and interruption.received is None:
            live.update(draw(), refresh=True)
            size, until = console.size, time.monotonic() + LOOK_SECONDS
            while time.monotonic() < until and console.size == size and interruption.received is None:
                time.sleep(NOTICE_SECONDS)


def _print(console: Console, picture: RenderableType) -> None:
    with writing_stdout():
        with console.capture() as capture:  # flushes stdout
            console.print(picture)
        print_data("\n".join(line.rstrip() for line in capture.get().splitlines()), styled=True)
