"""The metrics of the stack as a whole, which are looked up when `/metrics` is asked for.

Counts come from files that outlive every process: `tableside.process.worker_lives` and
`tableside.deployment.nginx_answers`. Gauges are what the kernel says now. docs/reference/metrics.md lists them all.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tableside import machine
from tableside.deployment import nginx_answers, stack_processes
from tableside.deployment.nginx_guard import open_files
from tableside.deployment.stack_processes import Role
from tableside.deployment.tls import PEM
from tableside.process import drained, worker_lives, worker_slots
from tableside.settings import Settings

COUNTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "tableside_worker_starts": ("Workers that were started.", ()),
    "tableside_worker_ends": ("Workers that have ended, by cause.", ("cause",)),
    "tableside_nginx_answers": ("Errors that nginx answered itself.", ("plane", "code")),
}
"""The counters with their meanings and labels. A scrape adds `_total` to the names."""
GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "tableside_workers_wanted": ("Workers that an instance is to have.", ()),
    "tableside_workers_ready": ("Workers that have loaded every model that they are to serve.", ()),
    "tableside_drained": ("Whether an operator has taken the host out of the traffic: 1 or 0.", ()),
    "tableside_processes": ("Processes of the stack, by program.", ("program",)),
    "tableside_process_memory_bytes": ("Resident memory of the processes of a program.", ("program",)),
    "tableside_process_open_files": ("Open files of the program's process that has most.", ("program",)),
    "tableside_open_files_limit": ("Files that one process may open.", ()),
    "tableside_disk_free_bytes": ("Free space of the disk that a folder is on.", ("folder",)),
    "tableside_disk_size_bytes": ("Size of the disk that a folder is on.", ("folder",)),
    "tableside_disk_free_inodes": ("Files that the disk of a folder has room for.", ("folder",)),
    "tableside_start_timestamp_seconds": ("When supervisord was started, in seconds since 1970.", ()),
    "tableside_certificate_expiry_timestamp_seconds": ("When the certificate expires, in seconds since 1970.", ()),
}
"""The gauges with their meanings and labels."""
PROGRAMS = {
    Role.SUPERVISORD: "supervisord", Role.HOLDER: "sockets", Role.WEB_KEEPER: "web", Role.GUNICORN: "gunicorn",
    Role.NGINX_KEEPER: "nginx", Role.NGINX_MASTER: "nginx", Role.NGINX_WORKER: "nginx", Role.MODEL: "model",
}  # fmt: skip
"""The label of each process by its role. Uploads and gunicorn's workers have no role here."""
WORKER = "worker"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """What the processes of a program take. open_files: of the one that has most."""

    processes: int = 0
    memory_bytes: int = 0
    open_files: int = 0


class Sample(NamedTuple):
    """A value of one metric. labels: in the order of COUNTERS and GAUGES."""

    name: str
    labels: tuple[str, ...]
    value: float


class StackMetrics(Collector):
    """Collects the metrics of the stack whose settings are given. Each `collect` takes some milliseconds."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._run_dir = settings, settings.run_dir

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics. One that cannot be read has no sample."""
        made: dict[str, CounterMetricFamily | GaugeMetricFamily] = {
            name: CounterMetricFamily(name, meaning, labels=labels) for name, (meaning, labels) in COUNTERS.items()
        }
        made |= {name: GaugeMetricFamily(name, meaning, labels=labels) for name, (meaning, labels) in GAUGES.items()}
        for name, labels, value in self._samples():
            made[name].add_metric(labels, value)
        yield from made.values()

    def _samples(self) -> Iterator[Sample]:
        statuses = worker_slots.statuses(self._run_dir / "worker_slots")
        processes = stack_processes.find(self._run_dir)
        yield from self._workers(statuses)
        yield Sample("tableside_drained", (), drained.is_drained(self._run_dir))
        for (plane, code), answers in nginx_answers.counts(self._run_dir).items():
            yield Sample("tableside_nginx_answers", (plane, code), answers)
        for program, taken in _usage(processes, {status.get("pid") for status in statuses}).items():
            yield Sample("tableside_processes", (program,), taken.processes)
            yield Sample("tableside_process_memory_bytes", (program,), taken.memory_bytes)
            yield Sample("tableside_process_open_files", (program,), taken.open_files)
        yield Sample("tableside_open_files_limit", (), machine.open_files())
        for label, folder in (("run", self._run_dir), ("models", self._settings.repository_path)):
            yield from _disk(label, folder)
        if started_s := _started_s([each for each in processes if each.role is Role.SUPERVISORD]):
            yield Sample("tableside_start_timestamp_seconds", (), started_s)
        if expires_s := certificate_expires_s(self._settings):
            yield Sample("tableside_certificate_expiry_timestamp_seconds", (), expires_s)

    def _workers(self, statuses: Iterable[Mapping[str, object]]) -> Iterator[Sample]:
        counts = worker_lives.counts(self._run_dir, time.monotonic())
        yield Sample("tableside_worker_starts", (), counts.starts)
        for cause, count in counts.ends.items():
            yield Sample("tableside_worker_ends", (cause.value,), count)
        yield Sample("tableside_workers_wanted", (), self._settings.server.workers)
        yield Sample("tableside_workers_ready", (), sum(status.get("ready") is True for status in statuses))


def render(settings: Settings) -> bytes:
    """Return the metrics of the stack in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(StackMetrics(settings))
    return generate_latest(registry)


def _disk(label: str, folder: Path) -> Iterator[Sample]:
    with suppress(OSError):
        disk = os.statvfs(folder)
        yield Sample("tableside_disk_free_bytes", (label,), disk.f_bavail * disk.f_frsize)
        yield Sample("tableside_disk_size_bytes", (label,), disk.f_blocks * disk.f_frsize)
        if disk.f_files:  # some file systems, such as btrfs, have no limit
            yield Sample("tableside_disk_free_inodes", (label,), disk.f_favail)


def _usage(processes: Iterable[stack_processes.StackProcess], workers: Iterable[object]) -> dict[str, Usage]:
    """Return what each program takes, with zeros for a program without a process."""
    pids = {pid: WORKER for pid in (os.getpid(), *workers) if isinstance(pid, int)}
    found = {each.pid: PROGRAMS[each.role] for each in processes if each.role in PROGRAMS} | pids
    by_program: defaultdict[str, list[int]] = defaultdict(list)
    for pid, program in found.items():
        by_program[program].append(pid)
    programs = dict.fromkeys((*PROGRAMS.values(), WORKER))
    return {program: _sum(by_program[program]) for program in programs}


def _sum(pids: Iterable[int]) -> Usage:
    found = [(memory, open_files(pid)) for pid in pids if (memory := resident_bytes(pid))]
    return Usage(len(found), sum(memory for memory, _ in found), max((files for _, files in found), default=0))


def resident_bytes(pid: int) -> int:
    """Return how much memory a process has that is not on the disk only; 0 if it has ended (proc(5), statm)."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0


def _started_s(supervisors: Iterable[stack_processes.StackProcess]) -> float:
    """Return when the stack was started, in seconds since 1970; 0 without a supervisord."""
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/stat").read_text().splitlines()
        booted_s = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
        return max((booted_s + each.started / _TICKS for each in supervisors), default=0.0)
    return 0.0


def certificate_expires_s(settings: Settings) -> float:
    """Return when the certificate that nginx uses expires, or its first intermediate, in seconds since 1970.

    That is the copy in the run folder, which stays when the files of the settings do not fit together. Without a copy
    it is the file of the settings. 0 without either or without TLS.
    """
    if not settings.server.tls_certificate:
        return 0.0
    from cryptography.x509 import load_pem_x509_certificates  # not needed without TLS

    for path in (settings.run_dir / PEM, Path(settings.server.tls_certificate)):
        with suppress(OSError, ValueError):
            return min(each.not_valid_after_utc.timestamp() for each in load_pem_x509_certificates(path.read_bytes()))
    return 0.0
