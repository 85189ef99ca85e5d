from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

from partrain.config import reference
from tests.program import ROOT, Result


def test_config_prints_every_key(call_partrain: Callable[..., Result]) -> None:
    result = call_partrain("config")
    assert (result.exit_code, result.stderr) == (0, "")
    first_words = {line.split(" ", 1)[0] for line in result.stdout.splitlines()}
    assert {key.key for key in reference.configuration_keys()} <= first_words


def test_config_as_json_holds_types_defaults_and_meanings(call_partrain: Callable[..., Result]) -> None:
    keys = {key["key"]: key for key in json.loads(call_partrain("config", "--json").stdout)}
    batch_size = keys["training.batch_size"]
    assert (batch_size["type"], batch_size["default"], batch_size["required"]) == ("integer ≥ 1", 32, False)
    assert "examples per step" in batch_size["meaning"]
    assert keys["data.name"]["required"]


def test_config_as_markdown_is_the_table_beside_the_examples(call_partrain: Callable[..., Result]) -> None:
    assert call_partrain("config", "--markdown").stdout in (ROOT / "configs" / "README.md").read_text()


def test_config_imports_neither_numpy_nor_numba() -> None:
    code = "import sys; from partrain.interface.command_line import main; main(['config']); print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    imported = ended.stdout.splitlines()[-1].split()
    assert "partrain.config.reference" in imported
    assert not {"numpy", "numba"} & set(imported)
