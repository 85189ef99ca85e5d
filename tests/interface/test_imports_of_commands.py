"""A command imports only what it needs: most of a short command's time is imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.program import ROOT
from tests.sample_runs import write_run

HEAVY = {"numpy", "numba", "llvmlite", "pydantic", "safetensors", "tqdm"}


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["train", "--help"], ["list"], ["list", "--json"], ["list", "--filter", "seed=0"]],
)
def test_command_that_computes_nothing_imports_no_large_package(tmp_path: Path, words: list[str]) -> None:
    write_run(tmp_path / "runs/a")
    code = (
        "import sys\nfrom partrain.interface.command_line import main\n"
        f"try: main({words!r})\nexcept SystemExit: pass\nprint(*sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert ended.stderr == ""
    imported = ended.stdout.splitlines()[-1].split()
    assert "partrain.interface.command_line" in imported
    assert not HEAVY & set(imported)
    if words[0] == "list":
        assert "partrain.analysis.listing" in imported
