from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from partrain.system import machine
from partrain.system.machine import (
    available_memory,
    available_processors,
    num_oom_kills,
    processor_features,
    processor_name,
    proportional_memory,
)

SIXTEEN = frozenset(range(16))
V2 = "0::/slice/job\n"
V1 = "12:memory:/slice/job\n11:cpu,cpuacct:/slice/job\n1:name=systemd:/slice/job\n"


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.fixture
def _sixteen_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: SIXTEEN, raising=False)


def meminfo(kib: int) -> dict[str, str]:
    return {"proc/meminfo": f"MemTotal: 99999999 kB\nMemFree: 1 kB\nMemAvailable:   {kib} kB\n"}


@pytest.mark.usefixtures("_sixteen_processors")
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 16),
        ({"proc/self/cgroup": V2}, 16),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/slice/job/cpu.max": "max 100000\n"}, 16),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/slice/job/cpu.max": "400000 100000\n"}, 4),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/slice/job/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/slice/job/cpu.max": "1000 100000\n"}, 1),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/slice/job/cpu.max": "9900000 100000\n"}, 16),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/slice/job/cpu.max": "\n"}, 16),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
        (
            {
                "proc/self/cgroup": V2,
                "sys/fs/cgroup/slice/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/slice/job/cpu.max": "800000 100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu,cpuacct/slice/job/cpu.cfs_quota_us": "500000\n",
                "sys/fs/cgroup/cpu,cpuacct/slice/job/cpu.cfs_period_us": "100000\n",
            },
            5,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu,cpuacct/slice/job/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/slice/job/cpu.cfs_period_us": "100000\n",
            },
            16,
        ),
        # A container whose own group is mounted as the root of the hierarchy, under the host's name for it.
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
    ],
    ids=[
        "no file at all",
        "a group without a quota file",
        "no quota",
        "quota",
        "a quota of one and a half is two",
        "less than one is one",
        "a quota above the affinity",
        "an empty file",
        "the root group",
        "the group around it allows less",
        "version 1",
        "version 1 without a quota",
        "version 1 in a container",
    ],
)
def test_processors_are_those_of_affinity_and_quota(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert available_processors(write_tree(tmp_path, files)) == expected


def test_processors_of_this_process_are_at_most_its_affinity() -> None:
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert 1 <= available_processors() <= (affinity or 1)


JOB_V2 = "sys/fs/cgroup/slice/job/"
JOB_V1 = "sys/fs/cgroup/memory/slice/job/"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        (meminfo(1000), 1_024_000),
        ({**meminfo(1000), "proc/self/cgroup": V2}, 1_024_000),
        ({**meminfo(1000), "proc/self/cgroup": V2, JOB_V2 + "memory.max": "max\n"}, 1_024_000),
        (
            {
                **meminfo(1000),
                "proc/self/cgroup": V2,
                JOB_V2 + "memory.max": "700000\n",
                JOB_V2 + "memory.current": "100000\n",
            },
            600_000,
        ),
        (
            {
                **meminfo(1000),
                "proc/self/cgroup": V2,
                JOB_V2 + "memory.max": "700000\n",
                JOB_V2 + "memory.current": "0\n",
            },
            700_000,
        ),
        (
            {
                **meminfo(1000),
                "proc/self/cgroup": V2,
                JOB_V2 + "memory.max": "700000\n",
                JOB_V2 + "memory.current": "100000\n",
                JOB_V2 + "memory.stat": "anon 60000\ninactive_file 30000\nactive_file 10000\n",
            },
            630_000,
        ),
        (
            {
                **meminfo(1000),
                "proc/self/cgroup": V2,
                JOB_V2 + "memory.max": "700000\n",
                JOB_V2 + "memory.current": "900000\n",
            },
            0,
        ),
        (
            {
                **meminfo(1000),
                "proc/self/cgroup": V2,
                JOB_V2 + "memory.max": "700000\n",
                JOB_V2 + "memory.current": "100000\n",
                "sys/fs/cgroup/slice/memory.max": "500000\n",
                "sys/fs/cgroup/slice/memory.current": "200000\n",
            },
            300_000,
        ),
        (
            {
                **meminfo(1000),
                "proc/self/cgroup": V1,
                JOB_V1 + "memory.limit_in_bytes": "700000\n",
                JOB_V1 + "memory.usage_in_bytes": "100000\n",
            },
            600_000,
        ),
        (
            {
                **meminfo(1000),
                "proc/self/cgroup": V1,
                JOB_V1 + "memory.limit_in_bytes": "9223372036854771712\n",
                JOB_V1 + "memory.usage_in_bytes": "100000\n",
            },
            1_024_000,
        ),
        (
            {
                "proc/self/cgroup": V2,
                JOB_V2 + "memory.max": "700000\n",
                JOB_V2 + "memory.current": "100000\n",
            },
            600_000,
        ),
    ],
    ids=[
        "no file at all",
        "MemAvailable",
        "a group without files",
        "no limit",
        "limit",
        "a limit of which nothing is used",
        "page cache counts as free",
        "more is used than the limit",
        "the group around it leaves less",
        "version 1",
        "version 1 without a limit",
        "no meminfo",
    ],
)
def test_memory_is_the_least_that_anyone_leaves(tmp_path: Path, files: dict[str, str], expected: int | None) -> None:
    assert available_memory(write_tree(tmp_path, files)) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_memory_of_processes_is_the_sum_of_those_that_run() -> None:
    own = proportional_memory([os.getpid()])
    assert own > 2**20
    assert proportional_memory([2**30]) == 0
    assert proportional_memory([]) == 0
    assert proportional_memory([os.getpid(), 2**30]) > own // 2


def test_processor_has_a_name() -> None:
    assert processor_name()


def test_processor_features_are_sorted_words() -> None:
    features = processor_features()
    assert features == sorted(features)
    assert all(" " not in feature for feature in features)


def test_processor_of_a_system_without_proc_is_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_read", lambda path: "")
    assert processor_name() == os.uname().machine
    assert processor_features() == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 0),
        ({"proc/vmstat": "oom_kills_of_old 9\noom_kill 3\n"}, 3),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/slice/job/memory.events": "oom 7\noom_kill 2\n"}, 2),
        ({"proc/self/cgroup": V1, "sys/fs/cgroup/memory/slice/job/memory.oom_control": "under_oom 0\noom_kill 4\n"}, 4),
    ],
)
def test_kills_for_want_of_memory_are_counted(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert num_oom_kills(write_tree(tmp_path, files)) == expected
