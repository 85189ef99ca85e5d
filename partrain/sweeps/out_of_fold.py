"""The predictions of a cross-validation: each example is classified once, by the network that was not trained on it."""

from __future__ import annotations

import csv
import io

import numpy as np
from numpy.typing import NDArray

from partrain.analysis.classification_report import classification_report, describe
from partrain.analysis.evaluation import compute_evaluation, prepare_evaluation
from partrain.data.dataset import Split
from partrain.data.folds import folds_of
from partrain.data.split_name import SplitName
from partrain.errors import ResourceError
from partrain.parallel.split_evaluation import Evaluation
from partrain.sweeps.sweep import Sweep, SweepSession
from partrain.system.durable_files import remedy_for, write_durably
from partrain.system.messages import Messages


def predict_out_of_fold(sweep: Sweep, session: SweepSession) -> str:
    """Classify each example by the network of its fold; return the figures over all examples.

    Raises
    ------
    UserError, Interrupted
        As `prepare_evaluation` and `compute_evaluation`.

    Side effects
    ------------
    Writes the predictions into the sweep's directory.
    """
    quiet, source = Messages(quiet=True), session.preparation.dataset
    assert source is not None  # all folds are of one data set
    evaluations, indices, fold_numbers = [], [], []
    class_names: tuple[str, ...] = ()
    examples = source.train
    for trial in sweep.record.trials:
        path = sweep.directory.trial_path(trial)
        trained, dataset, _ = prepare_evaluation(path, SplitName.VALIDATION, "last", 0, quiet, source)
        evaluation, _ = compute_evaluation(trained, dataset, SplitName.VALIDATION, 0, quiet, session.interruption)
        examples = source.train.part(0, dataset.train.size + dataset.validation.size)
        fold = trained.config.data.fold
        assert fold is not None
        folds_N = folds_of(examples.labels, fold.of, trained.config.seed, dataset.class_names)
        evaluations.append(evaluation)
        indices.append(np.flatnonzero(folds_N == fold.number))
        fold_numbers.append(np.full(evaluation.num_examples, fold.number))
        class_names = trained.class_names
    order = np.argsort(np.concatenate(indices), kind="stable")

    everything = Evaluation(
        np.concatenate([evaluation.labels_N for evaluation in evaluations])[order],
        np.concatenate([evaluation.predictions_N for evaluation in evaluations])[order],
        np.concatenate([evaluation.losses_N for evaluation in evaluations])[order],
        np.concatenate([evaluation.confidences_N for evaluation in evaluations])[order],
    )
    content = _table(everything, np.concatenate(fold_numbers)[order], class_names, examples)
    try:
        write_durably(sweep.directory.predictions_path, content)
    except OSError as error:
        raise ResourceError(
            f"{sweep.directory.predictions_path}: cannot be written: {error.strerror}. {remedy_for(error)}."
        ) from error
    figures = describe(classification_report(everything, class_names, examples))
    return f"\neach example once, by the network that was not trained on it:\n{figures}\n"


def _table(evaluation: Evaluation, folds_N: NDArray[np.int64], class_names: tuple[str, ...], examples: Split) -> bytes:
    """Return the predictions as CSV: a row for each example, in order."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    files = [] if examples.files is None else ["file"]
    writer.writerow(["example", *files, "fold", "label", "prediction", "probability", "loss"])
    columns = (evaluation.labels_N, evaluation.predictions_N, evaluation.confidences_N, evaluation.losses_N)
    rows = zip(folds_N.tolist(), *(column.tolist() for column in columns), strict=True)
    for index, (fold, label, prediction, probability, loss) in enumerate(rows):
        file = examples.file_entry(index).values()
        writer.writerow([index, *file, fold, class_names[label], class_names[prediction], probability, loss])
    return text.getvalue().encode("utf-8", errors="surrogateescape")
