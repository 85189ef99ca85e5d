"""A network as shapes, parameters and a chain of layers over the kernels."""
