"""The commands, one per module. Each module defines COMMAND: its arguments and the function that runs it."""
