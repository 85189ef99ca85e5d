"""Standard streams that are closed, full, or cannot encode a character: commands work, or say what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.program import Result
from tests.sample_runs import write_run

FULL = Path("/dev/full")


def through_a_shell(redirection: str) -> list[str]:
    return ["sh", "-c", f'exec "$@" {redirection}', "sh"]


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_command_without_stderr_prints_its_result(
    run_partrain: Callable[..., Result], tmp_path: Path, redirection: str
) -> None:
    write_run(tmp_path / "runs" / "a-run")
    result = run_partrain("list", wrapper=through_a_shell(redirection))
    assert result.exit_code == 0
    assert "a-run" in result.stdout


def test_command_without_any_stream_succeeds(run_partrain: Callable[..., Result], tmp_path: Path) -> None:
    assert run_partrain("list", wrapper=through_a_shell("<&- >&- 2>&-")) == Result(0, "", "")


def test_training_without_any_stream_completes(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    code = """
import os, sys
sys.stdin = sys.stdout = sys.stderr = None
for descriptor in (0, 1, 2):
    os.close(descriptor)
from partrain.__main__ import main
sys.exit(main())
"""
    result = run_partrain("--config", small_config(), "--run-dir", "run", "--workers", 1, code=code)
    assert result.exit_code == 0
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "completed"


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(
    "command", [["list"], ["list", "--json"], ["config"], ["--help"], ["train", "--help"], ["--version"]]
)
def test_result_that_cannot_be_written_is_an_error(
    run_partrain: Callable[..., Result], tmp_path: Path, command: list[str]
) -> None:
    write_run(tmp_path / "runs" / "a-run")
    result = run_partrain(*command, wrapper=through_a_shell(">/dev/full"))
    assert (result.exit_code, result.stderr) == (2, "error: stdout: cannot be written: No space left on device\n")


def test_reader_that_ends_early_is_not_an_error(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    code = """
import os, sys
reader, writer = os.pipe()
os.close(reader)
sys.stdout = open(writer, "w")
from partrain.__main__ import main
sys.exit(main())
"""
    result = run_partrain("--config", small_config(), "--run-dir", "run", "--workers", 0, "-q", code=code)
    assert (result.exit_code, result.stderr) == (0, "")


ASCII = """
import sys
sys.stdout.reconfigure(encoding="ascii")
from partrain.__main__ import main
sys.exit(main())
"""


def test_ascii_stdout_gets_escaped_text_and_exact_paths(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    config = small_config({"name": "größe"})
    dry = run_partrain("--config", config, "--dry-run", code=ASCII)
    assert dry.exit_code == 0
    assert "name: gr\\u00f6\\u00dfe" in dry.stdout
    run = run_partrain("--config", config, "--workers", 0, code=ASCII).run
    assert (tmp_path / run / "run.json").exists()
    listed = run_partrain("list", "--json", code=ASCII)
    assert listed.stdout.isascii()
    assert [row["config"] for row in json.loads(listed.stdout)] == ["größe"]


def test_name_that_the_locale_cannot_write_is_refused(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path]
) -> None:
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    config = small_config({"name": "größe"})
    assert "Set PYTHONUTF8=1" in run_partrain("--config", config, fresh=True, env=locale).refusal
