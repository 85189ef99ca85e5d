"""Export of parameters and metrics to the formats of other programs."""
