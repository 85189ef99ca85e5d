"""Networks: layers, parameters, initial values, execution with kernels, and Adam."""
