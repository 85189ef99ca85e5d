"""Pictures of a run, drawn with matplotlib (the extra `plots`). Only run_plots may be imported without it."""
