"""What this process may use of the machine: processors, memory and open files.

A container or a service manager gives less than the machine has. os.cpu_count() and /proc/meminfo do not see that; the
limits are the process's affinity, its control group (cgroup v1 and v2) and its resource limits.
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUP_ROOT = "TABLESIDE_CGROUP_ROOT"
"""Variable with the folder that is read in place of `/`: below it are `proc/self/cgroup`, `proc/meminfo` and
`sys/fs/cgroup`. Tests set it to a folder with limits of their own.
"""
UNLIMITED = 1 << 60
"""A cgroup v1 without a limit reports a number above this."""


def root() -> Path:
    """Return the folder below which the kernel's files are read: `/`, or what CGROUP_ROOT names."""
    return Path(os.environ.get(CGROUP_ROOT) or "/")


def processors(below: Path | None = None) -> int:
    """Return how many processors this process may keep busy: at least 1.

    It is the smallest of the affinity mask (sched_setaffinity(2), cpusets) and the quotas of the control group and its
    parents; a quota of one and a half processors counts as two. below: as `root`.
    """
    below = below or root()
    available: float = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _groups(below, "cpu"):
        available = min(available, _quota(folder))
    return max(1, math.ceil(available))


def memory_bytes(below: Path | None = None) -> tuple[int, str]:
    """Return how many bytes of memory this process may use, and what sets the limit, for a message.

    It is the smallest of the machine's memory and the limits of the control group and its parents; 0 if nothing can be
    read. below: as `root`.
    """
    below = below or root()
    limits = [(_meminfo_bytes(below, "MemTotal:"), "the memory of this machine")]
    for folder in _groups(below, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _number(folder / name)
            if limit is not None and limit < UNLIMITED:
                limits.append((int(limit), f"{name} of this control group"))
    return min((pair for pair in limits if pair[0] > 0), default=(0, ""))


def free_bytes(below: Path | None = None) -> tuple[int, str]:
    """Return how many bytes of memory this process may still take, and what says so, for a message.

    It is the smallest of what the machine has available and what the control group and its parents leave; files that
    the kernel may forget count as free. 0 if nothing can be read. below: as `root`.
    """
    below = below or root()
    found = [(_meminfo_bytes(below, "MemAvailable:"), "the memory of this machine")]
    for folder in _groups(below, "memory"):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, used = _number(folder / limit_name), _number(folder / used_name)
            if limit is not None and used is not None and limit < UNLIMITED:
                left = int(limit - used) + _cached_files(folder)
                found.append((max(1, left), f"{limit_name} of this control group"))
    return min((pair for pair in found if pair[0] > 0), default=(0, ""))


def _cached_files(folder: Path) -> int:
    """Return the bytes of cached files of a control group, which the kernel gives up for other memory."""
    fields: dict[str, int] = {}
    with suppress(OSError, ValueError, IndexError):
        for line in (folder / "memory.stat").read_text().splitlines():
            fields[line.split()[0]] = int(line.split()[1])
    prefix = "total_" if "total_inactive_file" in fields else ""  # cgroup v1: with the groups below
    return fields.get(f"{prefix}inactive_file", 0) + fields.get(f"{prefix}active_file", 0)


def open_files() -> int:
    """Return how many files a process of this stack may open: the hard limit, at most 65536."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)


def _meminfo_bytes(below: Path, name: str) -> int:
    with suppress(OSError, ValueError, IndexError):
        for line in (below / "proc/meminfo").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return 0


def _groups(below: Path, controller: str) -> Iterator[Path]:
    """Yield the folder of this process's control group and those of its parents, for cgroup v2 and v1.

    In a container the path in `proc/self/cgroup` may be the host's, which does not exist here: the container's own
    group is then the root of the mounted tree.
    """
    mounted = below / "sys/fs/cgroup"
    try:
        lines = (below / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    found = False
    for line in lines:
        _, names, path = (*line.split(":", 2), "", "")[:3]
        if names == "":
            trees = [mounted, mounted / "unified"]
        elif controller in names.split(","):
            trees = [mounted / controller, mounted / names]
        else:
            continue
        for tree in trees:
            if tree.is_dir():
                found = True
                yield from _with_parents(tree, path)
    if not found:
        yield mounted


def _with_parents(tree: Path, path: str) -> Iterator[Path]:
    folder = tree / path.strip("/")
    while tree in folder.parents:
        yield folder
        folder = folder.parent
    yield tree


def _quota(folder: Path) -> float:
    """Return the processors that a control group's quota allows; infinity without one."""
    with suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        return math.inf if quota == "max" else _ratio(float(quota), float(period))
    quota_us, period_us = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    if quota_us is None or period_us is None:
        return math.inf
    return _ratio(quota_us, period_us)


def _ratio(quota: float, period: float) -> float:
    return quota / period if quota > 0 and period > 0 else math.inf


def _number(file: Path) -> float | None:
    """Return the number in a file; None if it cannot be read or is `max`."""
    try:
        return float(file.read_text())
    except (OSError, ValueError):
        return None
