"""Runs Python programs whose kernels use vectors of another width, as on another processor.

The bits of a training must not depend on the width. On any processor this trains with vectors of 16 float32:

    subprocess.run([sys.executable, "-m", "partrain", …], env=with_width(16), cwd=ROOT, check=True)

The variables reach all processes of the program: fork server, workers, MPI's ranks. The kernel cache keeps kernels of
different widths apart; each width is compiled once, in 10 to 20 s. The fixtures that fork a running interpreter
(tests.program_server) cannot change the width: its kernels are loaded. `run_partrain(…, fresh=True, env=…)` works, with
`width_variables`.

Vectors that are wider than this processor's registers are cut up by LLVM, which is slower and has the same bits. To
compile for a processor without fused multiply-adds, set Numba's own variables, NUMBA_CPU_NAME=generic and
NUMBA_CPU_FEATURES= ; training is then about 40 times slower.
"""

from __future__ import annotations

import os
from pathlib import Path

from partrain.kernels.compiler.cache import CACHE_VARIABLE
from tests.program import ROOT

WIDTHS = (4, 8, 16)
WIDTH_VARIABLE = "PARTRAIN_TEST_VECTOR_WIDTH"
REGISTERS_VARIABLE = "PARTRAIN_TEST_VECTOR_REGISTERS"


def width_variables(width: int, *, num_registers: int = 32) -> dict[str, str]:
    """Return the environment variables that change the width of a Python program's vectors.

    Parameters
    ----------
    width : float32 in a vector: 4, 8 or 16.
    num_registers : vector registers, 16 (AVX2) or 32 (the others); kernels then keep fewer or more sums in them.
    """
    return {
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(Path(__file__).parent / "site"))),
        WIDTH_VARIABLE: str(width),
        REGISTERS_VARIABLE: str(num_registers),
    }


def with_width(width: int, *, num_registers: int = 32, **variables: str) -> dict[str, str]:
    """Return this process's environment with `width_variables` and further variables."""
    inherited = {name: value for name, value in os.environ.items() if name != CACHE_VARIABLE}
    return inherited | width_variables(width, num_registers=num_registers) | variables
