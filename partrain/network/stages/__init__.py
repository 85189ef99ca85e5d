"""The stages of the fast execution: layers that are computed together, with activations that have channels last."""
