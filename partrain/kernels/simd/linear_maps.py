"""Products of a constant matrix of rational numbers with vectors: y[k] = sum over j of matrix[k][j] · x[j].

The code is generated for the matrix. Zeros cost nothing, a pair of rows or columns that differ in signs alone is
computed together, and each step is one addition or one fused multiply-add. The matrix alone decides their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from partrain.kernels.compiler.deferred import ir, types
from partrain.kernels.compiler.flags import intrinsic
from partrain.kernels.simd.fused_multiply_add import fma

from .vectors import registers

_ZERO = Fraction(0)


def linear_map(matrix: Sequence[Sequence[Fraction]]) -> Any:
    """Return the intrinsic (array, start, step) -> matrix·x, a block; x[j] is the vector at array[start + j·step]."""
    num_columns = len(matrix[0])

    def typed(typing, array, start, step):
        product = registers.Block(len(matrix))

        def code(context, builder, signature, arguments):
            array_type, start_type, step_type = signature.args
            start = context.cast(builder, arguments[1], start_type, types.intp)
            step = context.cast(builder, arguments[2], step_type, types.intp)
            address = registers.address(context, builder, array_type, arguments[0], start)
            vectors = []
            for _ in range(num_columns):
                vectors.append(registers.load_at(builder, address))
                address = builder.gep(address, [step])
            result = ir.Constant(product.llvm_type, ir.Undefined)
            for k, vector in enumerate(_product(builder, matrix, vectors)):
                result = builder.insert_value(result, vector, k)
            return result

        return product(array, start, step), code

    typed.__doc__ = "Multiply the matrix with the vectors at array[start + j·step]."
    return intrinsic(typed)


def _product(builder, matrix, vectors):
    """Return the vectors matrix·vectors."""
    columns = list(zip(*matrix, strict=True))
    pair = next((pair for pair in _pairs(columns) if len(matrix) < len(columns)), None)
    if pair is not None:
        # Put x[j] + x[k] in the place of x[j], and x[j] - x[k] in that of x[k].
        j, k = pair
        vectors = list(vectors)
        vectors[j], vectors[k] = builder.fadd(vectors[j], vectors[k]), builder.fsub(vectors[j], vectors[k])
        columns[j], columns[k] = _equal_and_opposite(columns[j], columns[k])
        return _product(builder, list(zip(*columns, strict=True)), vectors)
    results = [None] * len(matrix)
    for i, k in _pairs(matrix):
        if results[i] is None and results[k] is None:
            equal, opposite = _equal_and_opposite(matrix[i], matrix[k])
            results[i], results[k] = _sum_and_difference(builder, equal, opposite, vectors)
    return [_sum(builder, row, vectors) if y is None else y for y, row in zip(results, matrix, strict=True)]


def _pairs(rows):
    """Yield the pairs of rows that differ in signs alone, where that saves work."""
    for i, a in enumerate(rows):
        for k, b in enumerate(rows[i + 1 :], i + 1):
            equal, opposite = (sum(map(bool, part)) for part in _equal_and_opposite(a, b))
            if all(abs(x) == abs(y) for x, y in zip(a, b, strict=True)) and equal and opposite and equal + opposite > 2:
                yield i, k


def _equal_and_opposite(a, b):
    """Return the part of `a` that equals `b`, and the rest."""
    equal = tuple(x if x == y else _ZERO for x, y in zip(a, b, strict=True))
    return equal, tuple(x - y for x, y in zip(a, equal, strict=True))


def _sum_and_difference(builder, first, second, vectors):
    """Return (first + second)·vectors and (first - second)·vectors."""
    factor = Fraction(1)
    if 1 not in second:
        factor = next(c for c in reversed(second) if c)  # so that one product is saved
    total, addend = _sum(builder, first, vectors), _sum(builder, [c / factor for c in second], vectors)
    return tuple(_add_product(builder, total, sign * factor, addend) for sign in (1, -1))


def _sum(builder, row, vectors):
    """Return row·vectors: the chain begins at a coefficient of 1, if there is one, and takes the others in order."""
    terms = [(c, v) for c, v in zip(row, vectors, strict=True) if c]
    first = next((t for t, (c, _) in enumerate(terms) if c == 1), 0)
    coefficient, total = terms.pop(first)
    if coefficient != 1:
        total = builder.fmul(total, _constant(builder, coefficient))
    for coefficient, vector in terms:
        total = _add_product(builder, total, coefficient, vector)
    return total


def _add_product(builder, total, coefficient, vector):
    if abs(coefficient) == 1:
        return builder.fadd(total, vector) if coefficient == 1 else builder.fsub(total, vector)
    return fma(builder, vector, _constant(builder, coefficient), total)


def _constant(builder, value):
    return registers.splat(builder, ir.Constant(registers.FLOAT, float(value)))
