"""The worker pool: processes, mailboxes, tiles."""
