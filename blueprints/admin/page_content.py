"""What the status page shows, collected from this worker, the status files of all workers and the run folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tableside import __version__, durations, sizes
from tableside.blueprints.admin import page_audit, page_words
from tableside.blueprints.admin.page_audit import Change
from tableside.blueprints.admin.page_models import ModelRow, rows_of, summaries
from tableside.blueprints.admin.page_query import PageQuery
from tableside.blueprints.admin.plot import Plot, plot
from tableside.process import drained, host_overview, worker_overview, worker_slots
from tableside.process.hand_file import Pulse
from tableside.process.offload import run_native
from tableside.serving import request_history
from tableside.serving.generations import Generations
from tableside.serving.request_history import History
from tableside.web.extensions import Extensions

MODELS_ON_PAGE = 50
CHANGES = 10
AUDIT_LINES = 200
"""Lines of the audit log that are looked at: each change has two, and each sign-in too, which is no change."""
Status = Mapping[str, object]


@dataclass(frozen=True)
class WorkerRow:
    """One worker. Every member is text as it is shown."""

    slot: str
    pid: str
    state: str
    kind: str
    generation: str
    age: str
    memory: str
    in_flight: str
    lag: str
    failure: str


@dataclass(frozen=True)
class Content:
    """What the page shows. kind, of the stack and of each row, is a class of the style sheet: good, busy or bad."""

    state: str
    kind: str
    why: str
    facts: Sequence[tuple[str, str]]
    requests: Plot
    models: Sequence[ModelRow]
    models_found: int
    models_in_all: int
    problems: int
    page: int
    pages: int
    workers: Sequence[WorkerRow]
    changes: Sequence[Change]
    time: str


def collect(query: PageQuery, parts: Extensions, now_s: float) -> Content:
    """Collect it all. now_s: seconds since 1970."""
    settings, registry = parts.settings, parts.registry
    run_dir = settings.run_dir
    statuses = run_native(partial(worker_slots.statuses, run_dir / "worker_slots"))
    history = run_native(partial(request_history.read, run_dir, now_s))
    found = run_native(partial(summaries, registry.catalog, statuses))
    problems = sum(1 for each in found if each.has_problem)
    chosen = [each for each in found if query.text.lower() in each.name.lower()]
    chosen = [each for each in chosen if each.has_problem] if query.only_problems else chosen
    pages = max(1, -(-len(chosen) // MODELS_ON_PAGE))
    page = min(query.page, pages)
    shown = chosen[(page - 1) * MODELS_ON_PAGE : page * MODELS_ON_PAGE]
    workers = _workers(statuses, parts.hand.pulses(), now_s)
    state, kind, why = _state(workers, settings.server.workers, problems, run_dir, registry.not_ready())
    return Content(
        state, kind, why, _facts(statuses, workers, settings.server.workers, run_dir, history),
        plot(history.rates(), "Requests per second, all models", request_history.SAMPLE_S, width=720, height=96),
        run_native(partial(rows_of, shown, run_dir, history)), len(chosen), len(found), problems, page, pages, workers,
        page_audit.changes(parts.audit_log.newest(AUDIT_LINES))[:CHANGES],
        f"{datetime.fromtimestamp(now_s, UTC):%Y-%m-%d %H:%M:%S} UTC",
    )  # fmt: skip


def _state(
    workers: Sequence[WorkerRow], wanted: int, problems: int, run_dir: Path, not_ready: str
) -> tuple[str, str, str]:
    """Return the state of the stack in two words, its class, and what is to say of it."""
    ready = sum(1 for each in workers if each.kind == "good")
    if drained.is_drained(run_dir):
        return "Drained", "busy", "An operator has taken this host out of the traffic. `tableside resume` puts it back."
    if not_ready and not ready:
        return "Not ready", "bad", f"{not_ready}."
    if workers and not ready:
        return "Not ready", "bad", "No worker is ready."
    if workers and ready < wanted:
        return "Partly ready", "busy", f"{ready} of {wanted} workers are ready; the others load their models."
    if problems:
        return "Ready, with problems", "busy", f"{problems} model{'s have' if problems > 1 else ' has'} a problem."
    return "Ready", "good", ""


def _facts(
    statuses: Sequence[Status], workers: Sequence[WorkerRow], wanted: int, run_dir: Path, history: History
) -> list[tuple[str, str]]:
    ready = sum(1 for each in workers if each.kind == "good")
    versions = sorted({str(status["version"]) for status in statuses if "version" in status}) or [__version__]
    lately = history.total(None, page_words.LATELY_SAMPLES)
    since = history.total(None)
    age_s = host_overview.stack_age_s(run_dir)
    return [
        ("Workers ready", f"{ready} of {wanted}"),
        ("Running for", durations.in_words(age_s) if age_s is not None else "not known"),
        ("Generation", str(_generation(run_dir, statuses))),
        ("Version", ", ".join(versions)),
        ("Requests, last minute", page_words.rate(lately.requests, page_words.LATELY_SAMPLES)),
        ("Errors, last 15 min", page_words.share(since.errors, since.requests)),
        ("p50, last 15 min", page_words.milliseconds(history.seconds(None, 0.5))),
        ("p99, last 15 min", page_words.milliseconds(history.seconds(None, 0.99))),
    ]


def _generation(run_dir: Path, statuses: Iterable[Status]) -> int:
    with suppress(OSError):
        return Generations.open(run_dir).words.current
    return max((number for status in statuses if isinstance(number := status.get("generation"), int)), default=0)


def _workers(statuses: Sequence[Status], pulses: Mapping[int, Pulse], now_s: float) -> list[WorkerRow]:
    now = datetime.fromtimestamp(now_s, UTC)
    return [_worker(row) for row in run_native(partial(worker_overview.rows, statuses, pulses, now))]


def _worker(row: Status) -> WorkerRow:
    state, kind = ("loading", "busy")
    if row.get("ready"):
        state, kind = "ready", "good"
    elif row.get("failure"):
        state, kind = "failed", "bad"
    elif row.get("generation"):
        state = "ending"
    memory, age, lag = row.get("pss_bytes"), row.get("age_s"), row.get("hub_lag_s")
    return WorkerRow(
        str(row.get("worker_slot", "")), str(row.get("pid", "")), state, kind, str(row.get("generation") or "none"),
        durations.in_words(age) if isinstance(age, float) else "not known",
        sizes.in_words(memory) if isinstance(memory, int) else "not known",
        str(row["in_flight"]) if row.get("in_flight") is not None else "not known",
        f"{lag * 1000:.0f} ms" if isinstance(lag, float) else "not known",
        str(row.get("failure") or ""),
    )  # fmt: skip
