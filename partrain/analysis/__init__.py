"""Analysis of trained runs: evaluation, prediction, comparison, plots, reports and export."""
