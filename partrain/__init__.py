"""Trains convolutional networks on CPUs, data-parallel over processes, to the same bits every time."""

__version__ = "0.1.0"
