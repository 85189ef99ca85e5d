"""The bits of kernels do not depend on the width of the processor's vectors, nor on the number of registers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from partrain.kernels.compiler.target import num_vector_registers
from partrain.kernels.simd.vectors import LANES
from tests.program import ROOT
from tests.vector_widths import with_width


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


# Lanes and registers of processors: with AVX2, of arm64, with AVX-512. This one's are compiled for other tests already.
KINDS = (8, 16), (4, 32), (16, 32)


@pytest.mark.slow
def test_kernels_have_the_same_bits_with_vectors_of_any_width():
    expected = digests_with(LANES, num_vector_registers())
    assert len(expected) > 300
    for kind in KINDS:
        actual = digests_with(*kind)
        assert {name for name in expected if actual[name] != expected[name]} == set(), kind
