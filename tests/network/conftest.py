"""Shapes: N examples; C, H, W channels, rows, columns; E logits; T tiles; K numbers of a slot."""

from __future__ import annotations

import pytest

from tests.loaded_kernels import load_all_kernels


@pytest.fixture(scope="session")
def network_kernels():
    for kernels, dtype in (("fast", "float32"), ("loops", "float32"), ("loops", "float64")):
        load_all_kernels(kernels, dtype)
