"""Communication between MPI ranks."""
