"""Blocks of vectors that stay in registers during an inner loop, and the addresses of their numbers.

Each step of an inner loop is one operation, which emits its loads and multiply-adds in a fixed order.
"""

from __future__ import annotations

from partrain.kernels.compiler.deferred import ir, types
from partrain.kernels.compiler.flags import intrinsic
from partrain.kernels.simd.fused_multiply_add import fma

from .vectors import LANES, WAYS, registers


@intrinsic
def rectify(typing, value):
    """Return max(value, 0) of a vector or block; NaN stays NaN."""

    def code(context, builder, signature, arguments):
        zero = registers.splat(builder, ir.Constant(registers.FLOAT, 0.0))
        if not isinstance(signature.args[0], registers.Block):
            return builder.select(builder.fcmp_ordered(">", zero, arguments[0]), zero, arguments[0])
        block = arguments[0]
        for j in range(signature.args[0].size):
            v = builder.extract_value(block, j)
            block = builder.insert_value(block, builder.select(builder.fcmp_ordered(">", zero, v), zero, v), j)
        return block

    return value(value), code


@intrinsic(prefer_literal=True)
def points_of(typing, array, start, offsets, first, size):
    """Return `size` addresses: those of array[start + offsets[first + j]]."""
    points = registers.Points(size.literal_value)

    def code(context, builder, signature, arguments):
        array_type, start_type, offsets_type, first_type, _ = signature.args
        start = context.cast(builder, arguments[1], start_type, types.intp)
        first = context.cast(builder, arguments[3], first_type, types.intp)
        base = registers.address(context, builder, array_type, arguments[0], start)
        table = registers.address(context, builder, offsets_type, arguments[2], first)
        result = ir.Constant(points.llvm_type, ir.Undefined)
        for j in range(points.size):
            offset = builder.load(builder.gep(table, [ir.Constant(registers.INT64, j)]))
            result = builder.insert_value(result, builder.gep(base, [offset]), j)
        return result

    return points(array, start, offsets, first, size), code


@intrinsic(prefer_literal=True)
def points_in_steps(typing, array, start, step, size):
    """Return `size` addresses: those of array[start + j*step]."""
    points = registers.Points(size.literal_value)

    def code(context, builder, signature, arguments):
        array_type, start_type, step_type, _ = signature.args
        start = context.cast(builder, arguments[1], start_type, types.intp)
        step = context.cast(builder, arguments[2], step_type, types.intp)
        address = registers.address(context, builder, array_type, arguments[0], start)
        result = ir.Constant(points.llvm_type, ir.Undefined)
        for j in range(points.size):
            result = builder.insert_value(result, address, j)
            address = builder.gep(address, [step])
        return result

    return points(array, start, step, size), code


@intrinsic(prefer_literal=True)
def block_of_pairs(typing, first, second, size):
    """Return a block of `size` pairs of vectors: block[j,0] = first, block[j,1] = second."""
    block = registers.Block(2 * size.literal_value)

    def code(context, builder, signature, arguments):
        result = ir.Constant(block.llvm_type, ir.Undefined)
        for j in range(block.size):
            result = builder.insert_value(result, arguments[j % 2], j)
        return result

    return block(first, second, size), code


@intrinsic(prefer_literal=True)
def zeros(typing, size):
    """Return a block of `size` vectors of zeros."""
    block = registers.Block(size.literal_value)

    def code(context, builder, signature, arguments):
        return ir.Constant(block.llvm_type, None)

    return block(size), code


@intrinsic
def load_block(typing, points, index):
    """Return the block of the vectors at points[j][index]."""
    block = registers.Block(points.size)

    def code(context, builder, signature, arguments):
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        result = ir.Constant(block.llvm_type, ir.Undefined)
        for j in range(points.size):
            address = builder.gep(builder.extract_value(arguments[0], j), [index])
            result = builder.insert_value(result, registers.load_at(builder, address), j)
        return result

    return block(points, index), code


@intrinsic
def store_block(typing, block, points, index):
    """Write the block's vectors to points[j][index]; with more vectors than points, neighbours to each point."""
    width = block.size // points.size

    def code(context, builder, signature, arguments):
        index = context.cast(builder, arguments[2], signature.args[2], types.intp)
        for j in range(points.size):
            address = builder.gep(builder.extract_value(arguments[1], j), [index])
            for u in range(width):
                at = builder.gep(address, [ir.Constant(registers.INT64, u * LANES)])
                registers.store_at(builder, builder.extract_value(arguments[0], j * width + u), at)
        return context.get_dummy_value()

    return types.void(block, points, index), code


@intrinsic
def store_in_steps(typing, block, array, first, step):
    """Write the block's vectors to array[first + j*step :][:LANES]."""

    def code(context, builder, signature, arguments):
        block_value, array_value, first, step = arguments
        first = context.cast(builder, first, signature.args[2], types.intp)
        step = context.cast(builder, step, signature.args[3], types.intp)
        address = registers.address(context, builder, signature.args[1], array_value, first)
        for j in range(block.size):
            registers.store_at(builder, builder.extract_value(block_value, j), address)
            address = builder.gep(address, [step])
        return context.get_dummy_value()

    return types.void(block, array, first, step), code


@intrinsic(prefer_literal=True)
def store_half(typing, block, half, points, index):
    """Write the vectors block[j,half] to points[j][index]."""

    def code(context, builder, signature, arguments):
        index = context.cast(builder, arguments[3], signature.args[3], types.intp)
        for j in range(points.size):
            address = builder.gep(builder.extract_value(arguments[2], j), [index])
            registers.store_at(builder, builder.extract_value(arguments[0], j * 2 + half.literal_value), address)
        return context.get_dummy_value()

    return types.void(block, half, points, index), code


@intrinsic(prefer_literal=True)
def add_outer(typing, block, array, first, second, points, index):
    """Return block[j,u] + vector u * points[j][index], u = 0, 1: two vectors times single numbers.

    The vectors are array[first:][:LANES] and array[second:][:LANES].
    """

    def code(context, builder, signature, arguments):
        result, array_value, first, second, pointers, index = arguments
        index = context.cast(builder, index, signature.args[5], types.intp)
        vectors = []
        for start, start_type in ((first, signature.args[2]), (second, signature.args[3])):
            start = context.cast(builder, start, start_type, types.intp)
            vectors.append(
                registers.load_at(builder, registers.address(context, builder, signature.args[1], array_value, start))
            )
        for j in range(points.size):
            number = builder.load(builder.gep(builder.extract_value(pointers, j), [index]))
            number = registers.splat(builder, number)
            for u in range(2):
                at = j * 2 + u
                total = fma(builder, vectors[u], number, builder.extract_value(result, at))
                registers.in_this_order(builder, total)
                result = builder.insert_value(result, total, at)
        return result

    return block(block, array, first, second, points, index), code


@intrinsic
def add_rows(typing, block, array, first, points, index):
    """Return block[j,u] + array[first + u*LANES :][:LANES] * points[j][index]: neighbours times single numbers."""
    width = block.size // points.size

    def code(context, builder, signature, arguments):
        result, array_value, first, pointers, index = arguments
        first = context.cast(builder, first, signature.args[2], types.intp)
        index = context.cast(builder, index, signature.args[4], types.intp)
        address = registers.address(context, builder, signature.args[1], array_value, first)
        vectors = [
            registers.load_at(builder, builder.gep(address, [ir.Constant(registers.INT64, u * LANES)]))
            for u in range(width)
        ]
        for j in range(points.size):
            number = registers.splat(builder, builder.load(builder.gep(builder.extract_value(pointers, j), [index])))
            for u in range(width):
                total = fma(builder, vectors[u], number, builder.extract_value(result, j * width + u))
                registers.in_this_order(builder, total)
                result = builder.insert_value(result, total, j * width + u)
        return result

    return block(block, array, first, points, index), code


@intrinsic
def add_squares(typing, block, array, left, right, step, points, index):
    """Return block[j,u] + vector u * points[j][index], u = 0 to 3: four vectors times single numbers.

    The vectors are at array[left], array[right], array[left + step] and array[right + step].
    """

    def code(context, builder, signature, arguments):
        result, array_value, *indices, pointers, index = arguments
        left, right, step, index = (
            context.cast(builder, value, signature.args[k], types.intp)
            for k, value in zip((2, 3, 4, 6), (*indices, index), strict=True)
        )
        firsts = [registers.address(context, builder, signature.args[1], array_value, start) for start in (left, right)]
        vectors = [registers.load_at(builder, first) for first in firsts]
        vectors += [registers.load_at(builder, builder.gep(first, [step])) for first in firsts]
        for j in range(points.size):
            number = registers.splat(builder, builder.load(builder.gep(builder.extract_value(pointers, j), [index])))
            for u in range(4):
                total = fma(builder, vectors[u], number, builder.extract_value(result, j * 4 + u))
                registers.in_this_order(builder, total)
                result = builder.insert_value(result, total, j * 4 + u)
        return result

    return block(block, array, left, right, step, points, index), code


@intrinsic(prefer_literal=True)
def load_rows(typing, points, index, width):
    """Return the block of the `width` neighbouring vectors at each points[j][index]."""
    block = registers.Block(width.literal_value * points.size)

    def code(context, builder, signature, arguments):
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        result = ir.Constant(block.llvm_type, ir.Undefined)
        for j in range(points.size):
            address = builder.gep(builder.extract_value(arguments[0], j), [index])
            for u in range(width.literal_value):
                at = builder.gep(address, [ir.Constant(registers.INT64, u * LANES)])
                result = builder.insert_value(result, registers.load_at(builder, at), j * width.literal_value + u)
        return result

    return block(points, index, width), code


def _load_ways(builder, pointers, index):
    """Load WAYS numbers at each of the pointers; one vector if they fill it, else the first LANES of them."""
    addresses = [builder.gep(pointer, [index]) for pointer in pointers]
    if LANES <= WAYS:
        return registers.load_at(builder, addresses[0])
    first, second = (
        builder.load(builder.bitcast(address, registers.WAYS_VECTOR_TYPE.as_pointer()), align=4)
        for address in addresses
    )
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(registers.INT32, LANES), list(range(LANES))))


@intrinsic
def add_dots(typing, block, x, x_index, w, w_index):
    """Return block[j,u] + x[j][x_index:][:WAYS] * w[u][w_index:][:WAYS], for all points j of x and u of w.

    A vector with fewer lanes has the first LANES ways; one with more lanes has the ways of two neighbouring j.
    """
    rows = max(1, LANES // WAYS)

    def code(context, builder, signature, arguments):
        result, x_value, x_at, w_value, w_at = arguments
        x_at = context.cast(builder, x_at, signature.args[2], types.intp)
        w_at = context.cast(builder, w_at, signature.args[4], types.intp)
        x_pointers, w_pointers = (
            [builder.extract_value(value, k) for k in range(points.size)]
            for points, value in ((x, x_value), (w, w_value))
        )
        vectors = [_load_ways(builder, [pointer] * rows, w_at) for pointer in w_pointers]
        for j in range(0, x.size, rows):
            vector = _load_ways(builder, x_pointers[j : j + rows], x_at)
            for u in range(w.size):
                at = j // rows * w.size + u
                total = fma(builder, vector, vectors[u], builder.extract_value(result, at))
                registers.in_this_order(builder, total)
                result = builder.insert_value(result, total, at)
        return result

    return block(block, x, x_index, w, w_index), code


@intrinsic(prefer_literal=True)
def add_outer_half(typing, block, half, array, first, points, index):
    """Return the block with only block[j,half] + array[first:][:LANES] * points[j][index] changed."""

    def code(context, builder, signature, arguments):
        result, _, array_value, first, pointers, index = arguments
        first = context.cast(builder, first, signature.args[3], types.intp)
        index = context.cast(builder, index, signature.args[5], types.intp)
        vector = registers.load_at(builder, registers.address(context, builder, signature.args[2], array_value, first))
        for j in range(points.size):
            number = builder.load(builder.gep(builder.extract_value(pointers, j), [index]))
            at = j * 2 + half.literal_value
            total = fma(builder, vector, registers.splat(builder, number), builder.extract_value(result, at))
            registers.in_this_order(builder, total)
            result = builder.insert_value(result, total, at)
        return result

    return block(block, half, array, first, points, index), code


@intrinsic
def add_scaled(typing, block, factor, points, index):
    """Return block[j] + factor * points[j][index : index+LANES]."""

    def code(context, builder, signature, arguments):
        result, factor, pointers, index = arguments
        index = context.cast(builder, index, signature.args[3], types.intp)
        for j in range(points.size):
            vector = registers.load_at(builder, builder.gep(builder.extract_value(pointers, j), [index]))
            total = fma(builder, factor, vector, builder.extract_value(result, j))
            registers.in_this_order(builder, total)
            result = builder.insert_value(result, total, j)
        return result

    return block(block, registers.VECTOR, points, index), code


@intrinsic
def scatter_add(typing, points, index, factor, block):
    """Add factor * block[j] to the vectors at points[j][index]."""

    def code(context, builder, signature, arguments):
        pointers, index, factor, block_value = arguments
        index = context.cast(builder, index, signature.args[1], types.intp)
        for j in range(points.size):
            address = builder.gep(builder.extract_value(pointers, j), [index])
            total = fma(builder, factor, builder.extract_value(block_value, j), registers.load_at(builder, address))
            registers.store_at(builder, total, address)
        return context.get_dummy_value()

    return types.void(points, index, registers.VECTOR, block), code


@intrinsic
def add_products(typing, block, vector, points, index):
    """Return block[j,u] + vector * points[j][index + u]: one vector times single numbers, or neighbours from each."""
    width = block.size // points.size

    def code(context, builder, signature, arguments):
        result, vector, pointers, index = arguments
        index = context.cast(builder, index, signature.args[3], types.intp)
        for j in range(points.size):
            address = builder.gep(builder.extract_value(pointers, j), [index])
            for u in range(width):
                number = builder.load(builder.gep(address, [ir.Constant(registers.INT64, u)]))
                at = j * width + u
                total = fma(builder, vector, registers.splat(builder, number), builder.extract_value(result, at))
                total = registers.in_this_order(builder, total)
                result = builder.insert_value(result, total, at)
        return result

    return block(block, registers.VECTOR, points, index), code


@intrinsic
def add_to_all(typing, block, vector):
    """Return block[j] + vector."""

    def code(context, builder, signature, arguments):
        result, vector = arguments
        for j in range(signature.args[0].size):
            result = builder.insert_value(result, builder.fadd(builder.extract_value(result, j), vector), j)
        return result

    return block(block, registers.VECTOR), code


@intrinsic(prefer_literal=True)
def vector_of(typing, block, j):
    """Return the vector block[j]."""

    def code(context, builder, signature, arguments):
        return builder.extract_value(arguments[0], j.literal_value)

    return registers.VECTOR(block, j), code
