"""How wide the vectors of a layer's kernels are."""

from __future__ import annotations

from partrain.kernels.lanes import NARROW
from partrain.kernels.simd.vectors import LANES
from partrain.network.layers import Conv2d
from partrain.network.stages.tap_lists import is_depthwise


def lanes_of(conv: Conv2d) -> int:
    """Return how many lanes the vectors of a convolution have, from its shapes; this changes no bit.

    Vectors run over filters or channels (of a group). With at most 8 of both, vectors of 16 would be half empty, and
    each would be stored over a part of the one before, which makes loads wait. On an Emerald Rapids, such layers take
    0.5 to 1.0 of the time with vectors of 8; layers with more filters take up to twice the time.
    """
    F, C = conv.output_shape[0], conv.input_shape[0]
    largest = F if is_depthwise(conv) else max(F, C) // conv.groups
    return NARROW if largest <= NARROW else LANES
