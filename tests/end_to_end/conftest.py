"""Reference runs, which nothing disturbs and no test may change; and commands that must be refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from partrain.parallel.workers import pool
from tests.program import Result
from tests.whole_runs import IN_MID_EPOCH, LONG, Runs


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps."""
    return Runs(tmp_path_factory.mktemp("undisturbed")).train()


@pytest.fixture(scope="session")
def undisturbed_long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 400 steps."""
    return Runs(tmp_path_factory.mktemp("undisturbed-long")).train(LONG)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """Runs of the test."""
    return Runs(tmp_path)


@pytest.fixture
def killed(runs: Runs) -> Path:
    """A run that was killed in the middle of its second epoch."""
    return runs.train(kill_at=IN_MID_EPOCH)


@pytest.fixture
def completed(runs: Runs, undisturbed: Path) -> Path:
    """A copy of the undisturbed run."""
    shutil.copytree(undisturbed, runs.folder / "runs" / undisturbed.name)
    return runs.folder / "runs" / undisturbed.name


@pytest.fixture
def refuse(call_partrain: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Call the program and return its one message, after checking that it started and left nothing."""

    def start(*args: object, **options: object) -> None:
        pytest.fail("workers were started")

    def call(*arguments: object, where: tuple[object, ...] | None = None) -> str:
        runs = tmp_path / "runs"
        message = call_partrain(*arguments, *(("--runs-dir", runs) if where is None else where)).refusal
        assert not runs.exists() or list(runs.iterdir()) == []
        return message

    # The class itself: a module that is first imported now would keep another one for the tests after this.
    monkeypatch.setattr(pool.WorkerPool, "__init__", start)
    return call
