"""Data sets: reading, checking, downloading and drawing them, and the order in which they are trained on."""
