from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from partrain.errors import ResourceError
from partrain.store.run_directory import RunDirectory
from partrain.store.run_location import RunLocation, check_writable
from tests.store.new_runs import STARTED


def test_a_writable_directory_passes_the_check_and_stays_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "runs")
    check_writable(tmp_path / "new" / "runs")
    assert os.listdir(tmp_path / "new" / "runs") == []


def test_a_file_instead_of_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    for folder in (tmp_path / "runs", tmp_path / "runs" / "below"):
        with pytest.raises(ResourceError, match=r"runs.*: cannot create a run directory here: .*--runs-dir"):
            check_writable(folder)
        with pytest.raises(ResourceError, match="cannot create a run directory here"):
            RunDirectory.create(folder, "mnist", STARTED)
        with pytest.raises(ResourceError, match="cannot create a run directory here"):
            RunDirectory.create_at(folder / "run")


@pytest.mark.parametrize("error_number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_an_error_of_mkdir_is_reported_with_its_cause(
    error_number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object, mode: int = 0o777) -> None:
        raise OSError(error_number, os.strerror(error_number), path)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(ResourceError, match=os.strerror(error_number)):
        check_writable(tmp_path)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fdinfo"), reason="needs /proc")
def test_a_directory_in_which_root_cannot_write_is_refused() -> None:
    with pytest.raises(ResourceError, match="/proc/self/fdinfo: cannot create a run directory"):
        check_writable(Path("/proc/self/fdinfo"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(ResourceError, match="Permission denied"):
            check_writable(tmp_path)
    finally:
        tmp_path.chmod(0o755)


def test_a_run_is_created_at_exactly_its_location(tmp_path: Path) -> None:
    location = RunLocation(tmp_path / "runs", tmp_path / "new" / "run")
    assert location.parent == tmp_path / "new"
    assert location.create("mnist").path == tmp_path / "new" / "run"


def test_without_a_location_a_run_is_created_in_the_directory_of_runs(tmp_path: Path) -> None:
    location = RunLocation(tmp_path / "runs")
    assert location.parent == tmp_path / "runs"
    run = location.create("mnist")
    assert run.path.parent == tmp_path / "runs"
    assert run.path.name.endswith("-mnist")
