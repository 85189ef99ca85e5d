"""The processor's vectors as values in a kernel: load, multiply-add, store, and blocks of vectors in registers.

LLVM vectorises simple loops by itself, but it does not keep a dozen sums in registers during a long loop. These values
do. There are three kinds, which live in registers and never in arrays:

    vector    LANES float32 numbers
    block     a fixed number of vectors: the running sums of an inner loop
    points    as many addresses in an array: a block's vectors are loaded from them or stored to them

No sum is reordered: each lane is a chain of fused multiply-adds, in the order of the loop. Only `sum_ways` adds across
lanes, in a fixed tree of a fixed number of partial sums. So the bits do not depend on LANES, if single numbers that are
left over are multiplied and added with `fused`.

LANES is the number of float32 in a vector: as many as the processor's have, or 8 in `partrain.kernels.eight_lanes`.
Indices count elements of the flat array (C-contiguous, any number of dimensions); they are not checked.
"""

from __future__ import annotations

from partrain.kernels.compiler.deferred import DeferredModule, ir, types
from partrain.kernels.compiler.flags import intrinsic
from partrain.kernels.compiler.target import num_vector_registers, vector_width
from partrain.kernels.simd.fused_multiply_add import fma

# The types of the values, and what emits their code.
registers = DeferredModule(f"{__package__}.registers")

# The package that has this file and the kernels once more.
EIGHT_LANES = "partrain.kernels.eight_lanes"
LANES = 8 if __name__.startswith(EIGHT_LANES) else vector_width()
# Partial sums of a dot product, on every processor: its terms are dealt out to them in turn. Vectors have 4, 8 or 16
# lanes; 16 ways would cost processors with 8 lanes up to a quarter of the time of a dense layer's forward pass.
WAYS = 8
# Pairs of vectors whose sums an inner loop keeps in registers.
PAIRS = 6 if num_vector_registers() == 16 else 12


@intrinsic
def load(typing, array, index):
    """Return the vector array[index : index+LANES]."""

    def code(context, builder, signature, arguments):
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        return registers.load_at(builder, registers.address(context, builder, signature.args[0], arguments[0], index))

    return registers.VECTOR(array, index), code


@intrinsic
def store(typing, array, index, vector):
    """Write `vector` to array[index : index+LANES]."""

    def code(context, builder, signature, arguments):
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        registers.store_at(
            builder, arguments[2], registers.address(context, builder, signature.args[0], arguments[0], index)
        )
        return context.get_dummy_value()

    return types.void(array, index, vector), code


@intrinsic
def element(typing, array, index):
    """Return the flat array[index]; negative indices are not supported, which saves a test."""

    def code(context, builder, signature, arguments):
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        return builder.load(registers.address(context, builder, signature.args[0], arguments[0], index))

    return array.dtype(array, index), code


@intrinsic
def store_number(typing, array, index, number):
    """Write one number to the flat array[index]."""

    def code(context, builder, signature, arguments):
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        number = context.cast(builder, arguments[2], signature.args[2], signature.args[0].dtype)
        builder.store(number, registers.address(context, builder, signature.args[0], arguments[0], index))
        return context.get_dummy_value()

    return types.void(array, index, number), code


@intrinsic
def broadcast(typing, number):
    """Return a vector with `number` in every lane."""

    def code(context, builder, signature, arguments):
        number = context.cast(builder, arguments[0], signature.args[0], types.float32)
        return registers.splat(builder, number)

    return registers.VECTOR(number), code


def _lane_by_lane(operation, formula):
    def typed(typing, a, b):
        def code(context, builder, signature, arguments):
            return getattr(builder, operation)(*arguments)

        return registers.VECTOR(registers.VECTOR, registers.VECTOR), code

    typed.__doc__ = f"Return {formula}, lane by lane."
    return intrinsic(typed)


add = _lane_by_lane("fadd", "a + b")
subtract = _lane_by_lane("fsub", "a - b")
multiply = _lane_by_lane("fmul", "a * b")
divide = _lane_by_lane("fdiv", "a / b")


@intrinsic
def zero_below(typing, a, bound):
    """Return each lane of a, but 0 where it is nearer to 0 than the number `bound`; NaN stays NaN."""

    def code(context, builder, signature, arguments):
        bound = context.cast(builder, arguments[1], signature.args[1], types.float32)
        is_below = builder.fcmp_ordered(
            "<", registers.call_llvm(builder, "fabs", arguments[0]), registers.splat(builder, bound)
        )
        return builder.select(is_below, registers.splat(builder, ir.Constant(registers.FLOAT, 0.0)), arguments[0])

    return registers.VECTOR(registers.VECTOR, bound), code


@intrinsic
def square_root(typing, a):
    """Return the square root of each lane."""

    def code(context, builder, signature, arguments):
        return registers.call_llvm(builder, "sqrt", *arguments)

    return registers.VECTOR(registers.VECTOR), code


@intrinsic
def multiply_add(typing, a, b, c):
    """Return a * b + c, rounded once."""

    def code(context, builder, signature, arguments):
        return fma(builder, *arguments)

    return registers.VECTOR(registers.VECTOR, registers.VECTOR, registers.VECTOR), code


@intrinsic
def fused(typing, a, b, c):
    """Return a * b + c of single float32 numbers, rounded once, as `multiply_add` rounds it in each lane."""

    def code(context, builder, signature, arguments):
        return fma(builder, *arguments)

    return types.float32(types.float32, types.float32, types.float32), code


@intrinsic
def less_equal(typing, a, b):
    """Return the mask a <= b; false where either is NaN."""

    def code(context, builder, signature, arguments):
        return builder.fcmp_ordered("<=", *arguments)

    return registers.MASK(registers.VECTOR, registers.VECTOR), code


@intrinsic
def less(typing, a, b):
    """Return the mask a < b; false where either is NaN."""

    def code(context, builder, signature, arguments):
        return builder.fcmp_ordered("<", *arguments)

    return registers.MASK(registers.VECTOR, registers.VECTOR), code


@intrinsic
def replaces_maximum(typing, new, best):
    """Return the mask (new > best) or new is NaN: a maximum that keeps NaN takes `new` there."""

    def code(context, builder, signature, arguments):
        new, best = arguments
        return builder.or_(builder.fcmp_ordered(">", new, best), builder.fcmp_unordered("uno", new, new))

    return registers.MASK(registers.VECTOR, registers.VECTOR), code


@intrinsic
def select(typing, mask, a, b):
    """Return a where the mask is set, else b (vectors, or counts)."""

    def code(context, builder, signature, arguments):
        return builder.select(*arguments)

    return a(registers.MASK, a, a), code


@intrinsic
def broadcast_count(typing, number):
    """Return the 32-bit integer `number` in every lane."""

    def code(context, builder, signature, arguments):
        number = context.cast(builder, arguments[0], signature.args[0], types.int32)
        return registers.splat(builder, number, registers.COUNTS_TYPE)

    return registers.COUNTS(number), code


@intrinsic
def add_count(typing, counts, number):
    """Return counts + number, lane by lane."""

    def code(context, builder, signature, arguments):
        number = context.cast(builder, arguments[1], signature.args[1], types.int32)
        return builder.add(arguments[0], registers.splat(builder, number, registers.COUNTS_TYPE))

    return registers.COUNTS(registers.COUNTS, number), code


@intrinsic
def larger_magnitude(typing, largest, array, index):
    """Return the larger of `largest` and the int32 array[index : index+LANES] without its sign bits.

    If these are the bits of float32 numbers, it is the one with the larger absolute value; NaN is the largest.
    """

    def code(context, builder, signature, arguments):
        index = context.cast(builder, arguments[2], signature.args[2], types.intp)
        address = registers.address(context, builder, signature.args[1], arguments[1], index, registers.COUNTS_TYPE)
        bits = builder.and_(builder.load(address, align=4), ir.Constant(registers.COUNTS_TYPE, [0x7FFFFFFF] * LANES))
        return builder.select(builder.icmp_signed(">", bits, arguments[0]), bits, arguments[0])

    return registers.COUNTS(registers.COUNTS, array, index), code


@intrinsic
def store_counts(typing, array, index, counts):
    """Write integers to the int32 array[index : index+LANES]."""

    def code(context, builder, signature, arguments):
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        address = registers.address(context, builder, signature.args[0], arguments[0], index, registers.COUNTS_TYPE)
        builder.store(arguments[2], address, align=4)
        return context.get_dummy_value()

    return types.void(array, index, counts), code


def _sum_halves(builder, vector):
    """Return the sum of a vector's numbers: halves are added to halves."""
    width = vector.type.count
    while width > 1:
        width //= 2
        high = ir.Constant(ir.VectorType(registers.INT32, width), list(range(width, 2 * width)))
        low = ir.Constant(ir.VectorType(registers.INT32, width), list(range(width)))
        vector = builder.fadd(builder.shuffle_vector(vector, vector, low), builder.shuffle_vector(vector, vector, high))
    return builder.extract_element(vector, ir.Constant(registers.INT32, 0))


@intrinsic
def sum_lanes(typing, vector):
    """Return the sum of the lanes: halves are added to halves. It depends on LANES, unless all lanes are 0 or NaN."""

    def code(context, builder, signature, arguments):
        return _sum_halves(builder, arguments[0])

    return types.float32(vector), code


@intrinsic
def sum_ways(typing, array, index):
    """Return the sum of array[index : index+WAYS]: halves are added to halves, with any LANES."""

    def code(context, builder, signature, arguments):
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        address = registers.address(
            context, builder, signature.args[0], arguments[0], index, registers.WAYS_VECTOR_TYPE
        )
        return _sum_halves(builder, builder.load(address, align=4))

    return types.float32(array, index), code
