from __future__ import annotations

from pathlib import Path

import pytest

from partrain.store.run_directory import RunDirectory
from tests.store.new_runs import STARTED


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory.create(tmp_path, "mnist", STARTED)
    run.write_run_json({"status": "running"})
    return run
