"""Reduction of the gradients, and the Adam update."""
