"""Several signals to a run: the first one saves and ends it, and the others take nothing away."""

from __future__ import annotations

import contextlib
import os
import pkgutil
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from partrain.store.run_directory import RunDirectory
from partrain.system.signals import SIGNALS
from tests.end_to_end.test_interruption import EXIT_CODES, assert_saved
from tests.processes import wait_until
from tests.program import ROOT, RUN_SECONDS, PartrainProcess, Result
from tests.small_run import ENDLESS

CLOSED_TERMINAL = [signal.SIGHUP, signal.SIGHUP]  # of the kernel and of the shell
CLOSED_SESSION = [signal.SIGHUP, signal.SIGTERM, signal.SIGTERM]  # of a session manager
HELD_KEY = [signal.SIGINT] * 5


# ---- while it trains


def start_with_stopped_worker(
    start: Callable[..., PartrainProcess], config: Path
) -> tuple[PartrainProcess, Path, Callable[[], None]]:
    """Train, and stop a worker so that the step does not end; return the run's directory, and what continues it."""
    process = start("--config", config, "--workers", 2, "--runs-dir", "runs")
    run = process.wait_for_training()
    stopped = process.workers()[0].pid
    os.kill(stopped, signal.SIGSTOP)
    return process, run, lambda: os.kill(stopped, signal.SIGCONT)


@pytest.mark.parametrize("numbers", [CLOSED_TERMINAL, CLOSED_SESSION, HELD_KEY], ids=["terminal", "session", "key"])
def test_further_signals_do_not_end_the_run_before_it_is_saved(
    start_partrain: Callable[..., PartrainProcess],
    small_config: Callable[..., Path],
    numbers: list[signal.Signals],
) -> None:
    process, run, go_on = start_with_stopped_worker(start_partrain, small_config(ENDLESS))
    for number in numbers:
        process.send(number, to_group=True)
        time.sleep(0.02)  # two that are pending at the same time are one
    with pytest.raises(subprocess.TimeoutExpired):
        process.popen.wait(0.2)
    go_on()
    result = process.wait()
    assert result.exit_code == EXIT_CODES[numbers[0]], result.stderr
    assert "Traceback" not in result.stderr
    assert_saved(run, "interrupted")


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize(
    "place", ["partrain.training.coordinator.evaluate_split", "partrain.store.checkpoint_directory.write_durably"]
)
def test_signals_during_an_evaluation_or_a_save_lose_nothing(
    call_partrain: Callable[..., Result],
    small_config: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    first: signal.Signals,
) -> None:
    signal_around(monkeypatch, place, first)
    config = small_config({"logging": {"every_steps": 1, "evaluate_every_steps": 3}, "checkpoints": {"every_steps": 2}})
    result = call_partrain("--config", config, "--workers", 0, "--run-dir", tmp_path / "run")
    assert result.exit_code == EXIT_CODES[first], result
    assert_saved(tmp_path / "run", "interrupted")


def signal_around(monkeypatch: pytest.MonkeyPatch, place: str, first: signal.Signals) -> None:
    """Raise all signals several times, beginning with `first`, before and after each call of a function."""
    original = pkgutil.resolve_name(place)

    def raise_signals() -> None:
        for number in (first, first, *SIGNALS):
            signal.raise_signal(number)

    def signalled(*args: Any, **options: Any) -> Any:
        raise_signals()
        result = original(*args, **options)
        raise_signals()
        return result

    monkeypatch.setattr(place, signalled)


@contextlib.contextmanager
def terminal_with_shell(folder: Path) -> Iterator[int]:
    """Start an interactive bash in a terminal of its own; yield the terminal's other end, which the block closes."""
    shell, terminal = pty.fork()
    if shell == 0:
        os.chdir(folder)
        os.environ["PYTHONPATH"] = str(ROOT)
        os.execvp("bash", ["bash", "--norc", "-i"])
    yield terminal
    os.waitpid(shell, 0)


@pytest.mark.slow
def test_run_is_saved_when_its_terminal_closes(small_config: Callable[..., Path], tmp_path: Path) -> None:
    config = small_config(ENDLESS)
    with terminal_with_shell(tmp_path) as terminal:
        words = [sys.executable, "-m", "partrain", "--config", str(config), "--workers", "2", "--run-dir", "run"]
        os.write(terminal, " ".join(words).encode() + b"\n")
        metrics = tmp_path / "run" / "metrics.jsonl"

        def trains() -> bool:
            while select.select([terminal], [], [], 0)[0]:
                os.read(terminal, 2**16)
            return metrics.exists() and metrics.stat().st_size > 0

        wait_until(trains, "a step in the metrics", RUN_SECONDS)
        os.close(terminal)
    run = RunDirectory.open(tmp_path / "run")
    wait_until(lambda: run.lock_holder() is None, "that the run has ended")
    assert_saved(run.path, "interrupted")


# ---- at its start and end


def assert_ended_cleanly(result: Result, run: Path, first: signal.Signals) -> None:
    assert result.exit_code in (0, EXIT_CODES[first]), result
    assert "Traceback" not in result.stderr
    assert_saved(run, "completed")


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize(
    "place",
    [
        "partrain.training.training_run.write_report",
        "partrain.training.training_run.summary",
        "partrain.store.run_directory.RunDirectory.unlock",
        "partrain.system.shared_arrays.SharedArrays.close",
        "partrain.interface.training_session.print_path",
    ],
)
def test_signals_at_the_end_of_a_run_leave_it_completed(
    call_partrain: Callable[..., Result],
    small_config: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    first: signal.Signals,
) -> None:
    signal_around(monkeypatch, place, first)
    result = call_partrain("--config", small_config(), "--workers", 0, "--run-dir", tmp_path / "run")
    assert_ended_cleanly(result, tmp_path / "run", first)


IN_ITS_EXIT = """
import atexit, runpy, signal
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    atexit.register(signal.raise_signal, number)
runpy.run_module("partrain", run_name="__main__", alter_sys=True)
"""


def test_signals_while_the_interpreter_ends_have_no_effect(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    words = ("--config", small_config(), "--workers", 0, "--run-dir", tmp_path / "run", "-q")
    result = run_partrain(*words, code=IN_ITS_EXIT)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{tmp_path / 'run'}\n", "")
    assert_saved(tmp_path / "run", "completed")


# The signal comes while a module is imported, from code that turns exceptions into its own.
IN_AN_IMPORT = """
import runpy, signal, sys

class Signals:
    def __set_name__(self, owner, name):
        signal.raise_signal(signal.{number})

class Finder:
    def find_spec(self, name, *_):
        if name == "{module}":
            type("Owner", (), dict(signals=Signals()))

del sys.modules["{module}"]
sys.meta_path.insert(0, Finder())
runpy.run_module("partrain", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("module", "message"),
    [("partrain.interface.command_line", ""), ("partrain.training.training_run", "error: ended by {}\n")],
)
def test_signal_during_an_import_ends_the_program(
    run_partrain: Callable[..., Result],
    small_config: Callable[..., Path],
    module: str,
    message: str,
    number: signal.Signals,
) -> None:
    program = IN_AN_IMPORT.format(module=module, number=number.name)
    result = run_partrain("--config", small_config(), "--workers", 0, code=program)
    assert result.exit_code == EXIT_CODES[number], result
    assert result.stderr == message.format(number.name)
