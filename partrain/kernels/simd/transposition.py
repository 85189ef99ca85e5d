"""Numbers in another order: the transposition of a matrix, LANES x LANES numbers at a time, in registers."""

from __future__ import annotations

from partrain.kernels.compiler.deferred import ir, types
from partrain.kernels.compiler.flags import inlined, intrinsic

from .blocks import load_block, points_in_steps, store_block
from .vectors import LANES, element, registers, store_number


@intrinsic
def transposed(typing, block):
    """Return the block of LANES vectors whose vector j has the lanes j of `block`."""

    def code(context, builder, signature, arguments):
        vectors = [builder.extract_value(arguments[0], j) for j in range(LANES)]
        # Swap the upper right and the lower left quarter of squares of 2, 4, … lanes.
        # Source: Eklundh, "A Fast Computer Method for Matrix Transposing", 1972.
        width = 1
        while width < LANES:
            lanes = range(LANES)
            upper = [lane if not lane & width else LANES + lane - width for lane in lanes]
            lower = [lane + width if not lane & width else LANES + lane for lane in lanes]
            masks = [ir.Constant(ir.VectorType(registers.INT32, LANES), mask) for mask in (upper, lower)]
            for j in range(LANES):
                if not j & width:
                    pair = vectors[j], vectors[j + width]
                    vectors[j], vectors[j + width] = (builder.shuffle_vector(*pair, mask) for mask in masks)
            width *= 2
        result = arguments[0]
        for j in range(LANES):
            result = builder.insert_value(result, vectors[j], j)
        return result

    return block(block), code


@intrinsic(prefer_literal=True)
def every_second(typing, first, second, begin):
    """Return every second number of two vectors: number 0, 2, … with `begin` 0, number 1, 3, … with 1."""

    def code(context, builder, signature, arguments):
        lanes = list(range(begin.literal_value, 2 * LANES, 2))
        return builder.shuffle_vector(
            arguments[0], arguments[1], ir.Constant(ir.VectorType(registers.INT32, LANES), lanes)
        )

    return first(first, second, begin), code


@intrinsic
def _store_first(typing, block, count, points):
    """Write the first `count` vectors of the block to their points."""

    def code(context, builder, signature, arguments):
        block, count, addresses = arguments
        count = context.cast(builder, count, signature.args[1], types.intp)
        for j in range(points.size):
            with builder.if_then(builder.icmp_signed("<", ir.Constant(registers.INT64, j), count)):
                registers.store_at(builder, builder.extract_value(block, j), builder.extract_value(addresses, j))
        return context.get_dummy_value()

    return types.void(block, count, points), code


@inlined
def transpose(source, start, rows, columns, target, target_start, target_step):
    """Copy the matrix source[start:][: rows·columns]: its column c to target[target_start + c·target_step :]."""
    if rows >= LANES and columns >= LANES:
        for row in range(0, rows, LANES):
            i = min(row, rows - LANES)
            for column in range(0, columns, LANES):
                j = min(column, columns - LANES)
                square = load_block(points_in_steps(source, start + i * columns + j, columns, LANES), 0)
                places = points_in_steps(target, target_start + j * target_step + i, target_step, LANES)
                store_block(transposed(square), places, 0)
    else:
        done = 0
        whole = (rows * columns - LANES) // columns + 1  # rows from whose first number on LANES numbers can be read
        if columns < LANES <= whole:
            done = whole
            for row in range(0, whole, LANES):
                i = min(row, whole - LANES)
                narrow = load_block(points_in_steps(source, start + i * columns, columns, LANES), 0)
                _store_first(transposed(narrow), columns, points_in_steps(target, target_start + i, target_step, LANES))
        for i in range(done, rows):
            for j in range(columns):
                store_number(target, target_start + j * target_step + i, element(source, start + i * columns + j))
