"""Numba's arrays of numbers at an address, in LLVM's code. Only compiling imports this file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.np.arrayobj import populate_array

_INT64 = ir.IntType(64)


def plain_array(context: Any, builder: Any, array_type: Any, address: Any, sizes: Sequence[Any]) -> Any:
    """Return Numba's array of the numbers from an address on, C-contiguous."""
    data_type = context.get_data_type(array_type.dtype)
    itemsize = ir.Constant(_INT64, context.get_abi_sizeof(data_type))
    steps = [itemsize]
    for size in reversed(sizes[1:]):
        steps.insert(0, builder.mul(steps[0], size))
    array = context.make_array(array_type)(context, builder)
    data = builder.inttoptr(address, data_type.as_pointer())
    populate_array(array, data=data, shape=sizes, strides=steps, itemsize=itemsize, meminfo=None)
    return array._getvalue()
