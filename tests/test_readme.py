"""README's commands run as they are written, in order, in one directory with small data."""

from __future__ import annotations

import itertools
import pickle
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.article_file import article_params
from tests.benchmarks.expect_of_hosts import tables_of
from tests.noise_data import noise_examples
from tests.program import ROOT, PartrainProcess
from tests.small_run import write_small_config

# A block of README holds commands if its first line starts with one of these programs.
PROGRAMS = ("python", "python3", "partrain", "pip", "source", "export", "mpiexec", "srun", "ruff", "mypy", "pytest")
PARTRAIN = (["partrain"], ["python", "-m", "partrain"], ["python3", "-m", "partrain"])

# Commands that are not run here, by the start of the command, with the reason.
NOT_RUN = {
    "python3 -m venv": "tests have an environment; .ci/run makes one by README's test command",
    "python -m venv": "tests have an environment; .ci/run makes one by README's test command",
    "pip install": "tests have an environment; .ci/run makes one by README's test command",
    "source": "tests have an environment; .ci/run makes one by README's test command",
    "python -m pytest": "this is a test",
    "pytest": "this is a test",
    "ruff": "run by .ci/run",
    "mypy": "run by .ci/run",
    ".ci/run": "runs the tests",
    "mpiexec": "tests/end_to_end/test_mpi.py runs jobs of several ranks",
    "srun": "needs Slurm",
    "python tests/": "benchmarks and the soak test take many minutes",
    "partrain data fetch": "needs a network; tests/data/test_dataset_files.py runs it with a mirror of its own",
    "partrain data verify": "needs the whole data set; tests/data/test_dataset_files.py runs it",
}
# Trainings are made short, and use data that every machine has.
SHORT = ("data.name=synthetic-digits", "data.train_examples=64", "data.validation_examples=16", "training.max_steps=3")
WRITES = ("--to", "--sheet", "--html", "--run-dir", "--runs-dir")


def code_blocks(text: str) -> Iterator[list[str]]:
    """Yield the lines of each fenced block that names no other language than a shell's."""
    for language, body in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if language in ("", "sh", "bash", "shell", "console"):
            yield body.replace("\\\n", " ").splitlines()


def commands_of(text: str) -> list[str]:
    """Return the commands of all blocks; where lines begin with `$ `, the others are output."""
    found = []
    for lines in code_blocks(text):
        prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        lines = prompted or [line for line in lines if line.strip() and not line.startswith("#")]
        if lines and program_of(lines[0]) in PROGRAMS:
            found += [part.strip() for line in lines for part in line.split("&&")]
    return found


def program_of(command: str) -> str:
    """Return the name of the program that a command starts, without its directory."""
    words = parse(command)[1]
    return Path(words[0]).name if words else ""


def parse(command: str) -> tuple[dict[str, str], list[str]]:
    """Return the variables that a command sets, and its words, the program without `.venv/bin/`."""
    words = shlex.split(command, comments=True)
    variables = dict(word.split("=", 1) for word in itertools.takewhile(re.compile(r"\w+=").match, words))
    words = words[len(variables) :]
    return variables, [word.removeprefix(".venv/bin/") for word in words[:1]] + words[1:]


def reason_not_to_run(words: list[str]) -> str | None:
    command = " ".join(words)
    return next((reason for start, reason in NOT_RUN.items() if command.startswith(start)), None)


def arguments_of(words: list[str]) -> list[str] | None:
    """Return the arguments of partrain, shortened where it trains; None for another program."""
    for start in PARTRAIN:
        if words[: len(start)] == start:
            arguments = words[len(start) :]
            if "--config" in arguments and "bench" not in arguments:
                arguments += [word for change in SHORT for word in ("--set", change)]
            return arguments
    return None


def write_missing_files(arguments: list[str], folder: Path) -> None:
    """Write the images and files that a command reads and README does not write before."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        path = folder / argument
        if before in WRITES or path.exists():
            continue
        if path.suffix == ".npy":
            np.save(path, noise_examples(1)[0][0])
        elif path.suffix in (".png", ".jpg"):
            pytest.importorskip("PIL.Image", reason="Pillow is missing").fromarray(noise_examples(1)[0][0]).save(path)
        elif path.suffix == ".pkl":
            path.write_bytes(pickle.dumps([article_params(), [2.3, 0.5]]))


def test_commands_are_found_between_prose_and_output() -> None:
    text = (
        "```\n$ partrain list\nname\n```\n```\nname  steps\n```\n```sh\nA=1 python -m partrain \\\n --config x\n```\n"
    )
    assert [parse(command) for command in commands_of(text)] == [
        ({}, ["partrain", "list"]),
        ({"A": "1"}, ["python", "-m", "partrain", "--config", "x"]),
    ]
    assert commands_of("```\npip install . && partrain list\n```\n") == ["pip install .", "partrain list"]


def test_every_command_of_readme_works(tmp_path: Path) -> None:
    commands = commands_of((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(commands) >= 8
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    config = write_small_config(tmp_path)
    # In place of the example runs, which need MNIST: tests/end_to_end/test_example_runs.py looks at those.
    for name in ("example-mnist-constant-lr", "example-mnist"):
        words = ["--config", str(config), "--run-dir", f"runs/{name}", "--workers", "0"]
        assert PartrainProcess(words, tmp_path).wait().exit_code == 0
    failed = []
    for command in commands:
        variables, words = parse(command)
        if reason_not_to_run(words) is not None:
            continue
        arguments = arguments_of(words)
        assert arguments is not None, f"{command}: is not a command of partrain, and NOT_RUN does not say why"
        write_missing_files(arguments, tmp_path)
        result = PartrainProcess(arguments, tmp_path, variables).wait()
        if result.exit_code != 0:
            failed.append((command, result.exit_code, result.stderr))
    assert not failed


def test_speed_ups_of_more_hosts_are_what_the_command_prints() -> None:
    readme = (ROOT / "README.md").read_text()
    found = re.search(r"expect_of_hosts\.py --times ([\d ]+)`", readme)
    assert found is not None
    tables = tables_of(str(ROOT / "configs/mnist.yaml"), [float(us) for us in found[1].split()])
    rows = [line.partition(" | ")[2] for line in tables.splitlines() if re.match(r"\| \d+ \|", line)]
    this_network, larger = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    for row in [*this_network, larger[-1]]:
        assert f" | {row}\n" in readme
