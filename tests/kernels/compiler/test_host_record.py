from __future__ import annotations

import numpy as np
import pytest

from partrain.kernels.compiler import host_record
from partrain.kernels.compiler.host_record import read_host, write_host


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if host_record.record_name() is None:
        pytest.skip("this system does not describe its processor")


def test_record_is_read_back_on_the_same_processor():
    assert read_host() is None
    write_host("znver4", "+avx,-amx")
    assert read_host() == ("znver4", "+avx,-amx")


def test_record_is_not_used_with_other_features_settings_or_versions(monkeypatch):
    write_host("znver4", "+avx")
    with monkeypatch.context() as changed:
        changed.setenv("NUMBA_ENABLE_AVX", "0")
        assert read_host() is None
    with monkeypatch.context() as changed:
        changed.setitem(np._core._multiarray_umath.__cpu_features__, "AVX2", "another")
        assert read_host() is None
    with monkeypatch.context() as changed:
        changed.setattr(host_record, "version_of", lambda package: b"another")
        assert read_host() is None
    assert read_host() == ("znver4", "+avx")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"7"])
def test_damaged_record_counts_as_none(tmp_path, content):
    write_host("znver4", "+avx")
    (file,) = (tmp_path / "partrain" / "processors").iterdir()
    file.write_bytes(content)
    assert read_host() is None


def test_record_that_others_may_write_counts_as_none(tmp_path):
    write_host("znver4", "+avx")
    (file,) = (tmp_path / "partrain" / "processors").iterdir()
    file.chmod(0o666)
    assert read_host() is None
