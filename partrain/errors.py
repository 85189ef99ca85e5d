"""Errors that are for people, and the exit codes that go with them.

    PartrainError
    ├── UserError            exit code 2: something that the user gave is wrong
    │   ├── ConfigError        the configuration or the command line
    │   ├── DataError          a data set, or a file of one
    │   ├── RunError           a run directory, its lock, or a checkpoint in it
    │   ├── ResourceError      too little memory, disk or permission for what was asked
    │   └── MissingPackage     an optional package that the command needs is not installed
    └── FailedRun            exit code 1: the run began and could not go on

`str(error)` is the whole message. It says what is wrong, where (file, key, layer), and what to do; the
command line prints it without a traceback. Everything else that is raised is a defect of the program and
keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PartrainError(Exception):
    """Base of all errors that carry a message for a person."""

    exit_code = 1


class UserError(PartrainError):
    """Something that the user gave is wrong; the message says what, where, and what to do."""

    exit_code = 2


class ConfigError(UserError):
    """The configuration file, a `--set`, or another option of the command line is wrong."""


class DataError(UserError):
    """A data set or one of its files is missing, malformed or not what its digest says."""


class RunError(UserError):
    """A run directory does not exist, exists already, is locked, or holds something unusable."""


class ResourceError(UserError):
    """The plan needs more memory or disk, or another permission, than there is."""


class MissingPackage(UserError):
    """A package that is installed with an extra is not there."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package}: pip install 'partrain[{extra}]'")


class FailedRun(PartrainError):
    """A run began and could not go on: a worker failed, a value was not finite, a save did not succeed."""


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the end of a message that names the known word nearest to a wrong one; empty if none is near.

    Parameters
    ----------
    word : what was given.
    known : what would have been right.
    cutoff : how alike a known word must be, from 0 to 1 (difflib.get_close_matches).
    """
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {nearest[0]}?" if nearest else ""
