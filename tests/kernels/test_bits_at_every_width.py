"""The bits of kernels do not depend on the width of the processor's vectors, nor on the number of registers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.program import ROOT
from tests.vector_widths import WIDTHS, with_width


def digests_with(width, num_registers):
    ended = subprocess.run(
        [sys.executable, "-m", "tests.kernels.kernel_bits"],
        env=with_width(width, num_registers=num_registers),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        timeout=600,
    )
    return json.loads(ended.stdout)


@pytest.mark.slow
def test_kernels_have_the_same_bits_with_vectors_of_any_width():
    expected = digests_with(8, num_registers=16)
    assert len(expected) > 300
    for width in WIDTHS:
        actual = digests_with(width, num_registers=32)
        assert {name for name in expected if actual[name] != expected[name]} == set(), f"width {width}"
