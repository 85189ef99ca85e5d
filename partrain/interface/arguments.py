"""Arguments that several commands share, and the types of argument values."""

from __future__ import annotations

import argparse
import math

from partrain.data.split_name import SplitName
from partrain.store.run_lookup import RUNS_DIR_VARIABLE

RUN_HELP = "a path, the name of a run or its beginning, last (the newest run), or last~1 (the one before it)"
SPLITS = tuple(split.value for split in reversed(SplitName))


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the argument RUN."""
    parser.add_argument("run", metavar="RUN", help=RUN_HELP)
    add_runs_dir(parser)


def add_runs_dir(parser: argparse._ActionsContainer) -> None:
    """Add `--runs-dir`, for a command that looks for runs or creates one."""
    parser.add_argument(
        "--runs-dir", metavar="DIR", help=f"the directory of runs (default: ${RUNS_DIR_VARIABLE}, or else runs)"
    )


def add_new_run_location(parser: argparse.ArgumentParser) -> None:
    """Add `--runs-dir` and `--run-dir`, for a command that creates a run."""
    location = parser.add_mutually_exclusive_group()
    add_runs_dir(location)
    location.add_argument(
        "--run-dir",
        metavar="DIR",
        help="the run's directory itself, which must not exist (default: a new one in the directory of runs)",
    )


def add_data_set(parser: argparse.ArgumentParser) -> None:
    """Add the argument NAME of a data set that has files."""
    parser.add_argument("name", metavar="NAME", help="mnist, fashion-mnist or cifar-10")


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add `--checkpoint`."""
    parser.add_argument(
        "--checkpoint",
        default="last",
        metavar="last|best|FILE",
        help="the newest checkpoint (default), the one with the best validation accuracy, or a file",
    )


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add `--weights`."""
    parser.add_argument(
        "--weights",
        choices=("raw", "ema"),
        default="raw",
        help="ema: the averaged weights, if the run has them (training.ema)",
    )


def add_split(parser: argparse.ArgumentParser, default: str) -> None:
    """Add `--split` with a default value."""
    parser.add_argument("--split", choices=SPLITS, default=default, help=f"the split to use (default: {default})")


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add `--data`."""
    parser.add_argument(
        "--data", metavar="PATH", help="where the run's data is, if it has moved (default: where it was in training)"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add `--quiet`."""
    parser.add_argument("-q", "--quiet", action="store_true", help="print only warnings and errors")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add `--workers`."""
    parser.add_argument(
        "--workers",
        type=worker_count,
        metavar="N",
        help="number of worker processes (default: the number of usable processors); "
        "0: compute in the main process; the result is the same",
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add `--engine`."""
    parser.add_argument(
        "--engine",
        choices=("process", "mpi"),
        default="process",
        metavar="process|mpi",
        help="process: compute with processes of this machine (default); "
        "mpi: compute with all ranks that mpiexec started",
    )


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add `--set`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="override a configuration value, e.g. logging.every_steps=1; repeatable",
    )


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that all commands that train have."""
    add_workers(parser)
    add_overrides(parser)
    add_engine(parser)
    parser.add_argument(
        "--elastic",
        action="store_true",
        help="with --engine mpi: go on with the other ranks when a rank dies (needs mpiexec --with-ft ulfm)",
    )
    parser.add_argument(
        "--spares",
        type=positive_integer,
        metavar="N",
        help="with --elastic: the last N ranks wait, with data and kernels, and take the places of ranks that die",
    )
    add_quiet(parser)


def worker_count(text: str) -> int:
    """Return the number of workers that `text` gives."""
    return _integer(text, 0, 4096)


def worker_counts(text: str) -> list[int]:
    """Return the numbers of workers that `text` lists, separated by commas."""
    return [worker_count(number) for number in text.split(",")]


def image_size(text: str) -> list[int]:
    """Return rows and columns from "ROWS,COLUMNS", or from one number for both."""
    rows, comma, columns = text.partition(",")
    return [positive_integer(rows), positive_integer(columns if comma else rows)]


def non_negative_integer(text: str) -> int:
    """Return an integer of at least 0."""
    return _integer(text, 0, 2**31 - 1)


def positive_integer(text: str) -> int:
    """Return an integer of at least 1."""
    return _integer(text, 1, 2**31 - 1)


def finite_number(text: str) -> float:
    """Return a floating-point number that is finite."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return number


def positive_number(text: str) -> float:
    """Return a finite floating-point number above 0."""
    number = finite_number(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def _integer(text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
    return int(text)
