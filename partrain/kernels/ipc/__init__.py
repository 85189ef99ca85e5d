"""Atomic operations and mailboxes in shared memory."""
