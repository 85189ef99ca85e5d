"""Declares kernels: the only file that sets Numba's flags.

`@kernel(signature)` compiles nothing. A kernel must be loaded (kernels.compiler.loading) before Python calls it; an
earlier call is an error, not a compilation for the types of its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba.core.sigutils import normalize_signature

from partrain.errors import ConfigError

Kernel = Callable[..., Any]

_signatures: dict[Kernel, tuple[str, ...]] = {}


def kernel(*signatures: str) -> Callable[[Callable[..., Any]], Any]:
    """Declare a compiled kernel.

    Parameters
    ----------
    signatures : Numba signatures. `{float}` stands for the floating-point type that the kernel is loaded for.
    """

    def declare(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(nogil=True, error_model="numpy", no_cfunc_wrapper=True)(function)
        _signatures[dispatcher] = signatures
        if is_compiled(dispatcher):
            # Numba calls this for argument types that it has no machine code for, until `disable_compile`.
            dispatcher._compile_for_args = _Unloaded(function)
        return dispatcher

    return declare


# Declares a function that kernels call: it is compiled into each of them, with the caller's types. No Python or C
# wrappers are generated; they would take a third of the compile time.
_INLINED = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
inlined = numba.njit(**_INLINED)
# The same for functions that LLVM may not call instead: passing a dozen arrays and numbers takes as long as a row.
always_inlined = numba.njit(**_INLINED, forceinline=True)


def is_compiled(kernel: Kernel) -> bool:
    """Return whether Numba compiles the kernel: not with NUMBA_DISABLE_JIT=1, which leaves a Python function."""
    return hasattr(kernel, "compile")


def require_compiler() -> None:
    """Check that Numba compiles kernels, for a computation that plain Python cannot do.

    Raises
    ------
    ConfigError
        It does not, because of NUMBA_DISABLE_JIT.
    """
    if numba.config.DISABLE_JIT:
        raise ConfigError(
            "NUMBA_DISABLE_JIT is set, so the kernels are not compiled; unset it. Only the loops run in plain Python, "
            "and only in one process: --set training.kernels=loops --workers 0"
        )


def signatures_of(kernel: Kernel, float_type: str) -> list[str]:
    """Return the signatures that the kernel is compiled for, with "float32" or "float64" for `{float}`."""
    return [signature.format(float=float_type) for signature in _signatures[kernel]]


def name_of(kernel: Kernel) -> str:
    """Return the module and the name of a kernel, such as "convolution.conv2d_forward"."""
    return f"{kernel.__module__.rpartition('.')[2]}.{kernel.__name__}"


def machine_code_of(kernel: Kernel, signature: str) -> int:
    """Return the address of a loaded kernel's machine code, with Numba's calling convention."""
    dispatcher: Any = kernel
    compiled = dispatcher.overloads[normalize_signature(signature)[0]]
    address: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    return address


class _Unloaded:
    """Raises an error when a kernel is called that was not loaded."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = f"{function.__module__}.{function.__name__}"

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        raise RuntimeError(f"{self._name} was called before it was loaded; name it in the KERNELS of the calling class")
