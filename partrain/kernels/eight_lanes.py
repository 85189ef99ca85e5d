"""The kernels once more, for vectors of 8 numbers on a processor whose vectors have more: see `kernels.lanes`.

Python finds `partrain.kernels.eight_lanes.convolution` in the same file as `partrain.kernels.convolution`, and makes
another module of it. Kernels' files import what depends on the lanes by relative imports, so each of these modules
finds the others. This is a file, not a directory: what walks through the package does not come back to it.
"""

__path__ = [__file__.rpartition("/")[0]]
