"""Loops over plain arrays, compiled by Numba. `loops` is the definition; other files are its fast forms."""
