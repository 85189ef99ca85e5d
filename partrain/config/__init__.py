"""The configuration: its schema, its identity, its reference, and reading it from YAML."""
