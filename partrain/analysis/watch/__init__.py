"""What `partrain watch` shows: runs and sweeps that are followed, and pictures of them in text."""
