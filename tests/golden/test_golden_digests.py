"""The bits of small trainings: those of the file, on this processor and as on others.

The other processors are this one with vectors of another width, without fused multiply-adds, with the C library's
functions for processors without AVX2 and FMA, and with NumPy's functions for the processors that it was built for at
least. Each trains in a process of its own. With other functions of libraries its cache is empty: compiled kernels and
measured data may contain what the libraries computed.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from llvmlite.binding import get_host_cpu_features

from partrain.kernels.bits_version import BITS_VERSION
from partrain.kernels.compiler.cache import CACHE_VARIABLE
from tests.golden.digests import WHAT_TO_DO, read, train
from tests.golden.trainings import TRAININGS
from tests.program import ROOT
from tests.vector_widths import WIDTHS, width_variables

# Versions of the C library up to 2.32 have the names with _Usable. They all ignore names that they do not know.
WITHOUT_FMA = "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX2_Usable,-FMA_Usable"

# Prints which functions a process uses: in the C library, by their distance to one that exists once; in NumPy, by the
# instruction sets that it chooses from.
CHOSEN_FUNCTIONS = """
import ctypes, json
import numpy as np

library = ctypes.CDLL("libm.so.6")
places = {name: ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in ("frexp", "expf", "sin")}
in_c = [place - places["frexp"] for place in places.values()]
print(json.dumps({"C library": in_c, "NumPy": np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])}))
"""


def test_file_has_the_digests_of_all_trainings_for_the_current_version() -> None:
    version, digests = read()
    assert version == BITS_VERSION, "python -m tests.golden --write"
    assert list(digests) == list(TRAININGS)


def test_readme_says_what_each_version_means() -> None:
    _, _, table = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n| version of the bits |")
    rows = table.partition("\n\n")[0].splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == [str(n + 1) for n in range(BITS_VERSION)]


# Trainings whose kernels or numbers are made with elementary functions. Kernels of all trainings would take minutes.
WITH_FUNCTIONS = (
    "as mnist.yaml",
    "augmentation and dropout",
    "seeded privacy",
    "activations, layer normalisation, Muon",
    "mixed images, every change",
)


@pytest.mark.parametrize("name", TRAININGS)
def test_training_has_the_golden_digests(name: str, tmp_path: Path) -> None:
    assert train(TRAININGS[name], tmp_path / "run") == read()[1].get(name), WHAT_TO_DO


def train_as_elsewhere(variables: Mapping[str, str], names: Sequence[str] = ()) -> None:
    """Train in a process with these environment variables; check that the digests are those of the file."""
    environment = {name: value for name, value in os.environ.items() if name != CACHE_VARIABLE} | variables
    command = [sys.executable, "-m", "tests.golden", *names]
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def chosen_functions(variables: Mapping[str, str]) -> dict[str, list[object]]:
    """Return which functions of the C library and of NumPy a process with these environment variables uses."""
    command = [sys.executable, "-c", CHOSEN_FUNCTIONS]
    ended = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=60, check=True)
    chosen: dict[str, list[object]] = json.loads(ended.stdout)
    return chosen


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_bits_are_golden_with_vectors_of_any_width(width: int) -> None:
    names = [name for name, training in TRAININGS.items() if training.settings.get("kernels") != "loops"]
    # Processors with vectors of 8 are those with AVX2, whose registers are 16. The loops use no vectors.
    train_as_elsewhere(width_variables(width, num_registers=16 if width == 8 else 32), names)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="every other processor has fused multiply-adds")
def test_bits_are_golden_without_fused_multiply_adds(tmp_path: Path) -> None:
    variables = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "XDG_CACHE_HOME": str(tmp_path)}
    train_as_elsewhere(variables, WITH_FUNCTIONS)


@pytest.mark.slow
def test_bits_are_golden_with_other_functions_of_the_c_library_and_of_numpy(tmp_path: Path) -> None:
    variables = {"XDG_CACHE_HOME": str(tmp_path)}
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    if platform.libc_ver()[0] == "glibc" and get_host_cpu_features().get("fma"):
        variables["GLIBC_TUNABLES"] = WITHOUT_FMA
    if found:
        variables["NPY_DISABLE_CPU_FEATURES"] = " ".join(found)
    if len(variables) == 1:
        pytest.skip("neither library has functions for other processors than this one")
    usual, chosen = chosen_functions({}), chosen_functions(variables)
    assert ("GLIBC_TUNABLES" in variables) == (chosen["C library"] != usual["C library"])
    assert not found or chosen["NumPy"] == []
    of_loops = [name for name, training in TRAININGS.items() if training.settings.get("kernels") == "loops"]
    train_as_elsewhere(variables, (*WITH_FUNCTIONS, *of_loops))
