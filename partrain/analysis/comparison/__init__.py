"""Comparison of logged runs: configurations, results, and whether differences are statistically significant."""
