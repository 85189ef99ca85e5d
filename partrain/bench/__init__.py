"""What this machine does with a network: kernels, phases of a step, more workers; and what a model expects."""
