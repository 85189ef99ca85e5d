"""The structure of the code base: which package may import which, read from the sources without importing them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

import partrain

PACKAGE = Path(partrain.__file__).parent
ROOT = PACKAGE.parent

# From top to bottom: a package imports from itself and from the packages below it.
LAYERS = (
    "sklearn",
    "interface",
    "bench",
    "sweeps",
    "training",
    "analysis",
    "parallel",
    "data",
    "network",
    "kernels",
    "store",
    "config",
    "system",
    "errors",
)
WORKER_CODE = ("partrain.parallel.workers.worker", "partrain.parallel.workers.preload")
MEANINGLESS_NAMES = {"util", "common", "helper", "manager", "misc"}
NUMBA_FLAGS = {"njit", "jit", "vectorize", "guvectorize", "cfunc", "fastmath", "nogil", "error_model", "boundscheck"}

# What NumPy and SciPy compute with BLAS or LAPACK, whose sums depend on shapes and threads. `np.convolve` and `np.cov`
# call `np.dot`.
BLAS_NAMES = {
    *("convolve", "corrcoef", "correlate", "cov", "dot", "einsum", "inner", "linalg", "lstsq", "matmul", "matvec"),
    *("multi_dot", "polyfit", "tensordot", "vdot", "vecdot", "vecmat"),
}

# What C libraries, and NumPy's code for different processors, round differently. `kernels.elementary` has our own.
INEXACT_NAMES = {
    *("acos", "acosh", "angle", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "asin"),
    *("asinh", "atan", "atan2", "atanh", "cbrt", "cos", "cosh", "dist", "erf", "erfc", "exp", "exp2", "expm1", "fft"),
    *("float_power", "gamma", "geomspace", "hypot", "i0", "lgamma", "log", "log10", "log1p", "log2", "logaddexp"),
    *("logaddexp2", "logspace", "pow", "power", "sin", "sinc", "sinh", "tan", "tanh"),
}
# Whose formula or order of additions NumPy may change; `network.exact_mean` has a mean of our own. Arrays have some of
# them as methods.
AVERAGES = {"average", "mean", "median", "percentile", "quantile", "std", "var"}
AVERAGES |= {f"nan{name}" for name in AVERAGES}
AVERAGING_METHODS = {"mean", "std", "var"}
# Its stable part: raw words. The generators' distributions change between releases, and use such functions.
STABLE_RANDOM_NAMES = {"Philox"}
# The files, and a package, that may use all of these: nothing is trained, evaluated or drawn with what they compute.
NOT_TRAINED_WITH = {
    "partrain.analysis.comparison.significance": "says whether runs differ by more than chance",
    "partrain.analysis.plots.accuracy_axis": "draws an axis",
    "partrain.analysis.plots.image_sheets": "draws pictures",
    "partrain.analysis.prediction_input": "decides whether to warn of an image unlike the training images",
    "partrain.bench": "measures and predicts times",
    "partrain.training.privacy.accounting": "computes bounds of epsilon; config.yaml records the noise multiplier",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


@cache
def imported_names(module: str) -> frozenset[str]:
    """Return the full name of everything that is imported anywhere in the file, also inside functions."""
    return frozenset(_imported_names(module))


def _imported_names(module: str) -> Iterator[str]:
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                is_package = SOURCES[module].name == "__init__.py"
                parents = module.split(".")[: None if is_package and node.level == 1 else is_package - node.level]
                origin = ".".join((*parents, *([node.module] if node.module else [])))
            yield from (f"{origin}.{alias.name}" for alias in node.names)


@cache
def imports(module: str) -> frozenset[str]:
    """Return the files of partrain that the file imports: of `a.b.c`, the longest part that is a file."""
    found = set()
    for name in imported_names(module):
        parts = name.split(".")
        if parts[0] == "partrain":
            found.add(next(part for k in range(len(parts), 0, -1) if (part := ".".join(parts[:k])) in SOURCES))
    return frozenset(found)


def layer(module: str) -> int:
    """Return the position of a module's package in LAYERS; `__main__` is above all of them."""
    name = module.split(".")[1]
    return -1 if name == "__main__" else LAYERS.index(name)


def modules_behind(modules: Iterable[str]) -> set[str]:
    """Return what importing the modules imports within partrain, and the packages that contain each."""
    reached: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in reached and module != "partrain":  # the root imports the Python API when that is first used
            reached.add(module)
            waiting.extend(imports(module))
            waiting.append(module.rpartition(".")[0])
    return reached


def test_every_file_and_its_imports_are_read():
    assert len(SOURCES) > 100
    assert {"partrain.config.reader", "partrain.training.training_run"} <= modules_behind(["partrain.__main__"])
    assert "partrain.config.schema.layers" in imports("partrain.network.layer_building")


def test_packages_at_the_top_are_those_of_the_list():
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert packages | {"errors", "sklearn"} == set(LAYERS)
    assert files == {"__init__.py", "__main__.py", "errors.py", "sklearn.py", "py.typed"}


def test_readme_lists_the_packages_in_the_same_order():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, developing = readme.partition("\n## Developing\n")
    rows = [line.split("`")[1] for line in developing.splitlines() if line.startswith("| `")]
    assert [row.removesuffix("/").removesuffix(".py") for row in rows] == list(LAYERS)


def test_packages_import_only_from_packages_below_them():
    upward = [
        f"{module} imports {other}"
        for module in SOURCES
        if module != "partrain"
        for other in imports(module)
        if other != "partrain" and layer(other) < layer(module)
    ]
    assert not upward


def test_no_file_imports_itself_through_others():
    circular = [
        module
        for module, path in SOURCES.items()
        if path.name != "__init__.py" and module in modules_behind(imports(module))
    ]
    assert not circular


def test_package_files_import_nothing():
    """Importing one file of a package must not bring in the others."""
    packages = [module for module, path in SOURCES.items() if path.name == "__init__.py" and module != "partrain"]
    assert not [module for module in packages if imported_names(module)]


def test_worker_code_does_not_reach_the_coordinator_or_the_store():
    reached = modules_behind(WORKER_CODE)
    assert reached >= {"partrain.network.execution", "partrain.kernels.loops"}
    assert not [module for module in reached if layer(module) < LAYERS.index("parallel") or "store" in module]


def test_only_kernels_import_numba():
    found = [
        f"{module} imports {name}"
        for module in SOURCES
        if not module.startswith("partrain.kernels.")
        for name in imported_names(module)
        if name.split(".")[0] in ("numba", "llvmlite")
    ]
    assert not found


def test_only_one_file_imports_mpi4py():
    """The import of mpi4py starts MPI."""
    found = [module for module in SOURCES if "mpi4py" in {name.split(".")[0] for name in imported_names(module)}]
    assert found == ["partrain.parallel.mpi.communicators"]


def test_only_one_file_sets_numba_flags():
    found = set()
    for module in SOURCES:
        for node in ast.walk(tree(module)):
            match node:
                case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name) | ast.keyword(arg=name):
                    if name in NUMBA_FLAGS:
                        found.add(module)
    assert found == {"partrain.kernels.compiler.flags"}


def test_no_code_multiplies_matrices_through_blas():
    """All sums are loops of our own: the same bits for any shape, number of threads, and version of BLAS."""
    found = []
    for module in SOURCES:
        for node in ast.walk(tree(module)):
            match node:
                case ast.BinOp(op=ast.MatMult()) | ast.AugAssign(op=ast.MatMult()):
                    found.append(f"{module}:{node.lineno} @")
                case ast.Attribute(attr=name) | ast.alias(name=name) if BLAS_NAMES & set(name.split(".")):
                    found.append(f"{module}:{node.lineno} {name}")
    assert not found


def inexact_operations(module: str) -> Iterator[str]:
    """Yield each operation of a file whose result is not defined by IEEE 754, and those of SciPy."""
    for node in ast.walk(tree(module)):
        match node:
            case ast.Attribute(value=ast.Name(id="np" | "math"), attr=name) if name in INEXACT_NAMES:
                yield f"{module}:{node.lineno} {name}"
            case ast.Attribute(value=ast.Name(id="np"), attr=name) if name in AVERAGES:
                yield f"{module}:{node.lineno} {name}"
            case ast.Call(func=ast.Attribute(attr=name)) if name in AVERAGING_METHODS:
                yield f"{module}:{node.lineno} {name}()"
            case ast.Attribute(value=ast.Attribute(value=ast.Name(id="np"), attr="random"), attr=name):
                if name not in STABLE_RANDOM_NAMES:
                    yield f"{module}:{node.lineno} random.{name}"
            case ast.BinOp(left=ast.Constant(), op=ast.Pow(), right=exponent) if is_number(exponent):
                pass
            case ast.BinOp(op=ast.Pow()) | ast.AugAssign(op=ast.Pow()):
                yield f"{module}:{node.lineno} **"
            case ast.Call(func=ast.Name(id="pow")):
                yield f"{module}:{node.lineno} pow"
    for name in imported_names(module):
        package, _, rest = name.partition(".")
        if package == "scipy" or (package in ("math", "cmath", "numpy") and INEXACT_NAMES & set(rest.split("."))):
            yield f"{module} imports {name}"


def is_number(node: ast.expr) -> bool:
    return isinstance(node.operand if isinstance(node, ast.UnaryOp) else node, ast.Constant)


def test_what_is_trained_with_is_computed_from_exactly_rounded_operations():
    """Then it has the same bits on every processor; whole powers are products, or `elementary.power`."""
    may = set(NOT_TRAINED_WITH)
    found = {module: list(inexact_operations(module)) for module in SOURCES}
    users = {module for module, operations in found.items() if operations}
    assert not [found[module] for module in users if module not in may and module.rpartition(".")[0] not in may]
    assert may <= users | {module.rpartition(".")[0] for module in users}, "the list has an entry that is not needed"


def words_of(path: Path) -> set[str]:
    return {word.removesuffix("s") for part in path.with_suffix("").parts for word in part.split("_")}


def test_names_of_files_and_folders_say_what_is_in_them():
    folders = (PACKAGE, Path(__file__).parent)
    files = [(folder, path) for folder in folders for path in folder.rglob("*.py")]
    assert not [path for folder, path in files if MEANINGLESS_NAMES & words_of(path.relative_to(folder))]


@pytest.mark.parametrize(
    "module", ["partrain.interface.command_line", "partrain.config.schema.config", "partrain.network.network"]
)
def test_modules_that_compute_nothing_do_not_import_numba(module):
    code = f"import {module}, sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert "partrain" in ended.stdout.split()
    assert not {"numba", "llvmlite"} & set(ended.stdout.split())
