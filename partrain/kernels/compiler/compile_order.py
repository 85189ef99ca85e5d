"""The order in which processes compile kernels: what shares code together, and what is long first.

A process compiles a function once for all kernels that call it; another process compiles it again. Without an order,
two processes compile a quarter of all code twice, and in the end one waits for a long kernel of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from partrain.kernels.compiler.flags import Inlined, Kernel

Functions = set[Callable[..., Any]]


def group_kernels(kernels: Sequence[Kernel]) -> list[list[Kernel]]:
    """Return the kernels in groups, each for one process: the longest first, in the groups too.

    A kernel joins the first group whose longest kernel has more than half of its code.
    """
    reached = {kernel: _reached(kernel.py_func, set()) for kernel in kernels}
    groups: list[list[Kernel]] = []
    for kernel in sorted(reached, key=lambda kernel: -_size(reached[kernel])):
        code = reached[kernel]
        shares = (group for group in groups if 2 * _size(code & reached[group[0]]) > _size(code))
        if (group := next(shares, None)) is None:
            groups.append([kernel])
        else:
            group.append(kernel)
    return groups


def _reached(function: Callable[..., Any], seen: Functions) -> Functions:
    """Add a function, and what it calls under a name of its own, to `seen`, and return that."""
    if function not in seen:
        seen.add(function)
        values = [function.__globals__.get(name) for name in function.__code__.co_names]
        values += [cell.cell_contents for cell in function.__closure__ or ()]
        for value in values:
            if isinstance(value, Kernel | Inlined):
                _reached(value.py_func, seen)
    return seen


def _size(functions: Functions) -> int:
    """Return the length of the functions' bytecode: the time that compiling takes is about proportional to it."""
    return sum(len(function.__code__.co_code) for function in functions)
