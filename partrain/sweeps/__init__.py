"""Sweeps: many trainings side by side, over settings, seeds or folds, and what they show."""
