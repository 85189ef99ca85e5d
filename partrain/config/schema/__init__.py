"""The schema of the configuration: every key with its type, default, bounds and meaning."""
