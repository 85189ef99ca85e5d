"""Checks, before anything is computed, that all ranks will compute the same bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from partrain.errors import UserError
from partrain.system.provenance import differences, provenance
from partrain.training.plan import TrainingPlan
from partrain.training.resume import value_differences

# Messages show twice this many differences.
LISTED = 3


class Gathering(Protocol):
    """The part of `parallel.mpi.communicator.Communicator` that this module uses."""

    def allgather(self, value: Any) -> list[Any]:
        """Return the value that each rank passed."""


class RanksDisagree(UserError):
    """The ranks differ in their command, configuration, data, versions or processor."""


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
    """Check that all ranks have the same configuration, data, versions and processor.

    Raises
    ------
    RanksDisagree
        As `require_same_command`.
    """
    origin, dataset = provenance(), plan.dataset
    facts = plan.config.to_mapping() | {"data digest": dataset.digest}
    _require_same(ranks.allgather({"host": origin["host"], "facts": facts, "origin": origin}))


def _flag(name: str) -> str:
    return {"overrides": "--set", "command": "the command", "run": "RUN"}.get(name, f"--{name}").replace("_", "-")


def _require_same(gathered: Sequence[dict[str, Any]]) -> None:
    lines = [
        f"rank {rank} on {facts['host']}: {difference}"
        for rank, facts in enumerate(gathered)
        for difference in _differences(gathered[0], facts)
    ]
    if lines:
        more = [f"and {len(lines) - 2 * LISTED} more differences"] if len(lines) > 2 * LISTED else []
        first = (
            f"--engine mpi: the ranks would not compute the same; these differ from rank 0 on {gathered[0]['host']}:"
        )
        last = "start all ranks with one command; all hosts need the same data, versions and kind of processor"
        raise RanksDisagree("\n  ".join([first, *lines[: 2 * LISTED], *more, last]))


def _differences(first: dict[str, Any], other: dict[str, Any]) -> Iterator[str]:
    yield from value_differences(first["facts"], other["facts"])
    if "origin" in first:
        yield from differences(first["origin"], other["origin"])
