"""Reduction of gradients and the Adam update, in pieces."""
