from __future__ import annotations

import pytest

from partrain.parallel import compute_resources
from tests.small_run import write_small_config

WARNING = "warning: this processor has no fused multiply-add (FMA): the computation is about 40 times slower\n"


@pytest.mark.parametrize(("kernels", "fuses", "expected"), [("fast", False, 1), ("fast", True, 0), ("loops", False, 0)])
def test_missing_fused_multiply_adds_are_one_warning(kernels, fuses, expected, call_partrain, monkeypatch, tmp_path):
    monkeypatch.setattr(compute_resources, "fuses_multiply_add", lambda: fuses)
    config = write_small_config(
        tmp_path, {"training.kernels": kernels, "training.max_steps": 1, "logging.plots": False}
    )
    result = call_partrain("--config", config, "--workers", 0, "--run-dir", tmp_path / "run")
    assert result.exit_code == 0
    assert result.stderr.count(WARNING) == expected
