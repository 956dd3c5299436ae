"""Workers and nginx's processes follow what this process may use, not what the machine has."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tableside import machine

pytestmark = pytest.mark.no_greenlets
CORES = len(os.sched_getaffinity(0))


def files(root: Path, **contents: str) -> Path:
    """Write files below `root`; in a keyword, `__` stands for a slash and `DOT` for a dot."""
    for name, text in contents.items():
        path = root / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    """A root without any file of the kernel limits nothing."""
    assert machine.processors(tmp_path) == CORES
    assert machine.memory_bytes(tmp_path) == (0, "")


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", CORES), ("50000 100000", 1), ("100000 100000", 1), ("110000 100000", min(2, CORES)),
     ("6400000 100000", CORES), ("nonsense", CORES), ("-1 100000", CORES)],
)  # fmt: skip
def test_quota_of_cgroup_v2(tmp_path: Path, quota: str, expected: int) -> None:
    """cpu.max has a quota and a period; a part of a processor counts as one more."""
    root = files(tmp_path, proc__self__cgroup="0::/", sys__fs__cgroup__cpuDOTmax=quota)
    assert machine.processors(root) == expected


def test_the_smallest_limit_of_a_group_and_its_parents_counts(tmp_path: Path) -> None:
    """A group without a limit of its own has those of the groups above it."""
    root = files(
        tmp_path,
        proc__self__cgroup="0::/kube/pod/web",
        proc__meminfo="MemFree: 1 kB\nMemTotal:       16000000 kB",
        sys__fs__cgroup__kube__pod__web__cpuDOTmax="max 100000",
        sys__fs__cgroup__kube__pod__cpuDOTmax="100000 100000",
        sys__fs__cgroup__kube__pod__web__memoryDOTmax="max",
        sys__fs__cgroup__kube__pod__memoryDOTmax=str(2 << 30),
        sys__fs__cgroup__kube__memoryDOTmax=str(8 << 30),
    )
    assert machine.processors(root) == 1
    assert machine.memory_bytes(root) == (2 << 30, "memory.max of this control group")


def test_a_container_that_sees_the_path_of_its_host(tmp_path: Path) -> None:
    """Where the group's path does not exist, the mounted tree's root is the container's own group."""
    root = files(tmp_path, proc__self__cgroup="0::/docker/0123", sys__fs__cgroup__cpuDOTmax="100000 100000")
    assert machine.processors(root) == 1


def test_limits_of_cgroup_v1(tmp_path: Path) -> None:
    """Quota and memory are in trees of their own; -1 and a number above 2**60 are no limit."""
    root = files(
        tmp_path,
        proc__self__cgroup="4:memory:/app\n3:cpu,cpuacct:/app\n0::/",
        proc__meminfo="MemTotal: 4000 kB",
        **{"sys__fs__cgroup__cpu,cpuacct__app__cpuDOTcfs_quota_us": "100000"},
        **{"sys__fs__cgroup__cpu,cpuacct__app__cpuDOTcfs_period_us": "100000"},
        **{"sys__fs__cgroup__cpu,cpuacct__cpuDOTcfs_quota_us": "-1"},
        **{"sys__fs__cgroup__cpu,cpuacct__cpuDOTcfs_period_us": "100000"},
        sys__fs__cgroup__memory__app__memoryDOTlimit_in_bytes="9223372036854771712",
    )
    assert machine.processors(root) == 1
    assert machine.memory_bytes(root) == (4000 * 1024, "the memory of this machine")
    files(root, sys__fs__cgroup__memory__app__memoryDOTlimit_in_bytes="1000000")
    assert machine.memory_bytes(root) == (1_000_000, "memory.limit_in_bytes of this control group")


def test_this_machine_can_be_read() -> None:
    """Whatever groups this test runs in, there is a processor, and some memory."""
    assert 1 <= machine.processors() <= CORES
    assert machine.memory_bytes()[0] > 1 << 20


def run(code: str, **variables: str) -> str:
    """What code prints in a process of its own: settings take their defaults when they are imported."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.processes
def test_the_variable_names_another_root(tmp_path: Path) -> None:
    """TABLESIDE_CGROUP_ROOT is read in place of `/`, also for the default of server.workers."""
    files(tmp_path, proc__self__cgroup="0::/", sys__fs__cgroup__cpuDOTmax="1000 100000")
    code = "from tableside.settings import load; print(load({}).server.workers)"
    assert run(code, **{machine.CGROUP_ROOT: str(tmp_path)}) == "1"
    assert run(code) == str(machine.processors())


@pytest.mark.processes
def test_the_affinity_counts() -> None:
    """A process that is bound to one processor has one worker."""
    bind = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
    assert run(f"{bind} from tableside import machine; print(machine.processors())") == "1"


def test_open_files_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hard limit counts, because the stack raises the soft one; without a limit it is 65536."""
    for hard, expected in ((256, 256), (1 << 20, 65536), (resource.RLIM_INFINITY, 65536)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, hard=hard: (128, hard))
        assert machine.open_files() == expected
