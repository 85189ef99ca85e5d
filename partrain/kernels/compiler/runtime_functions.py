"""The functions of Numba's runtime that kernels call, in LLVM's code.

Numba has them in a library that only importing Numba loads. Kernels need few of them, and simple ones: they allocate
arrays of their own, which nobody else sees, and all arrays are C-contiguous.

Source: numba/core/runtime/nrt.cpp and numba/_helperlib.c of Numba 0.68; the structure `MemInfo` is that of
`numba.core.runtime.nrtdynmod`.
"""

from __future__ import annotations

from llvmlite import ir

_INT32, _INT64, _BYTES = ir.IntType(32), ir.IntType(64), ir.IntType(8).as_pointer()
# Numbers begin on a cache line.
_ALIGNMENT = 64
# Before them are the words of MemInfo (references, destructor, its argument, address of the numbers, their size,
# allocator), and what aligns the numbers.
_ROOM = 2 * _ALIGNMENT


def add_runtime_functions(module: ir.Module) -> None:
    """Define the functions in a module."""
    malloc = ir.Function(module, ir.FunctionType(_BYTES, [_INT64]), "malloc")
    free = ir.Function(module, ir.FunctionType(ir.VoidType(), [_BYTES]), "free")
    aligned = ir.Function(module, ir.FunctionType(_BYTES, [_INT64, _INT32]), "NRT_MemInfo_alloc_aligned")
    _allocate_array(aligned, malloc)
    unaligned = ir.Function(module, ir.FunctionType(_BYTES, [_INT64]), "NRT_MemInfo_alloc")
    builder = ir.IRBuilder(unaligned.append_basic_block())
    builder.ret(builder.call(aligned, [unaligned.args[0], ir.Constant(_INT32, _ALIGNMENT)]))
    # Called when the last reference is gone.
    _forward(ir.Function(module, free.function_type, "NRT_MemInfo_call_dtor"), free)
    _forward(ir.Function(module, free.function_type, "NRT_Free"), free)
    _forward(ir.Function(module, malloc.function_type, "NRT_Allocate"), malloc)
    _reshape(module)


def _forward(function: ir.Function, target: ir.Function) -> None:
    builder = ir.IRBuilder(function.append_basic_block())
    result = builder.call(target, function.args)
    if isinstance(result.type, ir.VoidType):
        builder.ret_void()
    else:
        builder.ret(result)


def _allocate_array(function: ir.Function, malloc: ir.Function) -> None:
    """Allocate an array, with one reference; null if there is no memory."""
    builder = ir.IRBuilder(function.append_basic_block())
    size = function.args[0]
    block = builder.call(malloc, [builder.add(size, ir.Constant(_INT64, _ROOM))])
    with builder.if_then(builder.icmp_unsigned("!=", block, ir.Constant(_BYTES, None))):
        beyond = builder.add(builder.ptrtoint(block, _INT64), ir.Constant(_INT64, _ROOM - 1))
        data = builder.and_(beyond, ir.Constant(_INT64, -_ALIGNMENT))
        zero = ir.Constant(_INT64, 0)
        words = builder.bitcast(block, _INT64.as_pointer())
        for k, word in enumerate((ir.Constant(_INT64, 1), zero, zero, data, size, zero)):
            builder.store(word, builder.gep(words, [ir.Constant(_INT64, k)]))
    builder.ret(block)


def _reshape(module: ir.Module) -> None:
    """Write the strides of the new shape, from the last dimension on; that succeeds if the array is C-contiguous."""
    words = _INT64.as_pointer()
    function_type = ir.FunctionType(_INT32, [_INT64, words, words, _INT64, words, words, _INT64, _INT32])
    function = ir.Function(module, function_type, "numba_attempt_nocopy_reshape")
    _, _, _, num_dimensions, shape, strides, itemsize, _ = function.args
    entry, test, body, end = (function.append_basic_block(name) for name in ("entry", "test", "body", "end"))
    builder = ir.IRBuilder(entry)
    builder.branch(test)
    builder.position_at_end(test)
    left, stride = builder.phi(_INT64), builder.phi(_INT64)
    builder.cbranch(builder.icmp_signed("==", left, ir.Constant(_INT64, 0)), end, body)
    builder.position_at_end(body)
    k = builder.sub(left, ir.Constant(_INT64, 1))
    builder.store(stride, builder.gep(strides, [k]))
    larger = builder.mul(stride, builder.load(builder.gep(shape, [k])))
    builder.branch(test)
    for phi, first, later in ((left, num_dimensions, k), (stride, itemsize, larger)):
        phi.add_incoming(first, entry)
        phi.add_incoming(later, body)
    builder.position_at_end(end)
    builder.ret(ir.Constant(_INT32, 1))
