"""The floors of the house: which file may import which, read from the sources without importing them."""

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

# A file imports from lower floors, or from its own room: on floors 1 and 2 that is its folder.
# A new file outside the folders gets its floor here.
FLOORS = (
    {
        "partrain",
        "partrain.adam",
        "partrain.cache_folders",
        "partrain.config",
        "partrain.config_file",
        "partrain.errors",
        "partrain.interruption",
        "partrain.kill_switch",
        "partrain.kernels",
        "partrain.normalisation",
        "partrain.process_apart",
        "partrain.privacy_accounting",
        "partrain.privacy_text",
        "partrain.randomness",
        "partrain.significance",
        "partrain.stopwatch",
        "partrain.terminal_text",
    },
    {"partrain.data", "partrain.network"},
    {"partrain.parallel", "partrain.store"},
    {
        "partrain.article_import",
        "partrain.bench",
        "partrain.classification_report",
        "partrain.comparison",
        "partrain.comparison_text",
        "partrain.coordinator",
        "partrain.data_files",
        "partrain.data_inspection",
        "partrain.data_packing",
        "partrain.data_sources",
        "partrain.early_stopping",
        "partrain.evaluation",
        "partrain.example_ranking",
        "partrain.export",
        "partrain.gradient_statistics",
        "partrain.initial_parameters",
        "partrain.listing",
        "partrain.logged_run",
        "partrain.messages",
        "partrain.mpi_training",
        "partrain.plots",
        "partrain.prediction",
        "partrain.preparation",
        "partrain.privacy_settings",
        "partrain.private_training",
        "partrain.provenance",
        "partrain.rank_agreement",
        "partrain.rank_job",
        "partrain.rank_plan",
        "partrain.report",
        "partrain.resumption",
        "partrain.run_evaluation",
        "partrain.run_record",
        "partrain.run_summary",
        "partrain.session",
        "partrain.trained_run",
        "partrain.training_resources",
        "partrain.training_run",
        "partrain.training_steps",
    },
    {"partrain.__main__", "partrain.arguments", "partrain.cli", "partrain.from_python"},
)
FLOORS_OF_ROOMS = (1, 2)
WORKER_CODE = ("partrain.parallel.worker", "partrain.parallel.preload")
NAMES_THAT_SAY_NOTHING = {"util", "common", "helper", "manager", "misc"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
PACKAGES = [module for module, path in SOURCES.items() if path.name == "__init__.py"]
ALL_MODULES = pytest.mark.parametrize("module", SOURCES)


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


def imported_names(module: str) -> Iterator[str]:
    """Yield the full name of everything that is imported anywhere in the file, also inside functions."""
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


def place(module: str) -> tuple[int, str]:
    """Return the file's floor, and its room there: the folder on floors 1 and 2, elsewhere the whole floor."""
    for floor, members in enumerate(FLOORS):
        for member in members - {"partrain"}:
            if module == member or module.startswith(member + "."):
                return floor, member if floor in FLOORS_OF_ROOMS else ""
    if module == "partrain":
        return 0, ""
    raise AssertionError(f"{module} has no floor; give it one in FLOORS")


def everything_behind(modules: Iterable[str]) -> set[str]:
    """Return what importing the modules imports within partrain, and the packages around each."""
    reached: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting.extend(imports(module))
            if "." in module:
                waiting.append(module.rpartition(".")[0])
    return reached


def test_the_sources_are_seen():
    assert len(SOURCES) > 30
    assert imports("partrain.cli") >= {"partrain.config_file", "partrain.training_run"}  # one of them in a function
    assert "partrain.config" in imports("partrain.network.layers")  # from a package
    assert "partrain.config" in everything_behind(("partrain.__main__",))


@ALL_MODULES
def test_a_file_imports_from_lower_floors_or_its_own_room(module):
    floor, room = place(module)
    for other in imports(module):
        other_floor, other_room = place(other)
        assert other_floor < floor or (other_floor, other_room) == (floor, room), f"{module} imports {other}"


@pytest.mark.parametrize("module", [module for module in SOURCES if module not in PACKAGES])
def test_no_file_imports_itself_by_a_detour(module):
    assert module not in everything_behind(imports(module))


@pytest.mark.parametrize("module", PACKAGES)
def test_packages_import_nothing(module):
    """Then importing one file of a room does not bring in the others."""
    assert not imports(module)


@pytest.mark.parametrize("module", [module for module in SOURCES if module.startswith("partrain.store")])
def test_the_store_sees_plain_arrays(module):
    rooms = ("partrain.network", "partrain.config", "partrain.parallel", "partrain.kernels", "partrain.data")
    for other in imports(module):
        assert not other.startswith(rooms), f"{module} imports {other}"


def test_worker_code_imports_neither_the_coordinator_nor_the_command_line():
    reached = everything_behind(WORKER_CODE)
    assert reached >= {"partrain.network.execution", "partrain.kernels.loops"}
    assert not reached & {"partrain.coordinator", "partrain.training_run", "partrain.cli", "partrain.__main__"}
    assert not [module for module in reached if place(module)[0] > 2 or module.startswith("partrain.store")]


@ALL_MODULES
def test_numba_is_imported_by_kernels_alone(module):
    if not module.startswith("partrain.kernels"):
        assert not [name for name in imported_names(module) if name.split(".")[0] in ("numba", "llvmlite")]


@ALL_MODULES
def test_mpi4py_is_imported_by_one_file_alone(module):
    """Its import starts MPI."""
    found = {name.split(".")[0] for name in imported_names(module)}
    assert ("mpi4py" in found) == (module == "partrain.parallel.mpi_group")


FLAGS = {"njit", "jit", "vectorize", "guvectorize", "cfunc", "fastmath", "nogil", "error_model", "boundscheck"}


@ALL_MODULES
def test_the_flags_of_numba_stand_in_one_file(module):
    mentioned = set()
    for node in ast.walk(tree(module)):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name) | ast.keyword(arg=name):
                mentioned.add(name)
    if module == "partrain.kernels.compile_options":
        assert mentioned >= {"njit", "fastmath"}
    else:
        assert not mentioned & FLAGS


def test_no_file_and_no_folder_has_a_name_that_says_nothing():
    for folder in (PACKAGE, Path(__file__).parent):
        for path in folder.rglob("*.py"):
            words = "_".join(path.relative_to(folder).with_suffix("").parts).lower().split("_")
            assert not NAMES_THAT_SAY_NOTHING & {word.removesuffix("s") for word in words}, path


@pytest.mark.parametrize("module", ["partrain.cli", "partrain.config", "partrain.network.network"])
def test_what_computes_nothing_does_not_import_numba(module):
    code = f"import {module}, sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert "partrain" in ended.stdout.split()
    assert not {"numba", "llvmlite"} & set(ended.stdout.split())
