"""A run in the formats of other programs. Nothing here computes: parameters and metrics are read and written anew."""
