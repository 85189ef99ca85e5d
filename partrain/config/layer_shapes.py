"""The output shape of each kind of layer, and which inputs it refuses.

Sizes that are not known are None: a configuration that has errors is checked as far as it goes. So is a shape of which
not even the number of sizes is known. An entry whose value is wrong lacks the attribute.

Shapes of one example: (C, H, W) channels, rows, columns; (D,) after flatten. F filters; R, S filter rows, columns; P, Q
output rows, columns; E dense outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from partrain.config.schema.layers import AvgPool, Conv, Dense, Flatten, GlobalAvgPool, MaxPool
from partrain.config.schema.normalisation_layers import GroupNorm
from partrain.config.schema.values import Section

Size = int | None
KnownShape = tuple[Size, ...] | None
Report = Callable[[str], None]
_UNKNOWN = (None, None)


def output_shape(entry: Section, shape: KnownShape, report: Report) -> KnownShape:
    """Return the shape that a layer gives for inputs of `shape`; not that of a residual layer.

    Parameters
    ----------
    report : receives each message about what is wrong. What then is not known of the output is None.
    """
    match entry:
        case Conv():
            return _of_conv(entry, shape, report)
        case MaxPool() | AvgPool():
            return _of_pool(entry, shape, report)
        case GlobalAvgPool():
            return (_image(shape, report)[0], 1, 1)
        case Flatten():
            return _of_flatten(shape, report)
        case Dense():
            return _of_dense(entry, shape, report)
        case GroupNorm():
            C, groups = (shape or _UNKNOWN)[0], _value(entry, "groups")
            if C and groups and C % groups:
                report(f"{groups} groups do not divide {C} channels; these numbers do: {_divisors(C)}")
    return shape


def is_known(shape: KnownShape) -> bool:
    """Return whether all sizes are known."""
    return shape is not None and None not in shape


def shape_words(shape: tuple[Size, ...]) -> str:
    """Return a shape in words; a size that is not known is `?`."""
    sizes = ["?" if size is None else str(size) for size in shape]
    return " x ".join(sizes) if len(sizes) > 1 else f"a vector of {sizes[0]} numbers"


def _of_conv(entry: Conv, shape: KnownShape, report: Report) -> KnownShape:
    C, H, W = _image(shape, report)
    F, groups = _value(entry, "filters"), _value(entry, "groups")
    if groups and ((C or 0) % groups or (F or 0) % groups):
        counts = [f"{C} input channel{'s' * (C != 1)}"] * bool(C) + [f"{F} filter{'s' * (F != 1)}"] * bool(F)
        fitting = _divisors(math.gcd(C or 0, F or 0))
        report(f"groups: {groups} does not divide its {' and '.join(counts)}; these do: {fitting}")
    kernel, dilation = _pair(entry, "kernel"), _pair(entry, "dilation")
    extents = tuple(
        None if size is None or step is None else (size - 1) * step + 1
        for size, step in zip(kernel, dilation, strict=True)
    )
    noun = "kernel" if dilation == (1, 1) else "dilated kernel"
    return (F, *_num_positions((H, W), extents, _pair(entry, "stride"), _pair(entry, "padding"), noun, report))


def _of_pool(entry: MaxPool | AvgPool, shape: KnownShape, report: Report) -> KnownShape:
    C, H, W = _image(shape, report)
    window, padding = _pair(entry, "window"), _pair(entry, "padding")
    if any(p is not None and w is not None and 2 * p > w for p, w in zip(padding, window, strict=True)):
        report(
            f"padding {padding[0]} x {padding[1]} is more than half the window {window[0]} x {window[1]}; "
            f"use at most {(window[0] or 0) // 2} x {(window[1] or 0) // 2}"
        )
        return (C, None, None)
    stride = window if getattr(entry, "stride", ...) is None else _pair(entry, "stride")
    return (C, *_num_positions((H, W), window, stride, padding, "window", report))


def _of_flatten(shape: KnownShape, report: Report) -> KnownShape:
    if shape is not None and len(shape) == 1:
        _image(shape, report)
        return shape
    sizes = _image(shape, report)
    return (None if None in sizes else math.prod(size or 0 for size in sizes),)


def _of_dense(entry: Dense, shape: KnownShape, report: Report) -> KnownShape:
    if shape is not None and len(shape) > 1 and any(size not in (1, None) for size in shape[1:]):
        sizes = ", ".join("?" if size is None else str(size) for size in shape)
        report(f"needs a vector, but its input has the shape ({sizes}); put `flatten` before it")
    return (_value(entry, "units"),)


def _num_positions(
    size: tuple[Size, ...],
    window: tuple[Size, ...],
    stride: tuple[Size, ...],
    padding: tuple[Size, ...],
    noun: str,
    report: Report,
) -> tuple[Size, Size]:
    """Return the numbers of positions of a window, in rows and columns."""
    numbers = [(n, w, s, p) for n, w, s, p in zip(size, window, stride, padding, strict=True)]
    known = [(n, w, s, p) for n, w, s, p in numbers if not (n is None or w is None or s is None or p is None)]
    if len(known) < 2:
        return _UNKNOWN
    padded = [n + 2 * p for n, _, _, p in known]
    if any(w > whole for whole, (_, w, _, _) in zip(padded, known, strict=True)):
        with_padding = f" with its padding ({padded[0]} x {padded[1]})" if any(padding) else ""
        report(f"the {noun} {window[0]} x {window[1]} is larger than its input {size[0]} x {size[1]}{with_padding}")
        return _UNKNOWN
    P, Q = ((whole - w) // s + 1 for whole, (_, w, s, _) in zip(padded, known, strict=True))
    return P, Q


def _image(shape: KnownShape, report: Report) -> tuple[Size, Size, Size]:
    if shape is None:
        return None, None, None
    if len(shape) != 3:
        count = "" if shape[0] is None else f" of {shape[0]} numbers"
        report(f"needs an image (channels, rows, columns), but its input is a vector{count}")
        return None, None, None
    return shape[0], shape[1], shape[2]


def _value(entry: Section, key: str) -> Size:
    value: Size = getattr(entry, key, None)
    return value


def _pair(entry: Section, key: str) -> tuple[Size, Size]:
    pair: Any = getattr(entry, key, _UNKNOWN)
    return pair[0], pair[1]


def _divisors(number: int) -> str:
    small = [k for k in range(1, math.isqrt(number) + 1) if number % k == 0]
    return ", ".join(map(str, sorted({*small, *(number // k for k in small)})))
