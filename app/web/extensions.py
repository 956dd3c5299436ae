"""The parts of one application, and the accessors that views use to reach them.

This is the only module that reads `flask.current_app`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flask import current_app

from tableside.process.answer_files import AnswerFiles
from tableside.process.audit_log import AuditLog
from tableside.process.offload import Offload
from tableside.process.worker_hand import WorkerHand
from tableside.serving.catalog import Catalog
from tableside.serving.registry import Registry
from tableside.serving.servable import Servable
from tableside.settings import Settings
from tableside.telemetry.metrics import Metrics
from tableside.telemetry.request_trace import RequestTrace
from tableside.web.auth import Access, access_of
from tableside.web.body_size import BytesInHand
from tableside.web.request_ids import RequestIds

if TYPE_CHECKING:
    from tableside.telemetry.request_metrics import RequestMetrics
    from tableside.telemetry.tracing import Tracing
    from tableside.web.guard import Guard

EXTENSION_KEY = "tableside"
"""The key of Extensions in `Flask.extensions`."""


@dataclass(frozen=True)
class Extensions:
    """The parts of one application, as the factory wires them.

    predict_offload: threads for estimators. codec_offload: threads that decode large bodies and encode large answers.
    request_ids: makes the id of each request. bytes_in_hand: counts the bytes of the bodies that are held.
    guard: decides who may call a route. answer_files: large answers for nginx.
    audit_log: who changed what. new_trace: makes the trace of a request. tracing: exports spans; None without
    `tracing.endpoint`.
    """

    settings: Settings
    registry: Registry
    metrics: Metrics
    predict_offload: Offload
    codec_offload: Offload
    request_metrics: RequestMetrics
    bytes_in_hand: BytesInHand
    guard: Guard
    answer_files: AnswerFiles
    audit_log: AuditLog
    request_ids: RequestIds = field(default_factory=RequestIds)
    new_trace: Callable[..., RequestTrace] = RequestTrace
    tracing: Tracing | None = None

    @property
    def hand(self) -> WorkerHand:
        """The requests that this worker has in hand, and what it knows of those that have ended workers."""
        return self.registry.hand

    def catalog(self) -> Catalog:
        """What is served now. Waits for the first load; raises ModelNotReady when it outlasts the request timeout."""
        return self.registry.wait_loaded(self.settings.server.request_timeout_s)

    def servable(self, spec: str, version: str | None = None) -> Servable:
        """The servable for a model name, with an optional version or alias. Waits for one that is still loading.

        Raises ModelNotFound, or ModelNotReady when it cannot answer within the request timeout.
        """
        return self.registry.wait_servable(spec, version, self.settings.server.request_timeout_s)


def extensions() -> Extensions:
    """The current application's parts."""
    current: Extensions = current_app.extensions[EXTENSION_KEY]
    return current


def registry() -> Registry:
    """The current application's registry: all servables of this worker."""
    return extensions().registry


def settings() -> Settings:
    """The current application's settings."""
    return extensions().settings


def catalog() -> Catalog:
    """What the current application serves now. Waits and raises as `Extensions.catalog` does."""
    return extensions().catalog()


def servable(spec: str, version: str | None = None) -> Servable:
    """A servable of the current application. Waits and raises as `Extensions.servable` does."""
    return extensions().servable(spec, version)


def open_routes() -> frozenset[str] | None:
    """The URL rules of the current application that need no key; None if predictions need none either."""
    if not settings().needs_keys:
        return None
    return frozenset(rule.rule for rule in current_app.url_map.iter_rules() if access_of(rule.endpoint) is Access.OPEN)


def routes() -> frozenset[str]:
    """The URL rules of the current application, such as `/v2/models/<name>`."""
    return frozenset(rule.rule for rule in current_app.url_map.iter_rules())
