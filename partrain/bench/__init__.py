"""Benchmarks of this machine: kernels, phases of a step, scaling with workers, and a model of more cores or hosts."""
