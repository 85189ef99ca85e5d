"""Packs the lanes of a vector that a mask selects to the front, and so appends them to a list in memory."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from partrain.kernels.compiler.target import target_has
from partrain.kernels.simd.vectors import _COUNTS, _INT32, _INT64, _MASK, COUNTS, LANES, MASK, VECTOR, _address

_HAS_PERMUTATION = LANES == 8 and target_has("avx2")
_HAS_COMPRESSION = LANES == 16 and target_has("avx512f")
_BYTE = ir.IntType(8)


@intrinsic
def load_counts(typing, array, index):
    """Return the int32 array[index : index+LANES]."""

    def code(context, builder, signature, arguments):
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        address = _address(context, builder, signature.args[0], arguments[0], index, _COUNTS)
        return builder.load(address, align=4)

    return COUNTS(array, index), code


@intrinsic
def nonzero_where_counted(typing, numbers, counts):
    """Return the mask: the number is not 0 (it may be NaN), and the integer is not negative."""

    def code(context, builder, signature, arguments):
        numbers, counts = arguments
        nonzero = builder.fcmp_unordered("!=", numbers, ir.Constant(numbers.type, None))
        return builder.and_(nonzero, builder.icmp_signed(">=", counts, ir.Constant(_COUNTS, None)))

    return MASK(VECTOR, COUNTS), code


def _bits(builder, mask):
    """Return the mask as an integer: lane j is bit j."""
    return builder.zext(builder.bitcast(mask, ir.IntType(LANES)), _INT64)


@intrinsic
def num_selected(typing, mask):
    """Return the number of lanes that the mask selects."""

    def code(context, builder, signature, arguments):
        return builder.ctpop(_bits(builder, arguments[0]))

    return types.int64(MASK), code


@intrinsic
def store_selected(typing, array, index, vector, mask):
    """Write the lanes of a vector (or of counts) that the mask selects to array[index:], side by side.

    The numbers behind them, up to array[index+LANES-1], may be overwritten.
    """

    def code(context, builder, signature, arguments):
        _, _, vector, mask = arguments
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        address = _address(context, builder, signature.args[0], arguments[0], index)
        if _HAS_PERMUTATION:
            packed = _permute(builder, vector, _order_of(builder, mask))
            builder.store(packed, builder.bitcast(address, vector.type.as_pointer()), align=4)
        elif _HAS_COMPRESSION:
            _compress(builder, vector, address, mask)
        else:
            for lane in range(LANES):
                place = ir.Constant(_INT32, lane)
                builder.store(builder.extract_element(vector, place), address)
                step = builder.zext(builder.extract_element(mask, place), _INT64)
                address = builder.gep(address, [step])
        return context.get_dummy_value()

    return types.void(array, index, vector, MASK), code


def _order_of(builder, mask):
    """Return the lanes that the mask selects, in order, from a table of all masks of 8 lanes."""
    rows = [[lane for lane in range(8) if bits >> lane & 1] for bits in range(256)]
    row_type = ir.VectorType(_BYTE, 8)
    table_type = ir.ArrayType(row_type, 256)
    table = ir.Constant(table_type, [ir.Constant(row_type, row + [0] * (8 - len(row))) for row in rows])
    address = cgutils.global_constant(builder.module, "lanes_of_masks", table)
    row = builder.load(builder.gep(address, [ir.Constant(_INT64, 0), _bits(builder, mask)]))
    return builder.zext(row, _COUNTS)


def _permute(builder, vector, order):
    """Return the vector's lanes in an order that is known at run time only."""
    name = "llvm.x86.avx2.permd" if vector.type == _COUNTS else "llvm.x86.avx2.permps"
    signature = ir.FunctionType(vector.type, [vector.type, _COUNTS])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), [vector, order])


def _compress(builder, vector, address, mask):
    kind = "i32" if vector.type == _COUNTS else "f32"
    signature = ir.FunctionType(ir.VoidType(), [vector.type, address.type, _MASK])
    name = f"llvm.masked.compressstore.v{LANES}{kind}"
    builder.call(cgutils.get_or_insert_function(builder.module, signature, name), [vector, address, mask])
