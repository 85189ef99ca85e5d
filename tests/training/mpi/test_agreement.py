from __future__ import annotations

import copy
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from partrain.config.reader import read_config
from partrain.errors import UserError
from partrain.training.mpi.agreement import (
    RanksDisagree,
    describe_ranks,
    require_agreement,
    require_same_command,
    require_same_partrain,
)
from partrain.training.plan import plan_training


class OtherRank:
    """Gathers what this rank gives, and the same with a change as what rank 1 gives."""

    def __init__(self, change: Callable[[Any], object]) -> None:
        self._change = change

    def allgather(self, fact: Any) -> list[Any]:
        other = copy.deepcopy(fact)
        self._change(other)
        return [fact, other]


def test_same_command_passes() -> None:
    require_same_command(OtherRank(lambda fact: None), {"overrides": ["seed=1"]}, "alpha")


def test_other_command_is_named_by_rank_host_and_option() -> None:
    def change(fact: Any) -> None:
        fact["host"] = "beta"
        fact["facts"]["--run-dir"] = None

    with pytest.raises(RanksDisagree, match=r"rank 1 on beta: --run-dir: x -> None") as raised:
        require_same_command(OtherRank(change), {"run_dir": "x", "overrides": []}, "alpha")
    assert isinstance(raised.value, UserError)
    assert "rank 0 on alpha" in str(raised.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda fact: fact["facts"]["data"].update(name="mnist"), "data.name: synthetic-digits -> mnist"),
        (lambda fact: fact["facts"].update({"data digest": "00"}), "data digest: "),
    ],
    ids=["configuration", "data"],
)
def test_what_differs_between_hosts_is_named(
    change: Callable[[Any], object], said: str, small_config: Callable[..., Path]
) -> None:
    plan = plan_training(read_config(small_config()), say=lambda text: None, warn=pytest.fail)
    require_agreement(OtherRank(lambda fact: None), plan)
    with pytest.raises(RanksDisagree, match=rf"rank 1 on \S+: .*{said}"):
        require_agreement(OtherRank(change), plan)


@pytest.mark.parametrize("name", ["version of the bits", "version of partrain"])
def test_other_partrain_is_refused(name: str) -> None:
    require_same_partrain(OtherRank(lambda fact: None), "alpha")
    with pytest.raises(RanksDisagree, match=rf"rank 1 on alpha: {name}: \S+ -> 99\n.* the same partrain"):
        require_same_partrain(OtherRank(lambda fact: fact["facts"].update({name: 99})), "alpha")


def test_other_versions_and_processors_are_recorded_and_not_refused() -> None:
    def change(fact: Any) -> None:
        fact["origin"]["host"] = "beta"
        fact["origin"]["versions"]["numba"] = "0.1"
        fact["origin"]["processor"] = {"machine": "x", "name": "abacus", "features": ["beads"]}

    first, second = describe_ranks(OtherRank(change), 4)
    assert first == {"host": socket.gethostname(), "workers": 4}
    assert (second["host"], second["workers"]) == ("beta", 4)
    versions, processor = second["differences"]
    assert versions.endswith(" -> 0.1")
    assert " -> abacus (instruction sets that differ" in processor


def test_long_list_of_differences_is_cut() -> None:
    with pytest.raises(RanksDisagree, match=r"and 3 more differences"):
        require_same_command(
            OtherRank(lambda fact: fact["facts"].update({name: 1 for name in fact["facts"]})),
            dict.fromkeys("abcdefghi"),
            "a",
        )
