"""Declares kernels and what they call: the only file that sets Numba's flags.

Declaring compiles nothing, and imports neither Numba nor LLVM. A kernel must be loaded (kernels.compiler.loading)
before Python calls it; an earlier call is an error, not a compilation for the types of its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from partrain.errors import ConfigError
from partrain.kernels.compiler.deferred import DeferredModule, numba
from partrain.kernels.compiler.machine_code import LoadedCode
from partrain.kernels.compiler.numba_settings import is_jit_disabled

_extending = DeferredModule("numba.core.extending")
_registry = DeferredModule("numba.core.registry")
_whole_kernel = DeferredModule("partrain.kernels.compiler.whole_kernel")

_KERNEL = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
# A function that kernels call is compiled into each of them, with the caller's types. No wrapper is generated: it would
# take a third of the compile time.
_INLINED = {**_KERNEL}
# The same for functions that LLVM may not call instead: passing a dozen arrays and numbers takes as long as a row.
_ALWAYS_INLINED = {**_INLINED, "forceinline": True}


def _njit(function: Callable[..., Any], options: dict[str, bool]) -> Any:
    return numba.njit(pipeline_class=_whole_kernel.KernelPasses, **options)(function)


class Kernel:
    """A compiled function that Python calls.

    A call with arguments of other types or layouts is a TypeError: another specialisation would have other bits.

    Parameters
    ----------
    function : what is compiled.
    signatures : see `kernel`.

    Attributes
    ----------
    py_func : `function`.
    loaded : the floating-point types that it has been loaded for.
    addresses : the address of the machine code of each signature that is loaded, with Numba's calling convention.
    """

    def __init__(self, function: Callable[..., Any], signatures: tuple[str, ...]) -> None:
        self.py_func, self.declared = function, signatures
        self.__name__, self.__module__, self.__doc__ = function.__name__, function.__module__, function.__doc__
        self.loaded: tuple[str, ...] = ()
        self.addresses: dict[str, int] = {}
        self._codes: tuple[LoadedCode, ...] = ()
        self._call = function if is_jit_disabled() else self._raise_unloaded

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __repr__(self) -> str:
        return f"{self.__module__}.{self.__name__}"

    @cached_property
    def dispatcher(self) -> Any:
        """Numba's dispatcher of the function, which compiles it."""
        return _njit(self.py_func, _KERNEL)

    @property
    def was_compiled(self) -> bool:
        """Whether this process has compiled the kernel, or another one that calls it."""
        return "dispatcher" in vars(self)

    @property
    def _numba_type_(self) -> Any:
        return self.dispatcher._numba_type_

    def add(self, signature: str, code: LoadedCode) -> None:
        """Add the machine code of a signature."""
        self.addresses[signature] = code.address
        self._codes += (code,)
        self._call = code.call if len(self._codes) == 1 else self._call_first_that_fits

    def _call_first_that_fits(self, *arguments: Any) -> Any:
        for code in self._codes[:-1]:
            try:
                return code.call(*arguments)
            except TypeError:  # raised before anything was computed
                pass
        return self._codes[-1].call(*arguments)

    def _raise_unloaded(self, *arguments: Any) -> Any:
        raise RuntimeError(f"{self} was called before it was loaded; name it in the KERNELS of the calling class")


class Inlined:
    """A function that kernels call; Numba sees its own dispatcher, and Python the plain function."""

    def __init__(self, function: Callable[..., Any], flags: dict[str, bool | str]) -> None:
        self.py_func, self._flags = function, flags
        self.__name__, self.__module__, self.__doc__ = function.__name__, function.__module__, function.__doc__

    def __call__(self, *arguments: Any) -> Any:
        return (self.py_func if is_jit_disabled() else self.dispatcher)(*arguments)

    @cached_property
    def dispatcher(self) -> Any:
        """Numba's dispatcher of the function."""
        return _njit(self.py_func, self._flags)

    @property
    def _numba_type_(self) -> Any:
        return self.dispatcher._numba_type_


class _Intrinsic:
    """A function that emits LLVM's code where a kernel calls it; Numba makes its own object of it."""

    def __init__(self, function: Callable[..., Any], options: dict[str, bool]) -> None:
        self._function, self._options = function, options
        self.__name__, self.__module__, self.__doc__ = function.__name__, function.__module__, function.__doc__

    @cached_property
    def _numba_type_(self) -> Any:
        declare = _extending.intrinsic(**self._options) if self._options else _extending.intrinsic
        made, typing = declare(self._function), _registry.cpu_target.typing_context
        typing.refresh()
        return typing.resolve_value_type(made)


def kernel(*signatures: str) -> Callable[[Callable[..., Any]], Kernel]:
    """Declare a compiled kernel.

    Parameters
    ----------
    signatures : Numba signatures. `{float}` stands for the floating-point type that the kernel is loaded for.
    """
    return lambda function: Kernel(function, signatures)


def inlined(function: Callable[..., Any]) -> Any:
    """Declare a function that kernels call."""
    return Inlined(function, _INLINED)


def always_inlined(function: Callable[..., Any]) -> Any:
    """Declare a function that is compiled into each call in a kernel."""
    return Inlined(function, _ALWAYS_INLINED)


def intrinsic(*functions: Callable[..., Any], **options: bool) -> Any:
    """Declare a function that emits code, as `numba.extending.intrinsic` does."""
    if not functions:
        return lambda function: _Intrinsic(function, options)
    return _Intrinsic(functions[0], options)


# What kernels call in place of a function of Python; Numba learns it before it compiles.
overloads: list[tuple[Callable[..., Any], Callable[..., Any]]] = []


def overload(function: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare what kernels call in place of `function`, as `numba.extending.overload` does."""

    def declare(implementation: Callable[..., Any]) -> Callable[..., Any]:
        overloads.append((function, implementation))
        return implementation

    return declare


def is_compiled(kernel: Kernel) -> bool:
    """Return whether Numba compiles the kernel: not with NUMBA_DISABLE_JIT=1, which leaves a Python function."""
    return not is_jit_disabled()


def require_compiler() -> None:
    """Check that Numba compiles kernels, for a computation that plain Python cannot do.

    Raises
    ------
    ConfigError
        It does not, because of NUMBA_DISABLE_JIT.
    """
    if is_jit_disabled():
        raise ConfigError(
            "NUMBA_DISABLE_JIT is set, so the kernels are not compiled; unset it. Only the loops run in plain Python, "
            "and only in one process: --set training.kernels=loops --workers 0"
        )


def signatures_of(kernel: Kernel, float_type: str) -> list[str]:
    """Return the signatures that the kernel is compiled for, with "float32" or "float64" for `{float}`."""
    return [signature.format(float=float_type) for signature in kernel.declared]


def name_of(kernel: Kernel) -> str:
    """Return the module and the name of a kernel: "convolution.conv2d_forward", or "eight_lanes.convolution.…"."""
    package, _, module = kernel.__module__.rpartition(".")
    version = "eight_lanes." if package.endswith(".eight_lanes") else ""
    return f"{version}{module}.{kernel.__name__}"
