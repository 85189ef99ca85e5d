"""The processor's vectors as values in a kernel: load, multiply-add, store, and blocks of vectors in registers.

LLVM vectorises simple loops by itself, but it does not keep a dozen sums in registers during a long loop. These values
do. There are three kinds, which live in registers and never in arrays:

    vector    LANES float32 numbers
    block     a fixed number of vectors: the running sums of an inner loop
    points    as many addresses in an array: a block's vectors are loaded from them or stored to them

No sum is reordered: each lane is a chain of fused multiply-adds, in the order of the loop. Only `sum_ways` adds across
lanes, in a fixed tree of a fixed number of partial sums. So the bits do not depend on LANES, if single numbers that are
left over are multiplied and added with `fused`.

LANES is the number of float32 in a vector. Indices count elements of the flat array (C-contiguous, any number of
dimensions); they are not checked.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from partrain.kernels.compiler.target import num_vector_registers, register_class, vector_width
from partrain.kernels.simd.fused_multiply_add import fma

LANES = vector_width()
# Partial sums of a dot product, on every processor: its terms are dealt out to them in turn. Vectors have 4, 8 or 16
# lanes; 16 ways would cost processors with 8 lanes up to a quarter of the time of a dense layer's forward pass.
WAYS = 8
# Pairs of vectors whose sums an inner loop keeps in registers.
PAIRS = 6 if num_vector_registers() == 16 else 12
_REGISTER_CLASS = register_class()
_FLOAT = ir.FloatType()
_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_WAYS_VECTOR = ir.VectorType(_FLOAT, WAYS)
_MASK = ir.VectorType(ir.IntType(1), LANES)
_COUNTS = ir.VectorType(_INT32, LANES)


class _Register(types.Type):
    """A value of an LLVM type that Numba passes on unchanged."""

    def __init__(self, name, llvm_type):
        self.llvm_type = llvm_type
        super().__init__(name=f"{name}_{LANES}")


class _Block(_Register):
    def __init__(self, size):
        self.size = size
        super().__init__(f"block{size}", ir.ArrayType(_VECTOR, size))


class _Points(_Register):
    def __init__(self, size):
        self.size = size
        super().__init__(f"points{size}", ir.ArrayType(_FLOAT.as_pointer(), size))


@register_model(_Points)
@register_model(_Block)
@register_model(_Register)
class _RegisterModel(models.PrimitiveModel):
    def __init__(self, data_model_manager, numba_type):
        super().__init__(data_model_manager, numba_type, numba_type.llvm_type)


VECTOR = _Register("vector", _VECTOR)
MASK = _Register("mask", _MASK)
COUNTS = _Register("counts", _COUNTS)


def _address(context, builder, array_type, array, index, llvm_type=None):
    data = context.make_array(array_type)(context, builder, array).data
    address = builder.gep(data, [index])
    return address if llvm_type is None else builder.bitcast(address, llvm_type.as_pointer())


def _call_llvm(builder, name, *vectors):
    signature = ir.FunctionType(_VECTOR, [_VECTOR] * len(vectors))
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.{name}.v{LANES}f32")
    return builder.call(function, vectors)


def _splat(builder, scalar, vector_type=_VECTOR):
    undefined = ir.Constant(vector_type, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_INT32, 0))
    zeros = ir.Constant(ir.VectorType(_INT32, vector_type.count), [0] * vector_type.count)
    return builder.shuffle_vector(first, undefined, zeros)


def _in_this_order(builder, vector):
    """Return `vector`; code that precedes it in the source is computed before it, and the rest after it.

    This emits no instruction. Without it, LLVM moves all loads of a step to its front, where they do not fit into the
    registers, and unrolls the loop, whose addresses then do not fit either.
    """
    if _REGISTER_CLASS is None:
        return vector
    signature = ir.FunctionType(ir.VoidType(), [vector.type])
    builder.asm(signature, "", f"{_REGISTER_CLASS},~{{memory}}", [vector], side_effect=True)
    return vector


def _load_at(builder, pointer):
    return builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)


def _store_at(builder, vector, pointer):
    builder.store(vector, builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)


@intrinsic
def load(typing, array, index):
    """Return the vector array[index : index+LANES]."""

    def code(context, builder, signature, arguments):
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        return _load_at(builder, _address(context, builder, signature.args[0], arguments[0], index))

    return VECTOR(array, index), code


@intrinsic
def store(typing, array, index, vector):
    """Write `vector` to array[index : index+LANES]."""

    def code(context, builder, signature, arguments):
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        _store_at(builder, arguments[2], _address(context, builder, signature.args[0], arguments[0], index))
        return context.get_dummy_value()

    return types.void(array, index, vector), code


@intrinsic
def element(typing, array, index):
    """Return the flat array[index]; negative indices are not supported, which saves a test."""

    def code(context, builder, signature, arguments):
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        return builder.load(_address(context, builder, signature.args[0], arguments[0], index))

    return array.dtype(array, index), code


@intrinsic
def store_number(typing, array, index, number):
    """Write one number to the flat array[index]."""

    def code(context, builder, signature, arguments):
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        number = context.cast(builder, arguments[2], signature.args[2], signature.args[0].dtype)
        builder.store(number, _address(context, builder, signature.args[0], arguments[0], index))
        return context.get_dummy_value()

    return types.void(array, index, number), code


@intrinsic
def broadcast(typing, number):
    """Return a vector with `number` in every lane."""

    def code(context, builder, signature, arguments):
        number = context.cast(builder, arguments[0], signature.args[0], types.float32)
        return _splat(builder, number)

    return VECTOR(number), code


def _lane_by_lane(operation, formula):
    def typed(typing, a, b):
        def code(context, builder, signature, arguments):
            return getattr(builder, operation)(*arguments)

        return VECTOR(VECTOR, VECTOR), code

    typed.__doc__ = f"Return {formula}, lane by lane."
    return intrinsic(typed)


add = _lane_by_lane("fadd", "a + b")
subtract = _lane_by_lane("fsub", "a - b")
multiply = _lane_by_lane("fmul", "a * b")
divide = _lane_by_lane("fdiv", "a / b")


@intrinsic
def square_root(typing, a):
    """Return the square root of each lane."""

    def code(context, builder, signature, arguments):
        return _call_llvm(builder, "sqrt", *arguments)

    return VECTOR(VECTOR), code


@intrinsic
def multiply_add(typing, a, b, c):
    """Return a * b + c, rounded once."""

    def code(context, builder, signature, arguments):
        return fma(builder, *arguments)

    return VECTOR(VECTOR, VECTOR, VECTOR), code


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

    return MASK(VECTOR, VECTOR), code


@intrinsic
def replaces_maximum(typing, new, best):
    """Return the mask (new > best) or new is NaN: a maximum that keeps NaN takes `new` there."""

    def code(context, builder, signature, arguments):
        new, best = arguments
        return builder.or_(builder.fcmp_ordered(">", new, best), builder.fcmp_unordered("uno", new, new))

    return MASK(VECTOR, VECTOR), code


@intrinsic
def select(typing, mask, a, b):
    """Return a where the mask is set, else b (vectors, or counts)."""

    def code(context, builder, signature, arguments):
        return builder.select(*arguments)

    return a(MASK, a, a), code


@intrinsic
def broadcast_count(typing, number):
    """Return the 32-bit integer `number` in every lane."""

    def code(context, builder, signature, arguments):
        number = context.cast(builder, arguments[0], signature.args[0], types.int32)
        return _splat(builder, number, _COUNTS)

    return COUNTS(number), code


@intrinsic
def larger_magnitude(typing, largest, array, index):
    """Return the larger of `largest` and the int32 array[index : index+LANES] without its sign bits.

    If these are the bits of float32 numbers, it is the one with the larger absolute value; NaN is the largest.
    """

    def code(context, builder, signature, arguments):
        index = context.cast(builder, arguments[2], signature.args[2], types.intp)
        address = _address(context, builder, signature.args[1], arguments[1], index, _COUNTS)
        bits = builder.and_(builder.load(address, align=4), ir.Constant(_COUNTS, [0x7FFFFFFF] * LANES))
        return builder.select(builder.icmp_signed(">", bits, arguments[0]), bits, arguments[0])

    return COUNTS(COUNTS, array, index), code


@intrinsic
def store_counts(typing, array, index, counts):
    """Write integers to the int32 array[index : index+LANES]."""

    def code(context, builder, signature, arguments):
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        address = _address(context, builder, signature.args[0], arguments[0], index, _COUNTS)
        builder.store(arguments[2], address, align=4)
        return context.get_dummy_value()

    return types.void(array, index, counts), code


def _sum_halves(builder, vector):
    """Return the sum of a vector's numbers: halves are added to halves."""
    width = vector.type.count
    while width > 1:
        width //= 2
        high = ir.Constant(ir.VectorType(_INT32, width), list(range(width, 2 * width)))
        low = ir.Constant(ir.VectorType(_INT32, width), list(range(width)))
        vector = builder.fadd(builder.shuffle_vector(vector, vector, low), builder.shuffle_vector(vector, vector, high))
    return builder.extract_element(vector, ir.Constant(_INT32, 0))


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
        address = _address(context, builder, signature.args[0], arguments[0], index, _WAYS_VECTOR)
        return _sum_halves(builder, builder.load(address, align=4))

    return types.float32(array, index), code
