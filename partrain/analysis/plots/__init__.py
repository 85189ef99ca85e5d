"""Plots of a run, drawn with matplotlib (the extra `plots`). Without it only the modules that write files import."""
