"""Atomic operations on shared memory, arrays by address, and yielding the processor.

All atomic operations are sequentially consistent. Indices count elements; they are not checked.
"""

from __future__ import annotations

import platform

from partrain.kernels.compiler.deferred import DeferredModule, cgutils, ir, types
from partrain.kernels.compiler.flags import intrinsic
from partrain.kernels.simd.vectors import registers

_arrays = DeferredModule("partrain.kernels.compiler.plain_array")

_ORDERING = "seq_cst"

# LLVM's name of the instruction that marks a spin loop, and its argument, a 32-bit number.
_RELAX = {
    "x86_64": ("llvm.x86.sse2.pause", []),
    "AMD64": ("llvm.x86.sse2.pause", []),
    "aarch64": ("llvm.aarch64.hint", [1]),
    "arm64": ("llvm.aarch64.hint", [1]),
}.get(platform.machine())


@intrinsic
def yield_processor(typing):
    """Let another thread run on this processor: `sched_yield` of the C library."""

    def code(context, builder, signature, arguments):
        function_type = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, function_type, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), code


@intrinsic
def relax_processor(typing):
    """Wait a few cycles in a spin loop, and leave the core to its other hardware thread."""

    def code(context, builder, signature, arguments):
        if _RELAX is not None:
            name, numbers = _RELAX
            constants = [ir.Constant(ir.IntType(32), number) for number in numbers]
            instruction = ir.FunctionType(ir.VoidType(), [constant.type for constant in constants])
            builder.call(builder.module.declare_intrinsic(name, (), instruction), constants)
        return context.get_dummy_value()

    return types.void(), code


@intrinsic
def atomic_load(typing, array, index):
    """Return the int64 array[index]."""

    def code(context, builder, signature, arguments):
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        address = registers.address(context, builder, signature.args[0], arguments[0], index)
        return builder.load_atomic(address, _ORDERING, align=8)

    return types.int64(array, index), code


@intrinsic
def atomic_store(typing, array, index, number):
    """Write `number` to the int64 array[index]."""

    def code(context, builder, signature, arguments):
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        number = context.cast(builder, arguments[2], signature.args[2], types.int64)
        address = registers.address(context, builder, signature.args[0], arguments[0], index)
        builder.store_atomic(number, address, _ORDERING, align=8)
        return context.get_dummy_value()

    return types.void(array, index, number), code


def _read_modify_write(operation, description):
    def typed(typing, array, index, number):
        def code(context, builder, signature, arguments):
            index = context.cast(builder, arguments[1], signature.args[1], types.intp)
            number = context.cast(builder, arguments[2], signature.args[2], types.int64)
            address = registers.address(context, builder, signature.args[0], arguments[0], index)
            return builder.atomic_rmw(operation, address, number, _ORDERING)

        return types.int64(array, index, number), code

    typed.__doc__ = description
    return intrinsic(typed)


atomic_add = _read_modify_write("add", "Add `number` to the int64 array[index]; return the old value.")
atomic_max = _read_modify_write(
    "max", "Raise the int64 array[index] to `number` if that is larger; return the old value."
)


@intrinsic
def compare_exchange(typing, array, index, expected, number):
    """Write `number` to the int64 array[index] if it is `expected`; return whether it was."""

    def code(context, builder, signature, arguments):
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        expected, number = (
            context.cast(builder, argument, argument_type, types.int64)
            for argument, argument_type in zip(arguments[2:], signature.args[2:], strict=True)
        )
        address = registers.address(context, builder, signature.args[0], arguments[0], index)
        outcome = builder.cmpxchg(address, expected, number, _ORDERING, _ORDERING)
        return builder.extract_value(outcome, 1)

    return types.boolean(array, index, expected, number), code


def _array_at(name, description):
    def typed(typing, address, size):
        array_type = types.Array(getattr(types, name), 1, "C")

        def code(context, builder, signature, arguments):
            address, size = (
                context.cast(builder, argument, argument_type, types.intp)
                for argument, argument_type in zip(arguments, signature.args, strict=True)
            )
            return _arrays.plain_array(context, builder, array_type, address, [size])

        return array_type(address, size), code

    typed.__doc__ = description
    return intrinsic(typed)


float32_at = _array_at("float32", "Return the array of `size` float32 at an address.")
int32_at = _array_at("int32", "Return the array of `size` int32 at an address.")
