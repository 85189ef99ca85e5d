"""Says which shortcut would fit the body of a residual layer."""

from __future__ import annotations

from partrain.config.layer_shapes import Size


def fitting_shortcut(input_shape: tuple[Size, ...], output_shape: tuple[Size, ...]) -> str:
    """Return "; … fits" with a shortcut from one shape to the other, or "" if there is no simple one."""
    if None in output_shape:
        return ""
    if len(output_shape) == 1:
        dense = f"dense: {{units: {output_shape[0]}}}"
        return f"; `shortcut: [{dense if len(input_shape) == 1 else f'flatten, {dense}'}]` fits"
    if len(input_shape) == 1:
        return ""
    rows, columns = (_kernel_and_stride(input_shape[k], output_shape[k]) for k in (1, 2))
    if rows is None or columns is None:
        return ""
    kernel, stride = (_pair(rows[k], columns[k]) for k in range(2))
    fields = f"filters: {output_shape[0]}, kernel: {kernel}" + (f", stride: {stride}" if stride != "1" else "")
    return f"; `shortcut: [conv: {{{fields}}}]` fits"


def _kernel_and_stride(size: Size, num_outputs: Size) -> tuple[int, int] | None:
    """Return the smallest kernel, and its stride, with which a size gives `num_outputs`; None if it is smaller."""
    if size is None or num_outputs is None or num_outputs > size:
        return None
    stride = (size - 1) // num_outputs + 1
    if (size - 1) // stride + 1 == num_outputs:
        return 1, stride
    return size - num_outputs + 1, 1


def _pair(rows: int, columns: int) -> str:
    return str(rows) if rows == columns else f"[{rows}, {columns}]"
