"""The hardest examples of a trained network: those with the largest loss, and with the largest gradient norm.

Examples with wrong labels contradict the others, so they tend to come first; so do illegible ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.analysis.classification_report import name_of_example
from partrain.analysis.evaluation import compute_evaluation, prepare_evaluation
from partrain.analysis.trained_run import TrainedRun, Weights
from partrain.data.dataset import Split
from partrain.data.label_noise import flipped_examples
from partrain.data.split_name import SplitName
from partrain.errors import RunError
from partrain.network.clipping import gradient_norms
from partrain.network.layers import BatchNorm
from partrain.parallel.split_evaluation import Evaluation
from partrain.system.messages import Messages
from partrain.system.signals import Interruption
from partrain.system.terminal_text import printable, table

# The lists, and the value that each is sorted by.
MEASURES = {"largest_loss": "loss", "largest_gradient": "gradient norm"}


@dataclass(frozen=True, eq=False)
class HardestExamples:
    """The hardest examples of a split.

    Attributes
    ----------
    trained : the run and its network.
    examples : the evaluated split.
    facts : the lists, ready for JSON: `split`, `checkpoint`, `step`, `num_examples`, `classes`, `largest_loss` and
        `largest_gradient`. Each entry of a list has `index`, `file` (if the
        examples are files), `label`, `prediction`, `probability`, `loss` and
        `gradient_norm`; with label noise also `flipped`. `weights`, if these are averaged ones.
    """

    trained: TrainedRun
    examples: Split
    facts: dict[str, Any]


def find_hardest_examples(
    path: Path,
    split: SplitName,
    top: int,
    checkpoint: str,
    num_workers: int,
    messages: Messages,
    interruption: Interruption,
    *,
    data_path: str | None = None,
    weights: Weights = "raw",
) -> HardestExamples:
    """Evaluate a run's checkpoint on a split, and find the hardest examples.

    Parameters
    ----------
    path : the run's directory; another process may be writing into it.
    split : the split.
    top : the maximum length of each list.
    checkpoint, num_workers, messages, interruption, data_path, weights : as in `evaluate_run`, which also lists the
        exceptions.
    """
    trained, dataset, num_workers = prepare_evaluation(
        path, split, checkpoint, num_workers, messages, data_path=data_path, weights=weights
    )
    examples = dataset.splits[split]
    if any(isinstance(layer, BatchNorm) for layer in trained.network.trained_layers):
        raise RunError(
            f"{path}: the network has batch_norm, with which single examples have no gradients, because it normalises "
            "by the statistics of a tile; train with group_norm to rank examples by their gradients"
        )
    messages.say(
        f"{path}: evaluating step {trained.step:,} ({trained.checkpoint.name}) on {examples.size:,} {split} examples"
    )
    evaluation, _ = compute_evaluation(trained, dataset, split, num_workers, messages, interruption, with_norms=True)
    facts = {
        "split": split,
        "checkpoint": trained.checkpoint.name,
        "step": trained.step,
        "num_examples": examples.size,
        "classes": list(trained.class_names),
        **({} if weights == "raw" else {"weights": weights}),
        **_lists(evaluation, examples, top, _flipped(trained, split, examples.size)),
    }
    return HardestExamples(trained, examples, facts)


def _flipped(trained: TrainedRun, split: SplitName, num_examples: int) -> NDArray[np.bool_] | None:
    """Return which examples have a label that data.label_noise changed; None without label noise."""
    share = trained.config.data.label_noise
    if share == 0 or split != SplitName.TRAIN:
        return None
    flipped_N = np.zeros(num_examples, bool)
    flipped_N[flipped_examples(num_examples, share, trained.config.seed)] = True
    return flipped_N


def _lists(evaluation: Evaluation, examples: Split, top: int, flipped_N: NDArray[np.bool_] | None) -> dict[str, Any]:
    assert evaluation.squared_norms_NL is not None
    norms_N = gradient_norms(evaluation.squared_norms_NL)
    lists = {}
    for key, values_N in zip(MEASURES, (evaluation.losses_N, norms_N), strict=True):
        # NaN comes first.
        order = np.argsort(-np.where(np.isnan(values_N), np.inf, values_N), kind="stable")[:top]
        lists[key] = [
            {
                "index": index,
                **examples.file_entry(index),
                "label": int(evaluation.labels_N[index]),
                "prediction": int(evaluation.predictions_N[index]),
                "probability": float(evaluation.confidences_N[index]),
                "loss": float(evaluation.losses_N[index]),
                "gradient_norm": float(norms_N[index]),
            }
            | ({} if flipped_N is None else {"flipped": bool(flipped_N[index])})
            for index in order.tolist()
        ]
    return lists


def describe(facts: Mapping[str, Any]) -> str:
    """Return the lists as text for a terminal."""
    names = [printable(name) for name in facts["classes"]]
    lines: list[str] = []
    for key, measure in MEASURES.items():
        examples = facts[key]
        lines += ["", f"largest {measure} of {facts['num_examples']:,} {facts['split']} examples", ""]
        lines += _table(examples, names)
        if examples and "flipped" in examples[0]:
            num = sum(example["flipped"] for example in examples)
            lines += ["", f"{num:,} of these {len(examples):,} have a label that data.label_noise changed"]
    return "\n".join(lines[1:])


def _table(examples: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    with_flips = bool(examples) and "flipped" in examples[0]
    header = (
        "file" if any("file" in e for e in examples) else "index",
        "label",
        "prediction",
        "probability",
        "loss",
        "gradient norm",
        *(["flipped"] if with_flips else []),
    )
    rows = [
        (
            name_of_example(e),
            names[e["label"]],
            names[e["prediction"]],
            f"{e['probability']:.2%}",
            f"{e['loss']:.4g}",
            f"{e['gradient_norm']:.4g}",
            *(["yes" if e["flipped"] else "no"] if with_flips else []),
        )
        for e in examples
    ]
    return table(header, rows)
