"""`python -m tests.golden`: see the docstring of the package."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import tests.golden
from partrain.errors import did_you_mean
from tests.golden.digests import FILE, WHAT_TO_DO, read, train, write
from tests.golden.trainings import TRAININGS


def main() -> int:
    """Train, print the digests, and compare or write them; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.golden",
        description=tests.golden.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="the trainings (default: all)")
    parser.add_argument("--write", action="store_true", help="write the digests into the file")
    options = parser.parse_args()
    for name in options.names:
        if name not in TRAININGS:
            parser.error(f"there is no training {name!r}{did_you_mean(name, TRAININGS)}")
    known = read()[1] if FILE.exists() else {}
    digests, num_different = {}, 0
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(options.names or TRAININGS):
            digests[name] = train(TRAININGS[name], Path(folder) / str(number))
            changed = [kind for kind, digest in digests[name].items() if known.get(name, {}).get(kind) != digest]
            num_different += bool(changed)
            print(*digests[name].values(), name, *([f"  <- other {' and '.join(changed)}"] if changed else []))
    if options.write:
        write({name: digests.get(name) or known[name] for name in TRAININGS if name in digests or name in known})
        print(f"{FILE}: written; {num_different} of {len(digests)} trainings have new digests")
        return 0
    if num_different:
        print(WHAT_TO_DO, file=sys.stderr)
    return 1 if num_different else 0


if __name__ == "__main__":
    sys.exit(main())
