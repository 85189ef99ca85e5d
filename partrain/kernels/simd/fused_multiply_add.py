"""Fused multiply-adds of float32 in LLVM's code: a·b + c, rounded once.

A processor without an instruction for it would call the C library for each number, which takes a hundred times as long
as the arithmetic here. In float64 the product is exact. The sum is rounded "to odd": if it is not exact, to the one of
its two neighbours whose last bit is 1. Rounding that to float32 gives the exact result, as float64 has more than two
bits in excess.

Sources: Boldo, Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to odd",
IEEE Trans. Computers 57 (2008) 462; for the error of a sum, Knuth, The Art of Computer Programming, vol. 2, 4.2.2.
"""

from __future__ import annotations

from partrain.kernels.compiler.deferred import cgutils, ir
from partrain.kernels.compiler.target import fuses_multiply_add

_HAS_INSTRUCTION = fuses_multiply_add()


def fma(builder, a, b, c):
    """Return a·b + c of numbers or vectors."""
    return (_call_instruction if _HAS_INSTRUCTION else fma_by_rounding_to_odd)(builder, a, b, c)


def _call_instruction(builder, a, b, c):
    name = f"llvm.fma.v{a.type.count}f32" if isinstance(a.type, ir.VectorType) else "llvm.fma.f32"
    signature = ir.FunctionType(a.type, [a.type] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), (a, b, c))


def fma_by_rounding_to_odd(builder, a, b, c):
    """Return a·b + c of numbers or vectors, from operations that every processor has."""
    single, wide, bits = a.type, _like(a.type, ir.DoubleType()), _like(a.type, ir.IntType(64))

    def whole(value):
        return ir.Constant(bits, [value] * single.count if isinstance(single, ir.VectorType) else value)

    a, b, c = (builder.fpext(value, wide) for value in (a, b, c))
    product = builder.fmul(a, b)
    total = builder.fadd(product, c)
    share = builder.fsub(total, product)
    error = builder.fadd(builder.fsub(product, builder.fsub(total, share)), builder.fsub(c, share))
    total_bits, error_bits = builder.bitcast(total, bits), builder.bitcast(error, bits)
    # NaN, from numbers that are not finite, counts as no error.
    is_inexact = builder.sext(builder.fcmp_ordered("!=", error, builder.bitcast(whole(0), wide)), bits)
    # 1 if the total must become odd: it grows if the error has its sign, and shrinks if not.
    change = builder.and_(builder.and_(builder.not_(total_bits), whole(1)), is_inexact)
    shrinks = builder.lshr(builder.xor(total_bits, error_bits), whole(63))
    back = builder.shl(builder.and_(change, shrinks), whole(1))
    odd = builder.sub(builder.add(total_bits, change), back)
    return builder.fptrunc(builder.bitcast(odd, wide), single)


def _like(llvm_type, element):
    return ir.VectorType(element, llvm_type.count) if isinstance(llvm_type, ir.VectorType) else element
