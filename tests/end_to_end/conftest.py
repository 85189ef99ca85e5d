"""Reference runs, which nothing disturbs and no test may change; and commands that must be refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from partrain.parallel.workers import pool
from tests.program import Result
from tests.whole_runs import LONG, Runs


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps."""
    return Runs(tmp_path_factory.mktemp("undisturbed")).train()


@pytest.fixture(scope="session")
def undisturbed_long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 400 steps."""
    return Runs(tmp_path_factory.mktemp("undisturbed-long")).train(LONG)


@pytest.fixture
def refuse(call_partrain: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Call the program and return its one message, after checking that it started and left nothing."""

    def start(*args: object, **options: object) -> None:
        pytest.fail("workers were started")

    def call(*arguments: object, where: tuple[object, ...] | None = None) -> str:
        runs = tmp_path / "runs"
        result = call_partrain(*arguments, *(("--runs-dir", runs) if where is None else where))
        assert result.exit_code == 2, result
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        errors = [line for line in result.stderr.splitlines() if "error: " in line]
        assert len(errors) == 1, result.stderr
        assert not runs.exists() or list(runs.iterdir()) == []
        return result.stderr[result.stderr.index("error: ") :]

    monkeypatch.setattr(pool, "WorkerPool", start)
    return call
