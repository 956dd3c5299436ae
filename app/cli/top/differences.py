"""Computes a frame of `tableside top` from two looks at a stack. Nothing here waits, asks or prints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from tableside.cli.top.counting import Counts
from tableside.cli.top.samples import Host, Model, Sample, Version, Worker
from tableside.cli.top.view import ModelView, Numbers, StackView, VersionView, WorkerView
from tableside.telemetry import metric_changes

SORT_KEYS: Mapping[str, Callable[[ModelView], tuple[float, ...]]] = {
    "rate": lambda model: (-(model.numbers.requests_per_s or 0),),
    "errors": lambda model: (-(model.numbers.server_errors or 0), -(model.numbers.client_errors or 0)),
    "p99": lambda model: (-(model.numbers.p99_s or 0),),
    "queue": lambda model: (-model.numbers.queue_rows, -(model.numbers.in_flight or 0)),
    "model": lambda model: (),
}
"""The orders of the models. Models that are equal are in the order of their names."""


def between(server: str, before: Sample | None, after: Sample) -> StackView:
    """Return the frame. before: None with the first look, after which no rate can be known.

    server: its name, for the heading.
    """
    earlier = before.workers.workers if before else []
    seconds = after.workers_at_s - before.workers_at_s if before else 0.0
    workers = [_worker(each, earlier, seconds) for each in after.workers.workers]
    counts = Counts(before, after)
    host = after.workers.host
    return StackView(
        server=server,
        time=after.time.isoformat(timespec="seconds"),
        seconds=counts.seconds,
        generation=after.models.generation,
        workers_ready=sum(each.ready for each in workers),
        workers_wanted=_wanted(after.workers.workers),
        total=counts.total(),
        models=_models(after, counts),
        workers=workers,
        uptime_s=host.stack_age_s,
        drained=host.drained,
        processors=host.processors,
        processor_share=_processor_share(before, after),
        workers_processor_share=_sum(each.processor_share for each in workers),
        memory_bytes=host.memory_bytes,
        memory_used_bytes=_used(host),
        workers_memory_bytes=sum(each.memory_bytes or 0 for each in workers),
    )  # fmt: skip


def ordered(models: Sequence[ModelView], sort: str) -> list[ModelView]:
    """Return the models in an order of SORT_KEYS."""
    return sorted(models, key=lambda model: (*SORT_KEYS[sort](model), model.name))


def _models(after: Sample, counts: Counts) -> list[ModelView]:
    """Return the models that are served, and those that have answered something since the look before."""
    known = {model.name: model for model in after.models.models}
    return [_model(known.get(name, Model(name)), counts) for name in sorted(known.keys() | counts.busy())]


def _model(model: Model, counts: Counts) -> ModelView:
    listed = {str(each.version): each for each in model.versions}
    numbers = sorted(listed.keys() | counts.busy_versions(model.name), key=_order)
    versions = [_version(each, listed.get(each), model, counts.of_version(model.name, each)) for each in numbers]
    return ModelView(model.name, counts.of_model(model.name), versions, model.reason)


def _order(version: str) -> tuple[int, str]:
    return int(version) if version.isdecimal() else -1, version


def _version(number: str, found: Version | None, model: Model, numbers: Numbers) -> VersionView:
    if found is None:
        return VersionView(number, numbers)
    return VersionView(
        number, numbers, found.state, found.reason, [a for a, v in sorted(model.aliases.items()) if v == found.version],
        model.traffic.get(number, ""), bool(found.failure_kind),
    )  # fmt: skip


def _worker(now: Worker, earlier: Iterable[Worker], seconds: float) -> WorkerView:
    """Return a worker. Its slot counts on through the ends of its workers; its processor time is one process's."""
    before = next((each for each in earlier if each.worker_slot == now.worker_slot), Worker())
    requests = _difference(before.requests, now.requests)
    start_s = before.cpu_s if before.pid == now.pid else 0.0
    return WorkerView(
        slot=now.worker_slot,
        pid=now.pid,
        instance=now.instance,
        generation=now.generation,
        ready=now.ready,
        age_s=now.age_s,
        requests_per_s=requests / seconds if requests is not None and seconds > 0 else None,
        client_error_share=_share(_difference(before.client_errors, now.client_errors), requests),
        server_error_share=_share(_difference(before.server_errors, now.server_errors), requests),
        in_flight=now.in_flight,
        processor_share=_per_s(start_s, now.cpu_s, min(seconds, now.age_s or seconds)) if before.pid else None,
        memory_bytes=now.pss_bytes,
        hub_lag_s=now.hub_lag_s,
        problem=_problem(now),
    )  # fmt: skip


def _problem(worker: Worker) -> str:
    if worker.failure or worker.ready:
        return worker.failure
    return f"loading {', '.join(worker.missing)}" if worker.missing else "not ready"


def _wanted(workers: Iterable[Worker]) -> int:
    """Return how many workers the newest gunicorn starts: during a restart there are two."""
    youngest = min(workers, key=lambda each: each.age_s if each.age_s is not None else 0.0, default=Worker())
    return youngest.instance_size


def _processor_share(before: Sample | None, after: Sample) -> float | None:
    if before is None:
        return None
    then, now = before.workers.host, after.workers.host
    total = _difference(then.processor_s, now.processor_s)
    busy = _difference(then.processor_busy_s, now.processor_busy_s)
    return busy / total if total and busy is not None else None


def _used(host: Host) -> int | None:
    total, free = host.memory_bytes, host.memory_free_bytes
    return total - free if total is not None and free is not None else None


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else metric_changes.increase(before, after)


def _per_s(before: float | None, after: float | None, seconds: float) -> float | None:
    grown = _difference(before, after)
    return grown / seconds if grown is not None and seconds > 0 else None


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _sum(values: Iterable[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return sum(known) if known else None
