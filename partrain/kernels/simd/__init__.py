"""LLVM vectors and register blocks that the fast kernels are built from."""
