"""Changes the width of the kernels' vectors; Python imports this file when it starts. See tests.vector_widths."""

from __future__ import annotations

import os

from partrain.kernels.compiler import target

if width := os.environ.get("PARTRAIN_TEST_VECTOR_WIDTH"):
    num_registers = int(os.environ["PARTRAIN_TEST_VECTOR_REGISTERS"])
    widest = 16 if target.target_has("avx512f") else 8 if target.target_has("avx") else 4
    target.vector_width = lambda: int(width)
    target.num_vector_registers = lambda: num_registers
    if int(width) > widest:  # no register holds such a vector: LLVM may cut it up, an inline assembly may not
        target.register_class = lambda: None
