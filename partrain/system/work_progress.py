"""Shows how much of some work is done: a bar on a terminal or in a notebook, otherwise a line every few seconds."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from partrain.system.standard_streams import is_notebook

if TYPE_CHECKING:
    from tqdm import tqdm

# Time between two lines of progress.
PROGRESS_SECONDS = 5.0


@functools.cache
def load_tqdm() -> type[tqdm[Any]]:
    """Import tqdm, which takes as long as all else that a short command does; return its class."""
    from tqdm import tqdm

    # Only this process writes progress. tqdm's default lock is a named semaphore in shared memory, which would stay if
    # the process were killed while it is being created.
    tqdm.set_lock(threading.RLock())
    return tqdm


def progress_bar(**options: Any) -> tqdm[Any]:
    """Return a bar on stderr, in a notebook tqdm's bar for notebooks; see tqdm for its options.

    A terminal of unknown size reports 0 columns, for which tqdm would display nothing: the bar is for 80 then.
    """
    if is_notebook(sys.stderr):
        return _notebook_bar(**options)
    has_size = not options.get("disable") and os.get_terminal_size(sys.stderr.fileno()).columns > 0
    size = {"dynamic_ncols": True} if has_size else {"ncols": 80, "nrows": 24}
    return load_tqdm()(file=sys.stderr, **options, **size)


def _notebook_bar(**options: Any) -> tqdm[Any]:
    """Return a widget, or a bar of text without the package ipywidgets."""
    text_bar = load_tqdm()
    with warnings.catch_warnings(action="ignore"):  # that it is experimental, or that ipywidgets is missing
        from tqdm.autonotebook import tqdm
    return text_bar(file=sys.stderr, ncols=80, **options) if tqdm is text_bar else tqdm(**options)


class WorkProgress:
    """Displays progress until the end of its `with` block; then the bar disappears.

    Parameters
    ----------
    action : what is being done, e.g. "decoding".
    unit : what is counted, in the plural.
    total : how many there are.
    say : called with a line every few seconds if there is no bar.
    has_bar : whether to draw a bar on stderr.
    """

    def __init__(self, action: str, unit: str, total: int, say: Callable[[str], None], *, has_bar: bool) -> None:
        self._text, self._unit, self._total, self._say = action, unit, total, say
        self._num_done, self._said_at = 0, time.monotonic()
        self._bar = progress_bar(
            total=total,
            leave=False,
            disable=not has_bar,
            bar_format=f"{action}: {{percentage:3.0f}}%|{{bar}}| {{n_fmt}}/{{total_fmt}} {unit} [{{remaining}} left]",
        )

    def show(self, num_done: int) -> None:
        """Display that `num_done` are done."""
        with contextlib.suppress(OSError):  # the terminal has closed
            self._bar.update(num_done - self._num_done)
        self._num_done = num_done
        if self._bar.disable and num_done < self._total and time.monotonic() > self._said_at + PROGRESS_SECONDS:
            self._said_at = time.monotonic()
            self._say(f"{self._text}: {num_done:,} of {self._total:,} {self._unit}")

    def step(self) -> None:
        """Display that one more is done."""
        self.show(self._num_done + 1)

    def __enter__(self) -> WorkProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._bar.close()
