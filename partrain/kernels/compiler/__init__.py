"""Numba: compile flags, kernel cache, parallel compilation."""
