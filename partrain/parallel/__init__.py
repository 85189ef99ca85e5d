"""Worker processes, what they share, and the sums over what they computed."""
