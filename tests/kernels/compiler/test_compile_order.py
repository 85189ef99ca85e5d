from __future__ import annotations

from partrain.kernels import loops, planned_update, update
from partrain.kernels.compiler.compile_order import group_kernels
from partrain.kernels.compiler.flags import inlined, kernel


@inlined
def long(values):
    for k in range(values.size):
        if values[k] > 1:
            values[k] = values[k] * values[k] + values[k] / 3 - 1


@kernel("void({float}[::1])")
def calls_it(values):
    long(values)


@kernel("void({float}[::1])")
def calls_it_and_more(values):
    long(values)
    values[0] += 1


@kernel("void({float}[::1])")
def short(values):
    values[0] = 0


def test_kernels_that_share_most_of_their_code_are_compiled_by_one_process_and_long_ones_first():
    assert group_kernels([short, calls_it, calls_it_and_more]) == [[calls_it_and_more, calls_it], [short]]


def test_both_kernels_of_the_update_are_in_one_group_and_nothing_is_lost():
    kernels = [loops.sum_slots, planned_update.update_pieces_ahead, update.update_parameters]
    groups = group_kernels(kernels)
    assert sorted(repr(kernel) for group in groups for kernel in group) == sorted(map(repr, kernels))
    assert {planned_update.update_pieces_ahead, update.update_parameters} <= set(groups[0])
