"""One look at a stack: its metrics, models and workers, as the control plane answers them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple, TypeVar

import msgspec

from tableside.cli.remote import Content, Remote
from tableside.errors import StackError
from tableside.telemetry import metric_changes
from tableside.telemetry.metric_changes import Samples

REQUESTS, REQUEST_SECONDS = "tableside_requests", "tableside_request_seconds"
QUEUE_ROWS, IN_FLIGHT = "tableside_queue_rows", "tableside_requests_in_flight"
FAMILIES = frozenset((REQUESTS, REQUEST_SECONDS, QUEUE_ROWS, IN_FLIGHT))
Answer = TypeVar("Answer")


class Version(msgspec.Struct):
    """A version in `GET /admin/api/models`. workers: how many have it in which state."""

    version: int
    state: str
    reason: str = ""
    failure_kind: str = ""
    workers: dict[str, int] = {}


class Model(msgspec.Struct):
    """A model in `GET /admin/api/models`. traffic: as what each version is tried, by its number."""

    name: str
    aliases: dict[str, int] = {}
    reason: str = ""
    versions: list[Version] = []
    traffic: dict[str, str] = {}


class Models(msgspec.Struct):
    """The answer of `GET /admin/api/models`."""

    generation: int = 0
    models: list[Model] = []


class Worker(msgspec.Struct):
    """A worker in `GET /admin/api/workers`. What is unknown is None; a worker of an older release leaves it out."""

    worker_slot: int | None = None
    pid: int | None = None
    instance: str = ""
    instance_id: str = ""
    instance_size: int = 0
    ready: bool = False
    generation: int = 0
    missing: list[str] = []
    failure: str = ""
    age_s: float | None = None
    cpu_s: float | None = None
    pss_bytes: int | None = None
    in_flight: int | None = None
    hub_lag_s: float | None = None
    requests: int | None = None
    client_errors: int | None = None
    server_errors: int | None = None


class Host(msgspec.Struct):
    """The host in `GET /admin/api/workers`."""

    processors: int | None = None
    processor_busy_s: float | None = None
    processor_s: float | None = None
    memory_bytes: int | None = None
    memory_free_bytes: int | None = None
    stack_age_s: float | None = None
    drained: bool = False


class Workers(msgspec.Struct):
    """The answer of `GET /admin/api/workers`."""

    workers: list[Worker] = []
    host: Host = msgspec.field(default_factory=Host)


class Sample(NamedTuple):
    """One look at a stack. metrics_at_s, workers_at_s: when the server answered, in seconds of the monotonic clock."""

    time: datetime
    metrics_at_s: float
    metrics: Samples
    workers_at_s: float
    workers: Workers
    models: Models


def take(server: Remote, clock: Callable[[], float] = time.monotonic) -> Sample:
    """Ask a server. Raises StackError if it does not answer, or if it answers in another form."""
    text = server.get_text("metrics")
    metrics_at_s = clock()
    workers = server.ask("GET", "workers", {"models": "false"}).or_raise()
    workers_at_s = clock()
    models = server.ask("GET", "models").or_raise()
    try:
        metrics = metric_changes.parse(text, FAMILIES)
    except ValueError as problem:
        raise StackError(f"unexpected answer of {server.name} to /metrics: {problem}") from problem
    return Sample(
        datetime.now().astimezone(), metrics_at_s, metrics, workers_at_s, _as(workers, Workers), _as(models, Models)
    )


def _as(content: Content, form: type[Answer]) -> Answer:
    try:
        return msgspec.convert(content, form)
    except msgspec.ValidationError as problem:
        raise StackError(f"unexpected answer of the admin API: {problem}") from problem
