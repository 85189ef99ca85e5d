"""Packs the lanes of a vector that a mask selects to the front, and so appends them to a list in memory."""

from __future__ import annotations

from partrain.kernels.compiler.deferred import cgutils, ir, types
from partrain.kernels.compiler.flags import intrinsic
from partrain.kernels.compiler.target import target_has

from .vectors import LANES, registers

_HAS_PERMUTATION = LANES == 8 and target_has("avx2")
_HAS_COMPRESSION = LANES == 16 and target_has("avx512f")


@intrinsic
def load_counts(typing, array, index):
    """Return the int32 array[index : index+LANES]."""

    def code(context, builder, signature, arguments):
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        address = registers.address(context, builder, signature.args[0], arguments[0], index, registers.COUNTS_TYPE)
        return builder.load(address, align=4)

    return registers.COUNTS(array, index), code


@intrinsic
def nonzero_where_counted(typing, numbers, counts):
    """Return the mask: the number is not 0 (it may be NaN), and the integer is not negative."""

    def code(context, builder, signature, arguments):
        numbers, counts = arguments
        nonzero = builder.fcmp_unordered("!=", numbers, ir.Constant(numbers.type, None))
        return builder.and_(nonzero, builder.icmp_signed(">=", counts, ir.Constant(registers.COUNTS_TYPE, None)))

    return registers.MASK(registers.VECTOR, registers.COUNTS), code


def _bits(builder, mask):
    """Return the mask as an integer: lane j is bit j."""
    return builder.zext(builder.bitcast(mask, ir.IntType(LANES)), registers.INT64)


@intrinsic
def num_selected(typing, mask):
    """Return the number of lanes that the mask selects."""

    def code(context, builder, signature, arguments):
        return builder.ctpop(_bits(builder, arguments[0]))

    return types.int64(registers.MASK), code


@intrinsic
def store_selected(typing, array, index, vector, mask):
    """Write the lanes of a vector (or of counts) that the mask selects to array[index:], side by side.

    The numbers behind them, up to array[index+LANES-1], may be overwritten.
    """

    def code(context, builder, signature, arguments):
        _, _, vector, mask = arguments
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        address = registers.address(context, builder, signature.args[0], arguments[0], index)
        if _HAS_PERMUTATION:
            packed = _permute(builder, vector, _order_of(builder, mask))
            builder.store(packed, builder.bitcast(address, vector.type.as_pointer()), align=4)
        elif _HAS_COMPRESSION:
            _compress(builder, vector, address, mask)
        else:
            for lane in range(LANES):
                place = ir.Constant(registers.INT32, lane)
                builder.store(builder.extract_element(vector, place), address)
                step = builder.zext(builder.extract_element(mask, place), registers.INT64)
                address = builder.gep(address, [step])
        return context.get_dummy_value()

    return types.void(array, index, vector, registers.MASK), code


def _order_of(builder, mask):
    """Return the lanes that the mask selects, in order, from a table of all masks of 8 lanes."""
    rows = [[lane for lane in range(8) if bits >> lane & 1] for bits in range(256)]
    row_type = ir.VectorType(ir.IntType(8), 8)
    table_type = ir.ArrayType(row_type, 256)
    table = ir.Constant(table_type, [ir.Constant(row_type, row + [0] * (8 - len(row))) for row in rows])
    address = cgutils.global_constant(builder.module, "lanes_of_masks", table)
    row = builder.load(builder.gep(address, [ir.Constant(registers.INT64, 0), _bits(builder, mask)]))
    return builder.zext(row, registers.COUNTS_TYPE)


def _permute(builder, vector, order):
    """Return the vector's lanes in an order that is known at run time only."""
    name = "llvm.x86.avx2.permd" if vector.type == registers.COUNTS_TYPE else "llvm.x86.avx2.permps"
    signature = ir.FunctionType(vector.type, [vector.type, registers.COUNTS_TYPE])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), [vector, order])


def _compress(builder, vector, address, mask):
    kind = "i32" if vector.type == registers.COUNTS_TYPE else "f32"
    signature = ir.FunctionType(ir.VoidType(), [vector.type, address.type, registers.MASK_TYPE])
    name = f"llvm.masked.compressstore.v{LANES}{kind}"
    builder.call(cgutils.get_or_insert_function(builder.module, signature, name), [vector, address, mask])
