"""How Numba compiles kernels: each is optimised and translated once, as a whole. Only compiling imports this file.

By itself, Numba optimises and translates every function that a kernel calls, then compiles it into the kernel and
optimises it there again. Its machine code is never called: kernels have it compiled in. Without this work, and without
the passes that kernels do not need, compiling takes a third less time.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager
from numba.core.registry import cpu_target

# What kernels do not have: expressions of whole arrays, functions and comprehensions in a function, inlining by Numba.
_NOT_NEEDED = {"NopythonRewrites", "InlineClosureLikes", "InlineInlinables", "InlineOverloads"}


class KernelPasses(CompilerBase):
    """Numba's passes from a Python function to LLVM's code, without those that kernels do not need."""

    def define_pipelines(self) -> list[PassManager]:
        """Return the passes."""
        passes = PassManager("kernel")
        for kind, description in DefaultPassBuilder.define_nopython_pipeline(self.state).passes:
            if kind.__name__ not in _NOT_NEEDED:
                passes.add_pass(kind, description)
        passes.finalize()
        return [passes]


class _Library(JITCodeLibrary):
    """The code of a function, with all that it calls."""

    def finalize(self) -> None:
        """Add what the function calls. Only `emit` optimises and translates."""
        for library in dict.fromkeys(self._linking_libraries):
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """Return that there is no function in memory."""
        self._ensure_finalized()
        return 0

    def emit(self, caller: ir.Module) -> bytes:
        """Optimise the function; return the object file of it and of `caller`, which is not optimised."""
        self._ensure_finalized()
        self._codegen._check_llvm_bugs()
        self._optimize_final_module()
        self._final_module.verify()
        return emit_object(caller, self._final_module)


class _CodeGenerator(JITCPUCodegen):
    """Makes such libraries, and loads nothing into this process."""

    _library_class = _Library

    def set_env(self, env_name: str, env: Any) -> None:
        """Do nothing: kernels call nothing of Python's."""


def emit_object(module: ir.Module, *others: Any) -> bytes:
    """Translate LLVM's code, with the options that Numba uses for kernels; return the object file.

    Parameters
    ----------
    module : is verified.
    others : LLVM's modules that are linked to it; read.
    """
    machine = cpu_target.target_context.codegen()._tm
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    for other in others:
        parsed.link_in(other, preserve=True)
    code: bytes = machine.emit_object(parsed)
    return code


@functools.cache
def _code_generator() -> _CodeGenerator:
    return _CodeGenerator("partrain")


@contextlib.contextmanager
def whole_kernels() -> Iterator[None]:
    """Let Numba compile in this way inside the `with` block, where no other thread compiles.

    What it compiles can be compiled into other functions afterwards, but has no machine code of its own.
    """
    context = cpu_target.target_context
    with global_compiler_lock:
        usual = context.codegen()
        context._internal_codegen = _code_generator()
        try:
            yield
        finally:
            context._internal_codegen = usual
