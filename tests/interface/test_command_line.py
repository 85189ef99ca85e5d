from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import partrain
from tests.program import ROOT, PartrainProcess, Result, call_without_numba

# The usage of every command, whitespace aside. A change here changes what users and scripts rely on.
SPLIT = "[--split {test,validation,train}]"
CHECKPOINT = "[--checkpoint last|best|FILE]"
WEIGHTS = "[--weights {raw,ema}]"
RUNS_DIR = "[--runs-dir DIR]"
NEW_RUN = "[--runs-dir DIR | --run-dir DIR]"
ENGINE = "[--engine process|mpi]"
ELASTIC = "[--elastic] [--spares N]"
IMAGES = "[--size ROWS,COLUMNS] [--channels {1,3}] [--on-broken {error,skip}] [--layout {channels_first,channels_last}]"
DATA = "[--data PATH]"
OBJECTIVE = "[--objective validation/accuracy|validation/loss]"
SWEEP = f"[--runs-dir DIR | --sweep-dir DIR] {OBJECTIVE} [--parallel N] [--workers N] [--html FILE] [-q]"
USAGE = {
    "train": f"--config FILE [--workers N] [--set KEY=VALUE] {ENGINE} {ELASTIC} [-q] {NEW_RUN} "
    "[--init-from RUN|FILE] [--strict] [--dry-run]",
    "find-lr": "--config FILE [--workers N] [--set KEY=VALUE] [--init-from RUN|FILE] [--strict] "
    "[--runs-dir DIR] [--from LR] [--to LR] [--steps N] [--plot FILE.png] "
    "[--json] [-q]",
    "init": "[--data DIR] [-q] [FILE]",
    "resume": f"{RUNS_DIR} [--epochs E] [--max-steps S] [--workers N] [--set KEY=VALUE] {ENGINE} {ELASTIC} [-q] RUN",
    "watch": f"{RUNS_DIR} [-q] RUN",
    "sweep": "[--set KEY=VALUE,VALUE] [--seeds 0..4|0,3,7] [--sampler random|tpe] [--trials N] [--prune] "
    f"--config FILE {SWEEP}",
    "cross-validate": f"[--folds N] [--set KEY=VALUE] --config FILE {SWEEP}",
    "evaluate": f"{RUNS_DIR} {SPLIT} {DATA} {CHECKPOINT} {WEIGHTS} [--workers N] [--json] [-q] RUN",
    "verify": f"{RUNS_DIR} [--all | --from STEP | --find] [--to STEP] {DATA} [--workers N] {ENGINE} [--json] [-q] RUN",
    "predict": f"{RUNS_DIR} [--index I] {SPLIT} {DATA} {CHECKPOINT} {WEIGHTS} [--invert] [--prepare {{mnist}}] "
    "[--json] [-q] RUN [IMAGE ...]",
    "examples": f"{RUNS_DIR} {SPLIT} {DATA} {CHECKPOINT} {WEIGHTS} [--top N] [--json] [-q] RUN",
    "compare": f"{RUNS_DIR} [--all] [--json] [--html FILE] [-q] RUN [RUN ...]",
    "list": f"{RUNS_DIR} [--sort KEY] [--status S] [--filter CONDITION] [--json] [-q] [SWEEP]",
    "note": f"{RUNS_DIR} [--json] [-q] RUN [TEXT ...]",
    "remove": f"{RUNS_DIR} [--yes] [-q] RUN [RUN ...]",
    "export": f"{RUNS_DIR} --to FILE [--format FORMAT] {CHECKPOINT} {WEIGHTS} [-q] RUN",
    "import-article": f"{NEW_RUN} [--mean MEAN] [--std STD] [-q] FILE",
    "bench": f"[--config FILE] [--workers N,N] {ENGINE} [--json] [-q]",
    "config": "[--json | --markdown] [-q]",
    "completion": "[-q] {bash,zsh,fish}",
    "data fetch": "[-q] NAME",
    "data verify": "[-q] NAME",
    "data show": f"{IMAGES} [--sheet FILE] [--json] [-q] NAME|PATH",
    "data pack": f"{IMAGES} --to FILE.npz|DIR [-q] NAME|PATH",
}


def usage(help_text: str) -> str:
    """Return the first paragraph of a help, on one line."""
    return " ".join(help_text.split("\n\n")[0].split())


def listed_commands(help_text: str) -> set[str]:
    return set(re.findall(r"^    ([a-z-]+)", help_text.partition("\ncommands:\n")[2], re.MULTILINE))


def test_every_command_has_this_usage(call_partrain: Callable[..., Result]) -> None:
    for command, arguments in USAGE.items():
        result = call_partrain(*command.split(), "--help")
        assert (result.exit_code, result.stderr) == (0, "")
        assert usage(result.stdout) == f"usage: partrain {command} [-h] {arguments}"
        assert "-h, --help" in result.stdout
        assert "-q, --quiet" in result.stdout


def test_help_lists_every_command_and_no_other(call_partrain: Callable[..., Result]) -> None:
    result = call_partrain("--help")
    assert (result.exit_code, result.stderr) == (0, "")
    assert usage(result.stdout) == "usage: partrain [-h] [--version] COMMAND ..."
    assert listed_commands(result.stdout) == {command.split()[0] for command in USAGE}
    of_data = listed_commands(call_partrain("data", "--help").stdout)
    assert of_data == {command.split()[1] for command in USAGE if " " in command}


def test_version_is_the_packages(call_partrain: Callable[..., Result]) -> None:
    assert call_partrain("--version") == Result(0, f"partrain {partrain.__version__}\n", "")


def test_option_is_not_abbreviated(call_partrain: Callable[..., Result], small_config: Callable[..., Path]) -> None:
    result = call_partrain("--conf", small_config(), "--dry-run")
    assert (result.exit_code, result.stdout) == (2, "")


def test_command_train_may_be_left_out(call_partrain: Callable[..., Result], small_config: Callable[..., Path]) -> None:
    with_command = call_partrain("train", "--config", small_config(), "--workers", 1, "--dry-run")
    assert with_command.exit_code == 0
    assert call_partrain("--config", small_config(), "--workers", 1, "--dry-run") == with_command
    assert call_partrain("--dry-run", "--workers", 1, "--config", small_config()) == with_command


@pytest.mark.slow
def test_console_script_is_the_same_program(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path]
) -> None:
    installed = Path(sys.executable).with_name("partrain")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["partrain"].partition(":")
    wrapper = f"import sys; from {module} import {function}; sys.exit({function}())"
    script = [str(installed)] if installed.exists() else [sys.executable, "-c", wrapper]
    for arguments in (["--version"], ["--config", "missing.yaml"], ["--config", str(small_config()), "--dry-run"]):
        as_module = run_partrain(*arguments, fresh=True)
        assert run_partrain(*arguments, program=script) == as_module


def test_dry_run_prints_the_plan_and_creates_nothing(
    call_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    result = call_partrain("--config", small_config(), "--workers", 3, "--dry-run", "-q", "--runs-dir", runs)
    assert (result.exit_code, result.stderr) == (0, "")
    assert not runs.exists()
    for expected in ("batch_size: 20", "decay_steps: 10", "conv1", "2 x 24 x 24", "3 workers", "memory plan"):
        assert expected in result.stdout


def test_dry_run_on_files_imports_no_numba(noise_folder: Path, small_config: Callable[..., Path]) -> None:
    config = small_config({"data": {"name": "idx", "path": str(noise_folder)}})
    assert call_without_numba("--config", config, "--dry-run") == 0


def test_stdout_is_the_run_directory_and_nothing_else(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    result = run_partrain("--config", small_config(), "--workers", 2, "--runs-dir", "runs")
    assert result.exit_code == 0, result.stderr
    assert re.fullmatch(r"runs/\d{8}-\d{6}-small\n", result.stdout)
    assert (tmp_path / result.stdout.strip() / "summary.json").is_file()
    assert "step 10/10" in result.stderr
    assert "\r" not in result.stderr
    assert "\033" not in result.stderr
    assert "Warning" not in result.stderr
    assert "Traceback" not in result.stderr


def test_quiet_run_prints_nothing_on_stderr(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path]
) -> None:
    result = run_partrain("--config", small_config(), "--workers", 2, "--run-dir", "the-run", "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "the-run\n", "")


def test_runs_are_created_in_the_directory_runs_by_default(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    result = run_partrain("--config", small_config(), "--workers", 0, "-q")
    assert result.run.parent == Path("runs")
    assert (tmp_path / result.run).is_dir()


def test_command_line_overrides_the_file(
    call_partrain: Callable[..., Result], small_config: Callable[..., Path]
) -> None:
    changes = ["--set", "training.optimizer.lr=2e-3", "--set", "seed=7", "--set", "network.0.conv.filters=4"]
    result = call_partrain("--config", small_config(), *changes, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "lr: 0.002" in result.stdout
    assert "seed: 7" in result.stdout
    assert "4 x 24 x 24" in result.stdout


def on_terminal(start: Callable[..., PartrainProcess], *arguments: object, env: dict[str, str | None]) -> str:
    """Return the output of the program on a terminal of 120 columns."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    said = bytearray()

    def read() -> None:
        try:
            while data := os.read(master, 4096):
                said.extend(data)
        except OSError:
            pass  # EIO: the last process has closed the terminal

    reader = threading.Thread(target=read)
    reader.start()
    try:
        process = start(*arguments, env=env, stderr=slave)
        os.close(slave)
        assert process.wait().exit_code == 0
    finally:
        reader.join(60)
        os.close(master)
    return said.decode()


def test_progress_on_a_terminal_is_one_moving_line(
    start_partrain: Callable[..., PartrainProcess], small_config: Callable[..., Path]
) -> None:
    config = small_config({"training.epochs": 20, "training.tile": 10})
    arguments = ("--config", config, "--workers", 8)
    said = on_terminal(start_partrain, *arguments, env={"NO_COLOR": None, "TERM": "xterm"})
    bars = [line for line in said.split("\r") if "step" in line and "%|" in line]
    assert len(bars) >= 2
    assert re.search(r"epoch 20/20.*100%\|.*step 200/200, 00:00 left, loss \d+\.\d{4}, [\d,]+ examples/s", said)
    assert "\033[1;33mwarning: a batch has 2 tiles" in said


def test_no_color_keeps_colours_from_the_terminal(
    start_partrain: Callable[..., PartrainProcess], small_config: Callable[..., Path]
) -> None:
    arguments = ("--config", small_config({"training.tile": 10}), "--workers", 8)
    said = on_terminal(start_partrain, *arguments, env={"NO_COLOR": "1", "TERM": "xterm"})
    assert "warning: a batch has 2 tiles" in said
    assert not re.search(r"\033\[[0-9;]*m", said)
