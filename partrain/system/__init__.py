"""Operating system and machine: memory, processors, signals, durable files, messages."""
