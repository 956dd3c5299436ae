"""The only reader of `current_app`: how a view reaches what was wired in the factory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flask import current_app

from app.concurrency.offload import Offload
from app.metrics import Metrics
from app.serving.catalog import Catalog
from app.serving.registry import Registry
from app.serving.servable import Servable
from app.settings import Settings
from app.web.request_ids import RequestIds

if TYPE_CHECKING:
    from app.web.journal import Journal

EXTENSION = "tableside"


@dataclass(frozen=True)
class Wiring:
    """The parts of one application. predicting, coding: threads for estimators, and for large bodies and answers.

    request_ids: gives each request its id.
    """

    settings: Settings
    registry: Registry
    metrics: Metrics
    predicting: Offload
    coding: Offload
    journal: Journal
    request_ids: RequestIds = field(default_factory=RequestIds)

    def catalog(self) -> Catalog:
        """What is served now; waits for the first load. Raises ModelNotReady past the request timeout."""
        return self.registry.wait_loaded(self.settings.server.request_timeout_s)

    def servable(self, spec: str, version: str | None = None) -> Servable:
        """The servable that answers; waits for one still being loaded. Raises ModelNotFound or ModelNotReady."""
        return self.registry.wait_servable(spec, version, self.settings.server.request_timeout_s)


def wiring() -> Wiring:
    """The current application's parts."""
    parts: Wiring = current_app.extensions[EXTENSION]
    return parts


def registry() -> Registry:
    """All servables of this worker."""
    return wiring().registry


def settings() -> Settings:
    """What the operator set."""
    return wiring().settings


def catalog() -> Catalog:
    """See Wiring."""
    return wiring().catalog()


def servable(spec: str, version: str | None = None) -> Servable:
    """See Wiring."""
    return wiring().servable(spec, version)


def routes() -> frozenset[str]:
    """The rules of the application's routes, as `/v2/models/<name>`."""
    return frozenset(rule.rule for rule in current_app.url_map.iter_rules())
