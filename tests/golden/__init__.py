"""Digests of small trainings, which must be the same on every processor and in every version with the same bits.

`digests.json` holds, for each training of `tests.golden.trainings`, the digest of its parameters and the one of its
metrics, and the version of the bits that they belong to. This command trains all of them and prints the digests:

    python -m tests.golden

It marks those that differ from the file, and then exits with 1. `python -m tests.golden NAME…` trains some of them, and
`python -m tests.golden --write` writes the file anew. To change a digest is to change the bits of all users' runs: it
needs a new BITS_VERSION in `partrain/kernels/bits_version.py`, with its line in README's table of versions, and old
runs can then no longer be resumed. A digest that changes without such a decision is a bug.
"""
