"""Computes the digests of the trainings, and reads and writes their file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import partrain
from partrain.kernels.bits_version import BITS_VERSION
from tests.golden.trainings import NUM_TEST, NUM_TRAIN, Training

FILE = Path(__file__).parent / "digests.json"

# So many digits of a SHA-256 are kept.
NUM_DIGITS = 16
# Metrics that depend on the machine or on packages: times, and dp-accounting's bound of epsilon.
VARIABLE = ("time_s", "examples_per_s", "privacy/epsilon")

WHAT_TO_DO = f"""
These bits differ from those that version {BITS_VERSION} of the bits promises to all users, on every processor. If no
result was meant to change, this is a bug. If the change is worth that old runs can no longer be resumed: raise
BITS_VERSION in partrain/kernels/bits_version.py, add its line to README's table of versions, and write the digests anew
with `python -m tests.golden --write`.
"""

Digests = dict[str, str]


def train(training: Training, run_dir: Path) -> Digests:
    """Train in a new run directory; return the digests of the parameters and of all metrics with the test result."""
    data, test = (training.make_examples(*split) for split in (("train", NUM_TRAIN), ("test", NUM_TEST)))
    num_outputs = training.network[-1]["dense"]["units"]
    names = [str(number) for number in range(num_outputs)]
    run = partrain.train(
        training.config(), data=data, test=test, class_names=names, workers=0, run_dir=run_dir, quiet=True
    )
    summary = run.summary
    rows = [{name: value for name, value in row.items() if name not in VARIABLE} for row in run.metrics]
    metrics = json.dumps([rows, summary["test"]], sort_keys=True)
    digest_of_metrics = hashlib.sha256(metrics.encode()).hexdigest()
    return {"parameters": summary["parameters_sha256"][:NUM_DIGITS], "metrics": digest_of_metrics[:NUM_DIGITS]}


def read() -> tuple[int, dict[str, Digests]]:
    """Return the version of the bits that the file belongs to, and the digests of each training."""
    content: dict[str, Any] = json.loads(FILE.read_text())
    return content["bits"], content["digests"]


def write(digests: Mapping[str, Digests]) -> None:
    """Replace the file; it belongs to the current version of the bits."""
    FILE.write_text(json.dumps({"bits": BITS_VERSION, "digests": digests}, indent=2) + "\n")
