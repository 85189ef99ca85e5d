"""Checks, before anything is computed, that all ranks will compute the same bits."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, Protocol

import partrain
from partrain.errors import UserError
from partrain.kernels.bits_version import BITS_VERSION
from partrain.system.provenance import differences, provenance
from partrain.training.plan import TrainingPlan
from partrain.training.resume import value_differences

# Messages show twice this many differences.
LISTED = 3


class Gathering(Protocol):
    """The part of `parallel.mpi.collectives.Collectives` that this module uses."""

    def allgather(self, value: Any) -> list[Any]:
        """Return the value that each rank passed."""


class RanksDisagree(UserError):
    """The ranks differ in their command, configuration, data or partrain."""


def require_same_partrain(ranks: Gathering, host: str) -> None:
    """Check that all ranks run the same partrain.

    Partrains with one version of the bits may still exchange other messages, so the version of the package must be the
    same, too.

    Raises
    ------
    RanksDisagree
        As `require_same_command`.
    """
    facts = {"version of the bits": BITS_VERSION, "version of partrain": partrain.__version__}
    _require_same(ranks.allgather({"host": host, "facts": facts}))


def require_same_command(ranks: Gathering, options: dict[str, Any], host: str) -> None:
    """Check that all ranks were started with the same command.

    Parameters
    ----------
    options : the command-line options that decide what is trained.
    host : the name of this host.

    Raises
    ------
    RanksDisagree
        Raised on all ranks; names the ranks that differ from rank 0, and how they differ.
    """
    _require_same(ranks.allgather({"host": host, "facts": {_flag(name): value for name, value in options.items()}}))


def require_agreement(ranks: Gathering, plan: TrainingPlan) -> None:
    """Check that all ranks have the same configuration and data.

    Raises
    ------
    RanksDisagree
        As `require_same_command`.
    """
    facts = plan.config.to_mapping() | {"data digest": plan.dataset.digest}
    _require_same(ranks.allgather({"host": socket.gethostname(), "facts": facts}))


def describe_ranks(ranks: Gathering, num_workers: int) -> list[dict[str, Any]]:
    """Return each rank's host and number of workers, and its other versions and processor, which change no bit.

    Parameters
    ----------
    num_workers : the number of workers of this rank.

    Returns
    -------
    For each rank `host` and `workers`; `differences`, as in a lineage of resumes, if it has other versions than rank 0,
    or another processor.
    """
    described = []
    gathered = ranks.allgather({"workers": num_workers, "origin": provenance()})
    for rank in gathered:
        found = differences(gathered[0]["origin"], rank["origin"])
        described.append(
            {"host": rank["origin"]["host"], "workers": rank["workers"]} | ({"differences": found} if found else {})
        )
    return described


def _flag(name: str) -> str:
    return {"overrides": "--set", "command": "the command", "run": "RUN"}.get(name, f"--{name}").replace("_", "-")


def _require_same(gathered: Sequence[dict[str, Any]]) -> None:
    lines = [
        f"rank {rank} on {facts['host']}: {difference}"
        for rank, facts in enumerate(gathered)
        for difference in value_differences(gathered[0]["facts"], facts["facts"])
    ]
    if lines:
        more = [f"and {len(lines) - 2 * LISTED} more differences"] if len(lines) > 2 * LISTED else []
        first = (
            f"--engine mpi: the ranks would not compute the same; these differ from rank 0 on {gathered[0]['host']}:"
        )
        last = "start all ranks with one command; all hosts need the same data and the same partrain"
        raise RanksDisagree("\n  ".join([first, *lines[: 2 * LISTED], *more, last]))
