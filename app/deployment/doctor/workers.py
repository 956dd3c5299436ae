"""The workers that run: how many are ready, with which generation, and whether one watches the repository."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime

from tableside import __version__
from tableside.deployment.doctor.finding import Finding, Level
from tableside.deployment.doctor.programs import DOWN, STATE
from tableside.deployment.doctor.set_up import SetUp
from tableside.deployment.layout import supervisorctl
from tableside.process import drained
from tableside.process.file_locks import is_locked
from tableside.serving import generations, repository_watch

ABOUT = "workers"
SETTLED_S = 60.0
"""Age of the youngest worker from which on the workers have had time to agree, and one of them to begin to watch."""


def check(set_up: SetUp) -> Iterator[Finding]:
    """Yield what is wrong with the running workers; nothing without them."""
    settings = set_up.settings
    if set_up.supervisord and drained.is_drained(settings.run_dir):
        yield Finding(
            Level.NOTE, ABOUT, "the host is drained", str(settings.run_dir / drained.FILE),
            "readiness answers 503, so that load balancers send nothing", "Run `tableside resume`",
        )  # fmt: skip
    yield from _programs(set_up)
    for each in set_up.statuses:
        if failure := each.get("failure"):
            yield Finding(
                Level.ERROR, ABOUT, f"worker {each.get('pid')} does not follow the repository", str(failure),
                "it answers as before, or is not ready", "Do what the message says",
            )  # fmt: skip
    if set_up.statuses and _youngest_s(set_up) > max(SETTLED_S, 10 * settings.repository.watch_interval_s):
        yield from _count(set_up)
        yield from _agreement(set_up)
        yield from _watch(set_up)


def _programs(set_up: SetUp) -> Iterator[Finding]:
    for name, program in sorted(set_up.programs.items()):
        if program.get(STATE) in DOWN and (name != "nginx" or set_up.behind_nginx):
            yield Finding(
                Level.ERROR, ABOUT, f"the program {name} does not run", f"supervisord says {program[STATE]}",
                "requests get no answer, or the next restart finds no sockets", f"Look into {set_up.settings.run_dir}"
                f"/log/{name}.log, then run: {supervisorctl(set_up.settings.run_dir, 'start', f'{name}:*')}",
            )  # fmt: skip


def _youngest_s(set_up: SetUp) -> float:
    ages = [0.0 for each in set_up.statuses if not each.get("started_at")]
    for each in set_up.statuses:
        with suppress(ValueError):
            ages.append((set_up.now - datetime.fromisoformat(str(each.get("started_at")))).total_seconds())
    return min(ages, default=0.0)


def _count(set_up: SetUp) -> Iterator[Finding]:
    ready = [each for each in set_up.statuses if each.get("ready")]
    if len(ready) < set_up.settings.server.workers:
        missing = sorted({str(name) for each in set_up.statuses for name in _listed(each.get("missing"))})
        yield Finding(
            Level.WARNING if ready else Level.ERROR, ABOUT, "fewer workers are ready than there should be",
            f"{len(ready)} of server.workers {set_up.settings.server.workers}",
            "the others take less load, or none; what is missing: " + (", ".join(missing[:5]) or "not said"),
            "Look into `tableside logs` and `tableside workers`; a change of server.workers needs `tableside restart`",
        )  # fmt: skip


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _agreement(set_up: SetUp) -> Iterator[Finding]:
    folder = set_up.settings.run_dir / generations.FOLDER
    served = Counter(each.get("generation") for each in set_up.statuses if each.get("ready"))
    if len(served) > 1 and not is_locked(folder / generations.LOCK):
        yield Finding(
            Level.ERROR, ABOUT, "workers answer from different generations",
            ", ".join(f"generation {number}: {count} workers" for number, count in served.most_common()),
            "the same request gets different answers", "Run `tableside restart`",
        )  # fmt: skip
    others = {str(each.get("version")) for each in set_up.statuses} - {__version__, "None"}
    if others:
        yield Finding(
            Level.WARNING, ABOUT, "workers run another release than this command", f"{', '.join(sorted(others))}, here "
            f"{__version__}", "what this command finds may not hold for them", "Run `tableside restart`",
        )  # fmt: skip


def _watch(set_up: SetUp) -> Iterator[Finding]:
    interval_s = set_up.settings.repository.watch_interval_s
    if interval_s and not is_locked(set_up.settings.run_dir / generations.FOLDER / repository_watch.LOCK):
        yield Finding(
            Level.WARNING, ABOUT, "no worker watches the repository",
            f"repository.watch_interval_s {interval_s:g}, {repository_watch.LOCK} is not locked",
            "files that are edited or copied by hand are not served", "Run `tableside reload` after each change, and "
            "look into `tableside logs` for `watch_failed`",
        )  # fmt: skip
