"""The only reader of `current_app`: how a view reaches what was wired in the factory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flask import current_app

from tableside.process.offload import Offload
from tableside.serving.catalog import Catalog
from tableside.serving.registry import Registry
from tableside.serving.servable import Servable
from tableside.settings import Settings
from tableside.telemetry.metrics import Metrics
from tableside.web.request_ids import RequestIds

if TYPE_CHECKING:
    from tableside.telemetry.request_metrics import RequestMetrics

EXTENSION_KEY = "tableside"


@dataclass(frozen=True)
class Extensions:
    """The parts of one application. predict_offload, codec_offload: threads for estimators, and for large bodies and
    answers.

    request_ids: gives each request its id.
    """

    settings: Settings
    registry: Registry
    metrics: Metrics
    predict_offload: Offload
    codec_offload: Offload
    request_metrics: RequestMetrics
    request_ids: RequestIds = field(default_factory=RequestIds)

    def catalog(self) -> Catalog:
        """What is served now; waits for the first load. Raises ModelNotReady past the request timeout."""
        return self.registry.wait_loaded(self.settings.server.request_timeout_s)

    def servable(self, spec: str, version: str | None = None) -> Servable:
        """The servable that answers; waits for one still being loaded. Raises ModelNotFound or ModelNotReady."""
        return self.registry.wait_servable(spec, version, self.settings.server.request_timeout_s)


def extensions() -> Extensions:
    """The current application's parts."""
    found: Extensions = current_app.extensions[EXTENSION_KEY]
    return found


def registry() -> Registry:
    """All servables of this worker."""
    return extensions().registry


def settings() -> Settings:
    """What the operator set."""
    return extensions().settings


def catalog() -> Catalog:
    """See Extensions."""
    return extensions().catalog()


def servable(spec: str, version: str | None = None) -> Servable:
    """See Extensions."""
    return extensions().servable(spec, version)


def routes() -> frozenset[str]:
    """The rules of the application's routes, as `/v2/models/<name>`."""
    return frozenset(rule.rule for rule in current_app.url_map.iter_rules())
