"""Patch vectors: how the numbers of a convolution's patch, and of its filters, fill vectors and blocks of vectors.

A patch is R runs of S·C consecutive numbers. Each run is cut into parts of PART numbers; the last one may be shorter.
Parts fill blocks, in order. The input gradient is summed block by block, so the order of its sums depends on where
blocks end: that is between parts, and a function of R and S·C alone, with vectors of any length.

A block has WIDE vectors, or SLIM if they suffice. The lanes beyond the end of a run, and the vectors beyond the last
part of a block, belong to no number of the patch; the filters are 0 there.

Shapes: C channels; F filters; R, S filter rows, columns; V numbers of a filter in patch vectors.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import inlined, kernel

from .simd.transposition import transpose
from .simd.vectors import LANES, element, load, store, store_number

PART = 16
# The largest sum of the lengths of a block's parts, each rounded up to a multiple of EIGHT.
BLOCK = 80
EIGHT = 8
# The most vectors that a block needs: all stay in registers at once. 10 of them and two for the factors fit the 16
# registers of AVX2.
WIDE = max(BLOCK // LANES, BLOCK // EIGHT)
SLIM = 12 if LANES < EIGHT else 6


def lay_out_patch(R, run):
    """Return the row and the first column of each vector, -1 for those without numbers, and where each block ends."""
    most = R * ((run + PART - 1) // PART)
    rows, columns, ends = np.full(most * WIDE, -1), np.full(most * WIDE, -1), np.empty(most, np.int64)
    block = used = start = vector = 0
    for r in range(R):
        for first in range(0, run, PART):
            last = min(run, first + PART)
            room = (last - first + EIGHT - 1) // EIGHT * EIGHT
            if used + room > BLOCK:
                start = vector = ends[block] = start + (SLIM if vector - start <= SLIM else WIDE)
                block, used = block + 1, 0
            used += room
            for column in range(first, last, LANES):
                rows[vector], columns[vector] = r, column
                vector += 1
    ends[block] = start + (SLIM if vector - start <= SLIM else WIDE)
    return rows[: ends[block]], columns[: ends[block]], ends[: block + 1]


lay_out = inlined(lay_out_patch)


@inlined
def patch_vectors(layout, row_step, spare, spare_step):
    """Return where each vector is, from the patch's first number on.

    Those without numbers are at `spare`, and each next one in the block `spare_step` further.
    """
    rows, columns, _ = layout
    offsets = np.empty(rows.size, np.int64)
    unused = 0
    for v in range(rows.size):
        unused = unused + 1 if rows[v] < 0 else 0
        offsets[v] = spare + (unused - 1) * spare_step if rows[v] < 0 else rows[v] * row_step + columns[v]
    return offsets


@inlined
def lanes_of_patch(layout, R, run):
    """Return where each number (r, s·C + c) of a patch is among the numbers of its vectors."""
    rows, columns, _ = layout
    lanes = np.empty(R * run, np.int64)
    for v in range(rows.size):
        for lane in range(min(LANES, run - columns[v]) if rows[v] >= 0 else 0):
            lanes[rows[v] * run + columns[v] + lane] = v * LANES + lane
    return lanes


def patch_vectors_shape(filter_shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the shape of filters (F, C, R, S) after `pack_patch_vectors`."""
    F, C, R, S = filter_shape
    return F, len(lay_out_patch(R, S * C)[0]) * LANES


@kernel("void(float32[:,:,:,::1], float32[:,::1])")
def pack_patch_vectors(w_FCRS, w_FV):
    """Copy the filters into patch vectors; the other numbers of `w_FV` keep their value, zero."""
    F, C, R, S = w_FCRS.shape
    V, run = w_FV.shape[1], S * C
    rows, columns, _ = lay_out(R, run)
    channels_last = np.empty(R * run, np.float32)
    for f in range(F):
        transpose(w_FCRS, f * R * run, C, R * S, channels_last, 0, C)
        for v in range(rows.size):
            place, start = f * V + v * LANES, rows[v] * run + columns[v]
            if rows[v] >= 0 and columns[v] + LANES <= run:
                store(w_FV, place, load(channels_last, start))
            elif rows[v] >= 0:
                for lane in range(run - columns[v]):
                    store_number(w_FV, place + lane, element(channels_last, start + lane))
