"""What a run leaves on disk. Sees plain arrays and dictionaries, never a network."""
