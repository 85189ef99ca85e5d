"""The page of `partrain compare --html`: a single file that works in any browser and loads nothing from the network."""
