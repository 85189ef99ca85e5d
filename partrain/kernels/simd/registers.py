"""The types of values in registers, as Numba and LLVM know them, and what emits code for them.

Only compiling imports this file. See `kernels.simd.vectors`.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import models, register_model

from partrain.kernels.compiler.target import register_class

from .vectors import LANES, WAYS

_REGISTER_CLASS = register_class()
FLOAT = ir.FloatType()
INT32 = ir.IntType(32)
INT64 = ir.IntType(64)
VECTOR_TYPE = ir.VectorType(FLOAT, LANES)
WAYS_VECTOR_TYPE = ir.VectorType(FLOAT, WAYS)
MASK_TYPE = ir.VectorType(ir.IntType(1), LANES)
COUNTS_TYPE = ir.VectorType(INT32, LANES)


class _Register(types.Type):
    """A value of an LLVM type that Numba passes on unchanged."""

    def __init__(self, name, llvm_type):
        self.llvm_type = llvm_type
        super().__init__(name=f"{name}_{LANES}")


class Block(_Register):
    def __init__(self, size):
        self.size = size
        super().__init__(f"block{size}", ir.ArrayType(VECTOR_TYPE, size))


class Points(_Register):
    def __init__(self, size):
        self.size = size
        super().__init__(f"points{size}", ir.ArrayType(FLOAT.as_pointer(), size))


@register_model(Points)
@register_model(Block)
@register_model(_Register)
class _RegisterModel(models.PrimitiveModel):
    def __init__(self, data_model_manager, numba_type):
        super().__init__(data_model_manager, numba_type, numba_type.llvm_type)


VECTOR = _Register("vector", VECTOR_TYPE)
MASK = _Register("mask", MASK_TYPE)
COUNTS = _Register("counts", COUNTS_TYPE)


def address(context, builder, array_type, array, index, llvm_type=None):
    data = context.make_array(array_type)(context, builder, array).data
    element = builder.gep(data, [index])
    return element if llvm_type is None else builder.bitcast(element, llvm_type.as_pointer())


def call_llvm(builder, name, *vectors):
    signature = ir.FunctionType(VECTOR_TYPE, [VECTOR_TYPE] * len(vectors))
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.{name}.v{LANES}f32")
    return builder.call(function, vectors)


def splat(builder, scalar, vector_type=VECTOR_TYPE):
    undefined = ir.Constant(vector_type, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(INT32, 0))
    zeros = ir.Constant(ir.VectorType(INT32, vector_type.count), [0] * vector_type.count)
    return builder.shuffle_vector(first, undefined, zeros)


def in_this_order(builder, vector):
    """Return `vector`; code that precedes it in the source is computed before it, and the rest after it.

    This emits no instruction. Without it, LLVM moves all loads of a step to its front, where they do not fit into the
    registers, and unrolls the loop, whose addresses then do not fit either.
    """
    if _REGISTER_CLASS is None:
        return vector
    signature = ir.FunctionType(ir.VoidType(), [vector.type])
    builder.asm(signature, "", f"{_REGISTER_CLASS},~{{memory}}", [vector], side_effect=True)
    return vector


def load_at(builder, pointer):
    return builder.load(builder.bitcast(pointer, VECTOR_TYPE.as_pointer()), align=4)


def store_at(builder, vector, pointer):
    builder.store(vector, builder.bitcast(pointer, VECTOR_TYPE.as_pointer()), align=4)
