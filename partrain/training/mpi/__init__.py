"""Training with several MPI ranks."""
