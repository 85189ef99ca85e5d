"""The page of `partrain compare --html`: one file for any browser, that asks nothing of the network."""
