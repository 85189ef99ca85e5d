"""The names of the files in a sweep's directory, which contains one run directory per trial."""

from __future__ import annotations

import os
import re
from pathlib import Path

SWEEP_FILE = "sweep.json"
SWEEP_LOCK_FILE = "sweep.lock"
STUDY_FILE = "study.sqlite3"
# Of a cross-validation: the prediction for each example, by the network that was not trained on it.
PREDICTIONS_FILE = "predictions.csv"

SWEEP_FILES = (SWEEP_FILE, SWEEP_LOCK_FILE, STUDY_FILE, PREDICTIONS_FILE)

# The end of a sweep's directory name.
SWEEP_SUFFIX = "sweep"

_TRIAL_NAME = re.compile(r"trial-\d{3,}")


def trial_name(number: int) -> str:
    """Return the name of a trial's run directory; trials are counted from 1."""
    return f"trial-{number:03d}"


def is_trial_name(name: str) -> bool:
    """Return whether a directory has the name of a trial."""
    return _TRIAL_NAME.fullmatch(name) is not None


def is_sweep(path: Path) -> bool:
    """Return whether a directory is a sweep's."""
    return os.path.isfile(path / SWEEP_FILE)
