"""The layers of the plain execution: each calls the loops that define its operation."""
