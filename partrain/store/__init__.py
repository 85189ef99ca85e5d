"""The directory of a run on disk: checkpoints, metrics, log, lock. Works on plain arrays and dictionaries."""
