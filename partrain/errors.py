"""The errors that partrain reports to the user, and their exit codes.

    PartrainError
    ├── UserError            exit code 2: the user can fix it
    │   ├── ConfigError        the configuration or the command line is wrong
    │   ├── DataError          a data set, or one of its files, is missing or wrong
    │   ├── RunError           a run directory, its lock or its checkpoint cannot be used
    │   ├── ResourceError      not enough memory or disk, or a missing permission
    │   └── MissingPackage     a command needs an optional package that is not installed
    ├── FailedRun            exit code 1: the run began and could not continue
    │   └── MomentsLost        another rank has a part of the optimizer's state, and does not answer
    └── VerificationFailed   exit code 1: a run's steps, computed again, give other results

`str(error)` is the whole message: what is wrong, where (file, key, layer), and what to do. The command line prints it
without a traceback. Every other exception is a bug in partrain and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PartrainError(Exception):
    """Base class of all errors that are reported to the user as a message."""

    exit_code = 1


class UserError(PartrainError):
    """The user can fix it; the message says what is wrong, where, and what to do."""

    exit_code = 2


class ConfigError(UserError):
    """The configuration file, a `--set` or another command-line option is wrong."""


class DataError(UserError):
    """A data set or one of its files is missing, malformed or does not match its digest."""


class RunError(UserError):
    """A run directory does not exist, exists already, is locked, or contains something unusable."""


class ResourceError(UserError):
    """There is not enough memory or disk, or a permission is missing."""


class MissingPackage(UserError):
    """A command needs an optional package that is not installed.

    Parameters
    ----------
    package : the name of the package.
    extra : the extra of partrain that installs it.
    purpose : the feature that needs the package; the message begins with it.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package}: pip install 'partrain[{extra}]'")


class VerificationFailed(PartrainError):
    """A run's files differ from what its configuration and data give.

    Attributes
    ----------
    steps : the last step whose parameters are known to be right, and the step at which a difference was found; None if
        no step was computed again.
    """

    def __init__(self, message: str, steps: tuple[int, int] | None = None) -> None:
        super().__init__(message)
        self.steps = steps


class FailedRun(PartrainError):
    """A run began and could not continue: a worker failed, a value was not finite, or a save failed."""


class MomentsLost(FailedRun):
    """A rank does not answer, and only that rank has the moments of the parameters that it owns."""


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the end of a message that suggests the known word nearest to a wrong one; empty if none is near.

    Parameters
    ----------
    word : the wrong word.
    known : the right words.
    cutoff : the least similarity of a suggestion, from 0 to 1, as in `difflib.get_close_matches`.
    """
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {nearest[0]}?" if nearest else ""
