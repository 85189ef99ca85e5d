"""LLVM vectors and blocks of registers for the fast kernels."""
