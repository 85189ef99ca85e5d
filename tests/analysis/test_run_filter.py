from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.program import Result
from tests.sample_runs import write_run


@pytest.fixture
def listed(tmp_path: Path, call_partrain: Callable[..., Result]) -> Callable[..., set[str]]:
    """List three runs and a broken one with filters; return the names of those that are listed."""
    now = datetime.now(UTC)
    training = {"epochs": 2, "max_steps": 50, "optimizer": {"name": "adam", "lr": 0}}
    network = [{"conv": {"filters": 8, "kernel": [5, 3]}}, "flatten", {"dense": {"units": 3}}]
    write_run(tmp_path / "a", lr=0.001, final_accuracy=0.9879, started=(now - timedelta(days=3)).isoformat())
    write_run(tmp_path / "b", lr=0.01, seed=1, config_changes={"training": training, "network": network})
    write_run(tmp_path / "c", lr=0.1, seed=2, status="interrupted", config_changes={"name": "two words"})
    (tmp_path / "broken").mkdir()

    def filtered(*conditions: str) -> set[str]:
        words = [word for condition in conditions for word in ("--filter", condition)]
        result = call_partrain("list", "--runs-dir", tmp_path, "--json", *words)
        assert (result.exit_code, result.stderr) == (0, "")
        return {entry["name"] for entry in json.loads(result.stdout)}

    return filtered


@pytest.mark.parametrize(
    ("conditions", "names"),
    [
        (["training.optimizer.lr>1e-3"], "b c"),
        (["training.optimizer.lr>=1e-3"], "a b c"),
        (["training.optimizer.lr = 0.01"], "b"),
        (["training.optimizer.lr<0.1", "seed!=0"], "b"),
        (["seed<=1"], "a b"),
        (["training.max_steps=null"], "a c broken"),
        (["training.max_steps!=null"], "b"),
        (["training.max_steps>10"], "b"),
        (["network.0.conv.kernel=[5, 3]"], "b"),
        (["network.0.conv.filters=null"], "a c broken"),
        (["config='two words'"], "c"),
        (['config="two words"'], "c"),
        (["config=two words"], "c"),
        (["test=98.79%"], "a"),
        (["test>98.5 %"], "a"),
        (["test=null"], "c broken"),
        (["status=broken"], "broken"),
        (["data.path=null", "status!=broken"], "a b c"),
        (["name>a", "name<c"], "b broken"),
        (["age>2d", "age<73h"], "a"),
        (["time<1 min"], "a b c"),
        (["seed=false"], ""),
        (["seed='0'"], ""),
        (["note=null"], "a b c broken"),
    ],
)
def test_runs_that_meet_all_conditions_are_listed(
    listed: Callable[..., set[str]], conditions: list[str], names: str
) -> None:
    assert listed(*conditions) == set(names.split())


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("training.optimizer.rl>1", "no run has the key training.optimizer.rl; did you mean training.optimizer.lr?"),
        ("lr>1", "did you mean training.optimizer.lr?"),
        ("zzzz=1", "no run has the key zzzz; `partrain config` lists"),
        ("seed", "write a key, one of = != < <= > >=, and a value"),
        ("=3", "write a key"),
        ("", "write a key"),
        ("seed=", "write null for no value"),
        ("seed==1", "write one operator, one of = != < <= > >="),
        ("seed>>1", "write one operator, one of = != < <= > >="),
        ("seed=>1", "write one operator, one of = != < <= > >="),
        ("seed>null", "null has no order; use = or !="),
        ("seed<true", "true has no order"),
        ("seed=[[1]]", "a single value or a list"),
        ("seed={a: 1}", "a single value or a list"),
        ("seed=[", "is not valid YAML"),
        ("seed=010", "write 8 or 10"),
        ("seed>many", "seed is a number, which a text cannot be compared with"),
        ("config>3", "config is a text, which a number cannot be compared with"),
    ],
)
def test_condition_that_cannot_be_met_is_one_message(
    call_partrain: Callable[..., Result], tmp_path: Path, condition: str, said: str
) -> None:
    write_run(tmp_path / "a")
    result = call_partrain("list", "--runs-dir", tmp_path, "--filter", condition)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_no_run_that_meets_the_conditions_is_no_error(call_partrain: Callable[..., Result], tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    result = call_partrain("list", "--runs-dir", tmp_path, "--filter", "seed=5")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"no run in {tmp_path} meets the filter\n"
