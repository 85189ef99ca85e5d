"""The command line: reads it, runs one command, and turns errors into a message and an exit code."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import partrain
from partrain.config import read_config
from partrain.errors import ConfigError, PartrainError, RunError
from partrain.interruption import Interrupted, Interruption
from partrain.listing import COLUMNS, STATUSES, list_runs
from partrain.listing import describe as describe_list
from partrain.logged_run import LoggedRun
from partrain.messages import Messages
from partrain.normalisation import Normalisation
from partrain.parallel.machine import available_processors
from partrain.store.durable_files import json_text
from partrain.store.run_directory import Place, check_writable, validate_run_name
from partrain.store.run_lookup import find_run

COMMANDS = ("train", "resume", "evaluate", "predict", "compare", "list", "export", "import-article", "bench", "data")

RUNS_DIR = "runs"
SPLITS = ("test", "validation", "train")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code.

    Parameters
    ----------
    arguments : the command line without the program's name; `sys.argv` by default.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] and given[0] not in COMMANDS and given[0] not in ("-h", "--help", "--version"):
        given.insert(0, "train")
    options = _parse(given)
    messages = Messages(quiet=options.quiet)
    interruption = Interruption()
    try:
        with interruption.watching():
            options.run(options, ["partrain", *given], messages, interruption)
    except PartrainError as error:
        messages.error(str(error))
        return error.exit_code
    except Interrupted as interrupted:
        messages.error(f"ended by {interrupted}")
        return interrupted.exit_code
    return 0


def _parse(given: Sequence[str]) -> argparse.Namespace:
    """Read the command line; images may stand before and after options, which argparse does not allow by itself."""
    parser = _parser()
    options, rest = parser.parse_known_args(given)
    images = [argument for argument in rest if hasattr(options, "images") and not argument.startswith("-")]
    unknown = [argument for argument in rest if argument not in images]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if images:
        options.images += images
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="partrain",
        description=partrain.__doc__,
        epilog="With no command named, the command is train.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"partrain {partrain.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    train = commands.add_parser(
        "train",
        help="train into a new run directory; prints its path",
        description="Train into a new run directory, and print its path as the last line of stdout.",
        epilog="example: partrain --config configs/mnist.yaml --workers 8 --set training.optimizer.lr=0.01",
        allow_abbrev=False,
    )
    train.set_defaults(run=_train)
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
    resume = commands.add_parser(
        "resume",
        help="go on with a run from its newest good checkpoint",
        description="Go on with a run, in its directory, to the bits of the run that was never stopped.",
        epilog="example: partrain resume last --workers 4",
        allow_abbrev=False,
    )
    resume.set_defaults(run=_resume)
    _add_run(resume)
    resume.add_argument("--epochs", type=_positive_number, metavar="E", help="train to this many epochs")
    resume.add_argument("--max-steps", type=_positive_number, metavar="S", help="train to at most this step")
    _add_options_of_training(resume)
    evaluate = commands.add_parser(
        "evaluate",
        help="accuracy, recall and precision of each class, confusion matrix; pictures",
        description="Evaluate a trained network on its data. Prints the figures, and writes them and pictures into "
        "the run; a training under way is not disturbed.",
        epilog="example: partrain evaluate last --split test --checkpoint best --json",
        allow_abbrev=False,
    )
    evaluate.set_defaults(run=_evaluate)
    _add_run(evaluate)
    evaluate.add_argument("--split", choices=SPLITS, default="test", help="which examples (default: test)")
    _add_checkpoint(evaluate)
    _add_workers(evaluate)
    evaluate.add_argument("--json", action="store_true", help="print the figures as JSON, as the run keeps them")
    _add_quiet(evaluate)
    predict = commands.add_parser(
        "predict",
        help="class and probability of image files, or of an example of the data set",
        description="Classify image files (PNG, JPEG, .npy), or an example of the data set: class, probability, and "
        "the next two classes. Pictures are made grey or coloured, and resized, as the network wants them.",
        epilog="examples: partrain predict last digit.png --invert; partrain predict last --index 17 --split test",
        allow_abbrev=False,
    )
    predict.set_defaults(run=_predict)
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
    _add_compare(commands)
    _add_list(commands)
    export = commands.add_parser(
        "export",
        help="write a run's parameters or metrics in the format of other programs",
        description="Write the parameters of a run's newest checkpoint, or its metrics, in another format.",
        epilog="example: partrain export last --to model.onnx",
        allow_abbrev=False,
    )
    export.set_defaults(run=_export)
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
    article = commands.add_parser(
        "import-article",
        help="turn the article's saved parameters into a run",
        description="Turn the article's saved file, a pickle of [params, cost], into a run, and print its path.",
        epilog="example: partrain import-article params.pkl --run-dir runs/article",
        allow_abbrev=False,
    )
    article.set_defaults(run=_import_article)
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
    bench = commands.add_parser(
        "bench",
        help="measure this machine: kernels, phases of a step, scaling",
        description="Measure this machine, and print a report; trains a while, and keeps nothing.",
        epilog="example: partrain bench --config configs/mnist.yaml --workers 1,2,4 --json",
        allow_abbrev=False,
    )
    bench.set_defaults(run=_bench)
    bench.add_argument(
        "--config", metavar="FILE", help="what to train (default: the article's network on drawn digits)"
    )
    bench.add_argument(
        "--workers",
        type=_numbers_of_workers,
        metavar="N,N",
        help="numbers of workers, e.g. 1,2,4 (default: 1, 2, 4 … to the processors that may be used); 0: no processes",
    )
    bench.add_argument("--json", action="store_true", help="print the facts as JSON")
    _add_quiet(bench)
    _add_data_commands(commands.add_parser("data", help="data sets ahead of time", allow_abbrev=False))
    return parser


def _add_compare(commands: Any) -> None:
    compare = commands.add_parser(
        "compare",
        help="what differs between runs, and their results side by side",
        description="Hold runs against each other: what differs in the configurations, the results side by side, "
        "whether the parameters have the same bits, and whether a difference is real.",
        epilog="example: partrain compare last~1 last --html comparison.html",
        allow_abbrev=False,
    )
    compare.set_defaults(run=_compare)
    compare.add_argument(
        "references", nargs="+", metavar="RUN", help="a path, a name in runs/, last, or last~1; two or more"
    )
    compare.add_argument("--all", action="store_true", help="also what is the same in all runs")
    compare.add_argument("--json", action="store_true", help="print the facts as JSON")
    compare.add_argument("--html", metavar="FILE", help="write a page with curves and tables, for any browser")
    _add_quiet(compare)


def _add_list(commands: Any) -> None:
    listing = commands.add_parser(
        "list",
        help="the runs: status, steps, accuracies, time",
        description="List the runs in a folder, the newest first. A run that is broken is listed as such.",
        epilog="example: partrain list --sort validation --status completed",
        allow_abbrev=False,
    )
    listing.set_defaults(run=_list)
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


def _add_data_commands(data: argparse.ArgumentParser) -> None:
    data.description = "Data sets ahead of time."
    data.epilog = "example: partrain data fetch mnist"
    commands = data.add_subparsers(required=True, metavar="COMMAND")
    for name, run, what in (
        ("fetch", _data_fetch, "fetch the files of a data set that are not on this machine, and verify all"),
        ("verify", _data_verify, "compare the files of a data set that are on this machine with their digests"),
    ):
        command = commands.add_parser(
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}. Prints a table of the files.",
            epilog=f"example: partrain data {name} mnist",
            allow_abbrev=False,
        )
        command.set_defaults(run=run)
        command.add_argument("name", metavar="NAME", help="mnist or fashion-mnist")
        _add_quiet(command)


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
    _add_quiet(command)


def _add_quiet(command: argparse.ArgumentParser) -> None:
    command.add_argument("-q", "--quiet", action="store_true", help="say only warnings and errors")


def _number_of_workers(text: str) -> int:
    return _whole_number(text, 0, 4096)


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


def _train(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    config = read_config(options.config, options.overrides)
    validate_run_name(config.name)
    num_workers = _num_workers(options)
    initial = None
    if options.init_from is not None:
        from partrain.initial_parameters import read_initial_parameters

        initial = read_initial_parameters(find_run(options.init_from, Path(options.runs_dir)), messages.warn)
    if options.dry_run:
        from partrain.preparation import describe_plan, prepare

        preparation = prepare(config, say=messages.say, warn=messages.warn)
        if initial is not None:
            initial.require_fit(preparation.network)
        print(describe_plan(preparation, num_workers))
        return
    # Before anything starts: a job that could not be kept is not begun.
    run_dir = Path(options.run_dir) if options.run_dir is not None else None
    if run_dir is not None and os.path.lexists(run_dir):
        raise RunError(f"{run_dir}: exists already. Choose another --run-dir, or go on with that run.")
    from partrain.training_run import Session, train_new_run

    place = Place(Path(options.runs_dir), run_dir)
    check_writable(place.folder)
    session = Session(num_workers, command_line, messages, interruption)
    print(train_new_run(config, place, session, initial).path)


def _resume(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    path = find_run(options.reference, Path(RUNS_DIR))
    from partrain.resumption import Horizon
    from partrain.training_run import Session, resume_run

    horizon = Horizon(options.epochs, options.max_steps)
    session = Session(_num_workers(options), command_line, messages, interruption)
    print(resume_run(path, options.overrides, horizon, session).path)


def _evaluate(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    path = find_run(options.reference, Path(RUNS_DIR))
    from partrain.classification_report import describe
    from partrain.plots.run_plots import write_plots
    from partrain.run_evaluation import evaluate_run

    evaluated = evaluate_run(path, options.split, options.checkpoint, _num_workers(options), messages, interruption)
    _print(json_text(evaluated.report) if options.json else describe(evaluated.report))
    trained = evaluated.trained
    write_plots(
        trained.run,
        trained.network,
        trained.parameters,
        evaluated.dataset,
        evaluated.split,
        evaluated.report,
        messages,
    )


def _predict(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    if bool(options.images) == (options.index is not None):
        raise ConfigError("predict: give image files, or --index I for an example of the data set")
    if options.images and options.split is not None:
        raise ConfigError("predict: --split goes with --index, not with image files")
    path = find_run(options.reference, Path(RUNS_DIR))
    from partrain import prediction

    which, invert = options.checkpoint, options.invert
    if options.images:
        images = [Path(image) for image in options.images]
        outcomes = prediction.predict_files(path, which, images, invert=invert, messages=messages)
    else:
        split = options.split or "test"
        outcomes = [prediction.predict_example(path, which, split, options.index, invert=invert, messages=messages)]
    _print(json_text(outcomes) if options.json else "\n".join(map(prediction.describe, outcomes)))


def _compare(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    if len(options.references) < 2:
        raise ConfigError("compare: give two runs or more, e.g. partrain compare last~1 last")
    paths = [find_run(reference, Path(RUNS_DIR)) for reference in options.references]
    places: dict[str, str] = {}
    for reference, path in zip(options.references, paths, strict=True):
        earlier = places.setdefault(os.path.realpath(path), reference)
        if earlier is not reference:
            raise ConfigError(f"compare: {earlier} and {reference} are the same run, {path}. Name each run once.")
    from partrain.comparison import compare
    from partrain.comparison_text import describe

    runs = [LoggedRun.open(path) for path in paths]
    facts = compare(runs, everything=options.all)
    if options.html is not None:
        from partrain.report.page import write_page

        write_page(Path(options.html), runs, facts)
        messages.say(f"the page is {options.html}")
    if options.json:
        _print(json_text(facts))
    else:
        on_terminal = sys.stdout.isatty()
        width = shutil.get_terminal_size().columns if on_terminal else None
        _print(describe(facts, width=width, bold=on_terminal and not os.environ.get("NO_COLOR")))


def _list(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    runs_dir = Path(options.runs_dir or RUNS_DIR)
    # The default folder is made by the first training.
    nothing_yet = options.runs_dir is None and not runs_dir.exists()
    entries = [] if nothing_yet else list_runs(runs_dir, options.sort, options.status)
    if options.json:
        _print(json_text(entries))
    elif entries:
        _print(describe_list(entries, datetime.now(UTC)))
    else:
        messages.say(f"no runs in {runs_dir}" + (f" that are {options.status}" if options.status else ""))


def _print(text: str) -> None:
    """Print data; whoever reads it may have seen enough, as `head` does."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Else Python would try to flush the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _export(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    from partrain.export.formats import choose_format, export_run

    format_name = choose_format(options.to, options.format)
    path = find_run(options.reference, Path(RUNS_DIR))
    print(export_run(path, Path(options.to), format_name, say=messages.say, warn=messages.warn))


def _import_article(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    from partrain.article_import import import_article

    place = Place(Path(RUNS_DIR), None if options.run_dir is None else Path(options.run_dir))
    normalisation = Normalisation((options.mean,), (options.std,))
    print(import_article(Path(options.file), place, normalisation, command_line, messages.say).path)


def _bench(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    config = None if options.config is None else read_config(options.config)
    from partrain.bench.measurement import measure
    from partrain.bench.table import describe

    report = measure(config, options.workers, messages, interruption)
    print(json.dumps(report, indent=2) if options.json else describe(report))


def _data_fetch(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    from partrain.data_files import describe, fetch

    print(describe(fetch(options.name, messages.say)))


def _data_verify(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    from partrain.data_files import describe, require_all_right, verify

    reports = verify(options.name)
    print(describe(reports), flush=True)
    require_all_right(options.name, reports)


def _num_workers(options: argparse.Namespace) -> int:
    return available_processors() if options.workers is None else int(options.workers)
