"""`partrain watch`, in a terminal and elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from partrain.interface.command_line import main
from partrain.system.signals import SIGNALS
from tests.processes import wait_until
from tests.program import Result
from tests.sample_runs import write_json, write_run

pytest.importorskip("rich")
pytest.importorskip("uniplot")

LOGGED = {"horizon": {"epochs": 2, "max_steps": None}, "logged": {"last_step": 80}}
ALTERNATE_SCREEN, MAIN_SCREEN, SHOW_CURSOR = "\033[?1049h", "\033[?1049l", "\033[?25h"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run in training; the test is in the directory that contains `runs`."""
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    return write_run(tmp_path / "runs/20261124-100000-sample", status="running", **LOGGED)


def end(run: Path, status: str = "completed") -> None:
    write_json(run / "run.json", json.loads((run / "run.json").read_text()) | {"status": status})


# ---- without a terminal


@pytest.mark.parametrize("reference", ["last", "20261124", "runs/20261124-100000-sample"])
def test_without_a_terminal_the_state_is_printed_once_in_plain_text(
    run: Path, call_partrain: Callable[..., Result], reference: str
) -> None:
    result = call_partrain("watch", reference)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "\033" not in result.stdout
    assert "step 40/80" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("missing", "'missing': there is no such run"),
        ("last~7", "there are 1 runs in runs"),
        ("empty", "is not a run"),
        ("broken", "run.json: is damaged"),
    ],
)
def test_what_is_no_run_is_one_message(
    run: Path, call_partrain: Callable[..., Result], reference: str, message: str
) -> None:
    (run.parent / "empty").mkdir()
    (run.parent / "broken").mkdir()
    (run.parent / "broken/run.json").write_text("{")
    assert message in call_partrain("watch", reference).refusal


def test_a_full_disk_is_one_message(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        code = main(["watch", "last"])
    assert (code, capsys.readouterr().err) == (2, "error: stdout: cannot be written: No space left on device\n")


@pytest.mark.parametrize("package", ["rich", "uniplot"])
def test_missing_package_is_one_message(
    run: Path, call_partrain: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for module in [
        name for name in sys.modules if name.startswith(("partrain.analysis.watch", "partrain.interface.live_"))
    ]:
        monkeypatch.delitem(sys.modules, module)
    for module in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, module, None)
    refusal = call_partrain("watch", "last").refusal
    assert f"watch needs the package {package}: pip install 'partrain[watch]'" in refusal


# ---- in a terminal


class Pane:
    """A terminal, and what was written to it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._content = descriptor, b""
        self.size = os.terminal_size((80, 24))

    @property
    def text(self) -> str:
        """What was written so far."""
        return self._content.decode(errors="ignore")  # the last character may be incomplete

    def read(self) -> None:
        with contextlib.suppress(OSError):
            while block := os.read(self._descriptor, 65536):
                self._content += block

    def wait_for(self, *parts: str) -> None:
        wait_until(lambda: all(part in self.text for part in parts), f"{parts} in the terminal", 60.0)


Watch = Callable[..., tuple[int, Pane]]


@pytest.fixture
def watch(run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Watch the run in a terminal of 80 x 24 while another thread calls a function; return exit code and terminal."""
    from partrain.interface import live_screen

    monkeypatch.setattr(live_screen, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(live_screen, "NOTICE_SECONDS", 0.01)
    monkeypatch.setenv("TERM", "xterm-256color")
    master, slave = os.openpty()
    tty.setraw(slave)
    pane = Pane(master)
    # rich asks for the size of the process's own terminal.
    monkeypatch.setattr(os, "get_terminal_size", lambda descriptor=1: pane.size)
    reader = threading.Thread(target=pane.read)
    reader.start()
    stream = open(slave, "w", encoding="utf-8")  # noqa: SIM115 (closed below, before the reader ends)

    def close() -> None:
        stream.close()
        reader.join()  # it reads all that was written

    def call(meanwhile: Callable[[Pane], None], *words: str) -> tuple[int, Pane]:
        monkeypatch.setattr(sys, "stdout", stream)  # here, since pytest replaces it between a fixture and the test

        def work() -> None:
            try:
                meanwhile(pane)
            except BaseException:
                os.kill(os.getpid(), signal.SIGTERM)  # ends watching, and with it the test
                raise

        thread = threading.Thread(target=work)
        thread.start()
        try:
            code = main(["watch", *(words or [str(run)])])
        finally:
            thread.join()
        close()
        return code, pane

    yield call
    close()
    os.close(master)


def assert_is_restored(pane: Pane) -> None:
    assert pane.text.count(ALTERNATE_SCREEN) == pane.text.count(MAIN_SCREEN) == 1
    assert SHOW_CURSOR in pane.text


def left_on_screen(pane: Pane) -> str:
    return pane.text.rpartition(MAIN_SCREEN)[2]


def test_picture_is_redrawn_until_the_run_ends_and_the_last_one_stays(run: Path, watch: Watch) -> None:
    def train(pane: Pane) -> None:
        pane.wait_for("step 40/80")
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": 41, "epoch": 1.0, "time_s": 9.0, "train/loss": 0.5}) + "\n")
        pane.wait_for("step 41/80")
        end(run)

    code, pane = watch(train)
    assert code == 0
    assert_is_restored(pane)
    assert "completed" in left_on_screen(pane)
    assert "step 41/80" in left_on_screen(pane)


def test_ctrl_c_ends_watching_without_an_error(run: Path, watch: Watch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(pane: Pane) -> None:
        pane.wait_for("step 40/80")
        os.kill(os.getpid(), signal.SIGINT)

    code, pane = watch(interrupt)
    assert (code, capsys.readouterr().err) == (0, "")
    assert_is_restored(pane)
    assert "step 40/80" in left_on_screen(pane)


@pytest.mark.parametrize("number", [number for number in SIGNALS if number != signal.SIGINT])
def test_other_signals_end_it_with_their_exit_code_and_a_restored_terminal(
    run: Path, watch: Watch, number: signal.Signals
) -> None:
    def terminate(pane: Pane) -> None:
        pane.wait_for("step 40/80")
        os.kill(os.getpid(), number)

    code, pane = watch(terminate)
    assert code == 128 + number
    assert_is_restored(pane)


def test_a_terminal_that_is_resized_gets_a_new_picture(run: Path, watch: Watch) -> None:
    def resize(pane: Pane) -> None:
        pane.wait_for("step 40/80")
        pane.size = os.terminal_size((40, 30))
        pane.wait_for(f"{run.name}\033[0m{' ' * (40 - len(run.name) - len('running'))}\033[1;32mrunning")
        end(run, "interrupted")

    code, pane = watch(resize)
    assert code == 0
    assert "interrupted" in left_on_screen(pane)


def test_a_run_that_is_moved_is_followed(run: Path, watch: Watch) -> None:
    def move(pane: Pane) -> None:
        pane.wait_for("step 40/80")
        run.rename(run.with_name("moved"))
        pane.wait_for("moved\033[0m ")
        end(run.with_name("moved"))

    code, pane = watch(move)
    assert code == 0
    assert "completed" in left_on_screen(pane)


def test_a_run_that_is_removed_ends_it_with_one_message(
    run: Path, watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    def remove(pane: Pane) -> None:
        pane.wait_for("step 40/80")
        shutil.rmtree(run)

    code, pane = watch(remove)
    assert code == 2
    assert_is_restored(pane)
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    assert "this directory is gone" in said


def test_a_damaged_record_is_told_while_it_is_watched(run: Path, watch: Watch) -> None:
    def damage(pane: Pane) -> None:
        pane.wait_for("step 40/80")
        before = (run / "run.json").read_text()
        (run / "run.json").write_text("{")
        pane.wait_for("is damaged")
        (run / "run.json").write_text(before)
        end(run)

    assert watch(damage)[0] == 0


def test_no_color_is_honoured(run: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    end(run)
    code, pane = watch(lambda pane: None)
    assert code == 0
    colours = [str(number) for number in (*range(30, 39), *range(90, 98))]
    assert not any(f"\033[{colour}m" in pane.text or f";{colour}m" in pane.text for colour in colours)


def test_a_dumb_terminal_gets_plain_text(run: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    code, pane = watch(lambda pane: None)
    assert code == 0
    pane.wait_for("step 40/80")
    assert "\033" not in pane.text


def test_a_run_needs_no_lock_and_nothing_is_written(run: Path, call_partrain: Callable[..., Any]) -> None:
    before = sorted(run.rglob("*"))
    run.chmod(0o555)
    try:
        assert call_partrain("watch", run).exit_code == 0
    finally:
        run.chmod(0o755)
    assert sorted(run.rglob("*")) == before
