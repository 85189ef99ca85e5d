"""Compiles a kernel for a signature: to the object files that its machine code is linked from.

Only compiling imports this file: it needs Numba and LLVM.
"""

from __future__ import annotations

import functools
import itertools
import json
from typing import NamedTuple

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core.registry import cpu_target
from numba.core.sigutils import normalize_signature
from numba.extending import overload

from partrain.kernels.compiler import flags
from partrain.kernels.compiler.cache import OBJECTS
from partrain.kernels.compiler.entry_point import ENTRY, add_entry_point
from partrain.kernels.compiler.flags import Kernel
from partrain.kernels.compiler.machine_code import LoadedCode, address_of_symbol, function_of, method_definition
from partrain.kernels.compiler.runtime_functions import add_runtime_functions
from partrain.kernels.compiler.whole_kernel import emit_object, whole_kernels


class ObjectCode(NamedTuple):
    """The object files of a kernel for one signature.

    Attributes
    ----------
    files : the kernel and the function that Python calls; what both may call of Numba's runtime.
    entry : the symbol of the function that Python calls.
    kernel : the symbol of the kernel itself, with Numba's calling convention.
    """

    files: tuple[bytes, ...]
    entry: str
    kernel: str

    def to_bytes(self) -> bytes:
        """Return it as bytes."""
        head = json.dumps([self.entry, self.kernel, [len(file) for file in self.files]])
        return b"".join((OBJECTS, head.encode(), b"\n", *self.files))

    @classmethod
    def from_bytes(cls, content: bytes) -> ObjectCode:
        """Return what `to_bytes` made bytes of; raises ValueError or TypeError if the content is something else."""
        head, _, rest = content.removeprefix(OBJECTS).partition(b"\n")
        entry, kernel, sizes = json.loads(head)
        ends = list(itertools.accumulate(sizes))
        return cls(tuple(rest[end - size : end] for size, end in zip(sizes, ends, strict=True)), entry, kernel)

    def load(self, name: str) -> LoadedCode:
        """Load it into this process by LLVM, which also links it, with a name for the function."""
        cpu_target.target_context.codegen()  # initialises LLVM
        llvm.add_symbol("PyArray_Type", address_of_symbol("PyArray_Type"))
        machine = llvm.Target.from_default_triple().create_target_machine()
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)  # owns the machine
        for file in self.files:
            engine.add_object_file(llvm.ObjectFileRef.from_data(file))
        engine.finalize_object()
        definition = method_definition(name, engine.get_function_address(self.entry))
        return LoadedCode(function_of(definition), engine.get_function_address(self.kernel), (engine, definition))


def compile_kernel(kernel: Kernel, signature: str) -> ObjectCode:
    """Compile a kernel.

    Raises
    ------
    numba.core.errors.NumbaError
        It does not compile.
    """
    while flags.overloads:
        function, implementation = flags.overloads.pop()
        overload(function)(implementation)
    with whole_kernels():
        dispatcher = kernel.dispatcher
        dispatcher.compile(signature)
        compiled = dispatcher.overloads[normalize_signature(signature)[0]]
        name = compiled.fndesc.llvm_func_name
        entry_point = ir.Module("entry point")
        add_entry_point(entry_point, compiled.target_context, compiled.signature, name, kernel.__name__)
        return ObjectCode((compiled.library.emit(entry_point), _runtime()), ENTRY, name)


@functools.cache
def _runtime() -> bytes:
    module = ir.Module("runtime")
    add_runtime_functions(module)
    return emit_object(module)
