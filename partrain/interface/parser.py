"""What the command line takes: its commands, and the options of each."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

import partrain
from partrain.analysis.listing import COLUMNS, STATUSES
from partrain.analysis.logged_run import SPLITS

COMMANDS = (
    "train",
    "resume",
    "evaluate",
    "predict",
    "examples",
    "compare",
    "list",
    "export",
    "import-article",
    "bench",
    "data",
)

RUNS_DIR = "runs"


def parse(given: Sequence[str]) -> argparse.Namespace:
    """Read the command line; print what is wrong with it, or the help, and end the program.

    Images may stand before and after options, which argparse does not allow by itself.

    Parameters
    ----------
    given : the command line without the program's name, from the command on.

    Returns
    -------
    `command`, one of COMMANDS or "data fetch" and its like, and the values of its options.
    """
    parser = build_parser()
    options, rest = parser.parse_known_args(given)
    images = [argument for argument in rest if hasattr(options, "images") and not argument.startswith("-")]
    unknown = [argument for argument in rest if argument not in images]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if images:
        options.images += images
    return options


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="partrain",
        description=partrain.__doc__,
        epilog="With no command named, the command is train.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"partrain {partrain.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    _add_resume(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    _add_examples(commands)
    _add_compare(commands)
    _add_list(commands)
    _add_export(commands)
    _add_import_article(commands)
    _add_bench(commands)
    _add_data(commands)
    return parser


def _add_train(commands: Any) -> None:
    train = _add_command(
        commands,
        "train",
        help="train into a new run directory; prints its path",
        description="Train into a new run directory, and print its path as the last line of stdout.",
        epilog="example: partrain --config configs/mnist.yaml --workers 8 --set training.optimizer.lr=0.01",
    )
    train.add_argument("--config", required=True, metavar="FILE", help="the configuration, a YAML file")
    _add_options_of_training(train)
    where = train.add_mutually_exclusive_group()
    where.add_argument(
        "--runs-dir",
        default=RUNS_DIR,
        metavar="DIR",
        help=f"the folder that the run goes into (default: {RUNS_DIR})",
    )
    where.add_argument("--run-dir", metavar="DIR", help="the run's own directory, which must not exist")
    train.add_argument(
        "--init-from",
        metavar="RUN",
        help="begin with the parameters of this run's newest checkpoint: a path, a name in the runs folder, or last",
    )
    train.add_argument(
        "--dry-run", action="store_true", help="print configuration, layers and memory plan, and train nothing"
    )


def _add_resume(commands: Any) -> None:
    resume = _add_command(
        commands,
        "resume",
        help="go on with a run from its newest good checkpoint",
        description="Go on with a run, in its directory, to the bits of the run that was never stopped.",
        epilog="example: partrain resume last --workers 4",
    )
    _add_run(resume)
    resume.add_argument("--epochs", type=_positive_number, metavar="E", help="train to this many epochs")
    resume.add_argument("--max-steps", type=_positive_number, metavar="S", help="train to at most this step")
    _add_options_of_training(resume)


def _add_evaluate(commands: Any) -> None:
    evaluate = _add_command(
        commands,
        "evaluate",
        help="accuracy, recall and precision of each class, confusion matrix; pictures",
        description="Evaluate a trained network on its data. Prints the figures, and writes them and pictures into "
        "the run; a training under way is not disturbed.",
        epilog="example: partrain evaluate last --split test --checkpoint best --json",
    )
    _add_run(evaluate)
    evaluate.add_argument("--split", choices=SPLITS, default="test", help="which examples (default: test)")
    _add_checkpoint(evaluate)
    _add_workers(evaluate)
    evaluate.add_argument("--json", action="store_true", help="print the figures as JSON, as the run keeps them")
    _add_quiet(evaluate)


def _add_predict(commands: Any) -> None:
    predict = _add_command(
        commands,
        "predict",
        help="class and probability of image files, or of an example of the data set",
        description="Classify image files (PNG, JPEG, .npy), or an example of the data set: class, probability, and "
        "the next two classes. Pictures are made grey or coloured, and resized, as the network wants them.",
        epilog="examples: partrain predict last digit.png --invert; partrain predict last --index 17 --split test",
    )
    _add_run(predict)
    predict.add_argument("images", nargs="*", metavar="IMAGE", help="a PNG or JPEG file, or an .npy array")
    predict.add_argument(
        "--index", type=_non_negative_number, metavar="I", help="the example of the data set, counted from 0"
    )
    predict.add_argument("--split", choices=SPLITS, help="the examples that --index counts (default: test)")
    _add_checkpoint(predict)
    predict.add_argument(
        "--invert", action="store_true", help="for dark on light, where the network knows light on dark"
    )
    predict.add_argument("--json", action="store_true", help="print a list with an object for each image, as JSON")
    _add_quiet(predict)


def _add_examples(commands: Any) -> None:
    examples = _add_command(
        commands,
        "examples",
        help="the examples with the largest loss and gradient norm",
        description="Find the examples that a trained network finds hardest: those with the largest loss, and those "
        "with the largest gradient norm. Wrong labels come out on top. Draws a sheet of pictures into the run.",
        epilog="example: partrain examples last --split train --top 50",
    )
    _add_run(examples)
    examples.add_argument("--split", choices=SPLITS, default="train", help="which examples (default: train)")
    examples.add_argument(
        "--top", type=_positive_number, default=25, metavar="N", help="how many of each kind (default: 25)"
    )
    examples.add_argument("--json", action="store_true", help="print the facts as JSON")
    _add_quiet(examples)


def _add_export(commands: Any) -> None:
    export = _add_command(
        commands,
        "export",
        help="write a run's parameters or metrics in the format of other programs",
        description="Write the parameters of a run's newest checkpoint, or its metrics, in another format.",
        epilog="example: partrain export last --to model.onnx",
    )
    _add_run(export)
    export.add_argument(
        "--to",
        required=True,
        metavar="FILE",
        help="the file to write, which is replaced if it exists; its ending says the format "
        "(.safetensors, .npz, .onnx, .csv). For tensorboard a folder",
    )
    export.add_argument(
        "--format", metavar="FORMAT", help="safetensors, npz, onnx, csv or tensorboard, whatever the file's ending"
    )
    _add_quiet(export)


def _add_import_article(commands: Any) -> None:
    article = _add_command(
        commands,
        "import-article",
        help="turn the article's saved parameters into a run",
        description="Turn the article's saved file, a pickle of [params, cost], into a run, and print its path.",
        epilog="example: partrain import-article params.pkl --run-dir runs/article",
    )
    article.add_argument("file", metavar="FILE", help="the pickle")
    article.add_argument(
        "--run-dir",
        metavar="DIR",
        help=f"the run's own directory, which must not exist (default: a new one in {RUNS_DIR}/)",
    )
    article.add_argument(
        "--mean",
        type=_finite_number,
        default=33.0,
        metavar="MEAN",
        help="what was subtracted from each pixel (default: 33, as of MNIST's test images)",
    )
    article.add_argument(
        "--std",
        type=_positive_finite_number,
        default=79.0,
        metavar="STD",
        help="what each difference was divided by (default: 79)",
    )
    _add_quiet(article)


def _add_bench(commands: Any) -> None:
    bench = _add_command(
        commands,
        "bench",
        help="measure this machine: kernels, phases of a step, scaling",
        description="Measure this machine, and print a report; trains a while, and keeps nothing.",
        epilog="example: partrain bench --config configs/mnist.yaml --workers 1,2,4 --json",
    )
    bench.add_argument(
        "--config", metavar="FILE", help="what to train (default: the article's network on drawn digits)"
    )
    bench.add_argument(
        "--workers",
        type=_numbers_of_workers,
        metavar="N,N",
        help="numbers of workers, e.g. 1,2,4 (default: 1, 2, 4 … to the processors that may be used); 0: no processes",
    )
    _add_engine(bench)
    bench.add_argument("--json", action="store_true", help="print the facts as JSON")
    _add_quiet(bench)


def _add_compare(commands: Any) -> None:
    compare = _add_command(
        commands,
        "compare",
        help="what differs between runs, and their results side by side",
        description="Hold runs against each other: what differs in the configurations, the results side by side, "
        "whether the parameters have the same bits, and whether a difference is real.",
        epilog="example: partrain compare last~1 last --html comparison.html",
    )
    compare.add_argument(
        "references", nargs="+", metavar="RUN", help="a path, a name in runs/, last, or last~1; two or more"
    )
    compare.add_argument("--all", action="store_true", help="also what is the same in all runs")
    compare.add_argument("--json", action="store_true", help="print the facts as JSON")
    compare.add_argument("--html", metavar="FILE", help="write a page with curves and tables, for any browser")
    _add_quiet(compare)


def _add_list(commands: Any) -> None:
    listing = _add_command(
        commands,
        "list",
        help="the runs: status, steps, accuracies, time",
        description="List the runs in a folder, the newest first. A run that is broken is listed as such.",
        epilog="example: partrain list --sort validation --status completed",
    )
    listing.add_argument("--runs-dir", metavar="DIR", help=f"the folder of runs (default: {RUNS_DIR})")
    listing.add_argument(
        "--sort",
        choices=COLUMNS,
        default="age",
        metavar="KEY",
        help=f"by which column: {', '.join(COLUMNS)} (default: age, the newest first)",
    )
    listing.add_argument("--status", choices=STATUSES, metavar="S", help=f"only runs that are: {', '.join(STATUSES)}")
    listing.add_argument("--json", action="store_true", help="print the facts as JSON")
    _add_quiet(listing)


def _add_data(commands: Any) -> None:
    data = commands.add_parser(
        "data",
        help="data sets ahead of time",
        description="Data sets ahead of time.",
        epilog="example: partrain data fetch mnist",
        allow_abbrev=False,
    )
    commands = data.add_subparsers(required=True, metavar="COMMAND")
    for name, what in (
        ("fetch", "fetch the files of a data set that are not on this machine, and verify all"),
        ("verify", "compare the files of a data set that are on this machine with their digests"),
    ):
        command = _add_command(
            commands,
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}. Prints a table of the files.",
            epilog=f"example: partrain data {name} mnist",
        )
        command.set_defaults(command=f"data {name}")
        command.add_argument("name", metavar="NAME", help="mnist, fashion-mnist or cifar-10")
        _add_quiet(command)
    show = _add_command(
        commands,
        "show",
        help="counts, classes, balance and duplicates of a data set, and a sheet of examples",
        description="Print how many examples of each class a data set has and which images stand in two splits, and "
        "draw some of each class.",
        epilog="example: partrain data show pictures/ --size 32",
    )
    show.set_defaults(command="data show")
    _add_source(show)
    show.add_argument(
        "--sheet", metavar="FILE", help="where the sheet is written (default: NAME-examples.png in this folder)"
    )
    show.add_argument("--json", action="store_true", help="print the facts as JSON")
    _add_quiet(show)
    pack = _add_command(
        commands,
        "pack",
        help="write a data set as NumPy arrays",
        description="Write a data set as NumPy arrays, which data.name: arrays takes, and print the path.",
        epilog="example: partrain data pack pictures/ --size 32 --to pictures.npz",
    )
    pack.set_defaults(command="data pack")
    _add_source(pack)
    pack.add_argument(
        "--to",
        required=True,
        metavar="FILE.npz|DIR",
        help="a file, which is replaced if it exists, or a new folder of files that are mapped",
    )
    _add_quiet(pack)


def _add_source(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "source",
        metavar="NAME|PATH",
        help="a data set's name, a folder of pictures, of .npy or of IDX files, an .npz file, or a configuration",
    )
    command.add_argument(
        "--size",
        type=_rows_and_columns,
        metavar="ROWS,COLUMNS",
        help="to what size pictures are brought; one number for both",
    )
    command.add_argument("--channels", type=int, choices=(1, 3), help="of pictures: grey or colour (default: 3)")
    command.add_argument(
        "--on-broken", choices=("error", "skip"), help="what to do with a broken picture (default: error)"
    )


def _add_command(commands: Any, name: str, **texts: str) -> argparse.ArgumentParser:
    """Add a command with its help, description and epilog; in what is read it stands as `command`."""
    command: argparse.ArgumentParser = commands.add_parser(name, allow_abbrev=False, **texts)
    command.set_defaults(command=name)
    return command


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("reference", metavar="RUN", help="a path, a name in runs/, last, or last~1")


def _add_checkpoint(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--checkpoint",
        default="last",
        metavar="last|best|FILE",
        help="the newest (the default), the one with the best validation accuracy, or a file",
    )


def _add_workers(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--workers",
        type=_number_of_workers,
        metavar="N",
        help="processes that compute (default: the processors that may be used); 0: the coordinator computes",
    )


def _add_options_of_training(command: argparse.ArgumentParser) -> None:
    _add_workers(command)
    command.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="override a value of the configuration, e.g. logging.every_steps=1; may be given several times",
    )
    _add_engine(command)
    _add_quiet(command)


def _add_engine(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--engine",
        choices=("process", "mpi"),
        default="process",
        metavar="process|mpi",
        help="who computes: this host's processes (the default), or those of all hosts that mpiexec started this on",
    )


def _add_quiet(command: argparse.ArgumentParser) -> None:
    command.add_argument("-q", "--quiet", action="store_true", help="say only warnings and errors")


def _number_of_workers(text: str) -> int:
    return _whole_number(text, 0, 4096)


def _rows_and_columns(text: str) -> list[int]:
    rows, comma, columns = text.partition(",")
    return [_positive_number(rows), _positive_number(columns if comma else rows)]


def _numbers_of_workers(text: str) -> list[int]:
    return [_number_of_workers(number) for number in text.split(",")]


def _non_negative_number(text: str) -> int:
    return _whole_number(text, 0, 2**31 - 1)


def _positive_number(text: str) -> int:
    return _whole_number(text, 1, 2**31 - 1)


def _whole_number(text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
    return int(text)


def _finite_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return number


def _positive_finite_number(text: str) -> float:
    number = _finite_number(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number
