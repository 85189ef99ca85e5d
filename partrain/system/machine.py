"""The processors and the memory that this process may use, given its affinity and control groups."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

MIB = 2**20


def available_processors(root: Path = Path("/")) -> int:
    """Return how many processors this process may use: those of its affinity, or fewer if a CPU quota limits it.

    Parameters
    ----------
    root : the directory that contains /proc and /sys.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    processors = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, math.ceil(min(processors, processor_quota(root))))


def processor_quota(root: Path = Path("/")) -> float:
    """Return the CPU quota of this process and its children, in processors; infinity if there is none.

    Parameters
    ----------
    root : the directory that contains /proc and /sys.
    """
    quotas = (_cpu_quota(folder) for folder in _control_groups(root, "cpu"))
    return min((quota / period for quota, period in quotas if quota > 0 and period > 0), default=math.inf)


def available_memory(root: Path = Path("/")) -> int | None:
    """Return how many bytes this process and its children can still allocate, or None if the system does not say.

    It is the minimum of the kernel's MemAvailable and of what is left in each control group, whose page cache counts as
    free because it can be dropped.
    """
    amounts = [
        int(line.split()[1]) * 1024
        for line in _read(root / "proc/meminfo").splitlines()
        if line.startswith("MemAvailable:")
    ]
    for folder in _control_groups(root, "memory"):
        limit = _number(folder / "memory.max", folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current", folder / "memory.usage_in_bytes")
        if limit is not None and used is not None:
            statistics = dict(line.split(maxsplit=1) for line in _read(folder / "memory.stat").splitlines())
            amounts.append(limit - used + int(statistics.get("inactive_file", 0)))
    return max(0, min(amounts)) if amounts else None


def num_oom_kills(root: Path = Path("/")) -> int:
    """Return how many processes the kernel has killed so far because memory ran out.

    Parameters
    ----------
    root : the directory that contains /proc and /sys.
    """
    counters = [_read(root / "proc/vmstat")]
    for folder in _control_groups(root, "memory"):
        counters += [_read(folder / "memory.events"), _read(folder / "memory.oom_control")]
    lines = [line.split() for text in counters for line in text.splitlines()]
    return sum(int(words[1]) for words in lines if len(words) == 2 and words[0] == "oom_kill")


def proportional_memory(pids: list[int]) -> int:
    """Return the memory of these processes in bytes (the sum of their PSS, which counts each shared page once).

    A process that has ended counts as 0, and so does every process on a system without /proc.
    """
    return sum(_rollup(pid, "Pss") for pid in pids)


def private_memory(pids: Sequence[int]) -> int:
    """Return the memory of these processes that has no file and is not shared with other processes, in bytes.

    Pages that a fork shares with its parent count in part. A process that has ended counts as 0.
    """
    return sum(_rollup(pid, "Pss_Anon") for pid in pids)


def _rollup(pid: int, name: str) -> int:
    """Return a number of a process's memory in bytes; 0 if the process has ended, or the system does not say."""
    for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def processor_name() -> str:
    """Return the processor's model name."""
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return os.uname().machine


def processor_features() -> list[str]:
    """Return the names of the processor's instruction sets, sorted; empty if the system does not say."""
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith(("flags", "Features")):
            return sorted(line.partition(":")[2].split())
    return []


def _control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the directories of this process's control group and its ancestors, of version 2 and version 1."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            base = root / "sys/fs/cgroup" / controllers
        else:
            continue
        folder = base / path.lstrip("/")
        yield from (f for f in (folder, *folder.parents) if f == base or base in f.parents)


def _cpu_quota(folder: Path) -> tuple[float, float]:
    words = _read(folder / "cpu.max").split()
    if len(words) == 2 and words[0] != "max":
        return float(words[0]), float(words[1])
    return _number(folder / "cpu.cfs_quota_us") or -1, _number(folder / "cpu.cfs_period_us") or -1


def _number(*paths: Path) -> int | None:
    """Return the number in the first of the files that holds one."""
    for path in paths:
        text = _read(path).strip()
        if text.lstrip("-").isdecimal():
            return int(text)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
