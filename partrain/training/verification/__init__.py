"""Verification of a run: computes its steps again, and compares them with what the run has stored."""
