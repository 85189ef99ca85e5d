"""The arguments that functions of the Python API share, and the signals that arrive while one runs."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from partrain.errors import ConfigError
from partrain.interface.stored_run import StoredRun
from partrain.system.machine import available_processors
from partrain.system.messages import Messages
from partrain.system.signals import Interrupted, Interruption, interruption_behind
from partrain.training.callbacks import Callback, Callbacks
from partrain.training.initial_parameters import InitialParameters, read_initial_parameters
from partrain.training.session import Session


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Handle signals within the context, and raise the exceptions that Python programs expect."""
    interruption = Interruption(second_exits=False)
    try:
        with interruption.watching():
            yield interruption
    except (Interrupted, Exception) as error:
        if (interrupted := interruption_behind(error)) is None:
            raise
        if interrupted.exit_code == 128 + signal.SIGINT:
            raise KeyboardInterrupt(str(interrupted)) from None
        raise SystemExit(interrupted.exit_code) from None


@contextmanager
def api_session(
    function: str, workers: int | None, messages: Messages, callbacks: Callbacks | None = None
) -> Iterator[Session]:
    """Return the session in which a function of the API, `partrain.<function>`, trains; signals as `interruptible`."""
    with interruptible() as interruption:
        command_line = [f"partrain.{function}", *sys.argv]
        yield Session(worker_count(workers), command_line, messages, interruption, callbacks=callbacks or Callbacks())


def worker_count(workers: int | None) -> int:
    """Return the number of workers; by default the number of usable processors."""
    if workers is None:
        return available_processors()
    if isinstance(workers, bool) or not isinstance(workers, int) or not 0 <= workers <= 4096:
        raise ConfigError(f"workers: {workers!r} is not a whole number from 0 to 4096")
    return workers


def positive_integer(name: str, value: int | None) -> int | None:
    """Return a number, or None, that an argument gives; raises ConfigError if it is not positive."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31):
        raise ConfigError(f"{name}: {value!r} is not a whole number from 1 to {2**31 - 1}")
    return value


def callbacks_of(on_step: Callback | None, on_evaluation: Callback | None) -> Callbacks:
    """Return the functions that receive metrics; raises ConfigError if one is not a function."""
    for name, function in (("on_step", on_step), ("on_evaluation", on_evaluation)):
        if function is not None and not callable(function):
            raise ConfigError(f"{name}: {function!r} is not a function")
    return Callbacks(on_step, on_evaluation)


def read_init_from(
    source: str | os.PathLike[str] | StoredRun | None, runs_dir: Path, warn: Callable[[str], None], *, strict: bool
) -> InitialParameters | None:
    """Return the parameters that the arguments `init_from` and `strict` ask for; raises UserError if there are none."""
    if source is None:
        if strict:
            raise ConfigError("strict goes with init_from: it refuses parameters that do not fit completely")
        return None
    if isinstance(source, StoredRun):
        source = source.path
    if not isinstance(source, str | os.PathLike):
        raise ConfigError(f"init_from: is a {type(source).__name__}, expected a run, or the path of one or of a file")
    return read_initial_parameters(os.fspath(source), runs_dir, warn, strict=strict)


def override_texts(changes: Mapping[str, Any] | None) -> list[str]:
    """Return changes of the configuration as `--set` takes them; raises ConfigError for a value that YAML lacks."""
    try:
        return [f"{key}={json.dumps(value)}" for key, value in (changes or {}).items()]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"changes: {error}") from error
