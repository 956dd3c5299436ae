"""The section `[tracing]` of the settings: OpenTelemetry traces of requests, sent by OTLP over HTTP."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from tableside.errors import SettingsError
from tableside.install_hints import install_hint
from tableside.setting_types import Positive, ResourceAttribute, Url

_MODULES = ("opentelemetry.trace", "opentelemetry.proto", "google.protobuf")


class Tracing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The section `[tracing]`: where traces of requests are sent, and of which requests."""

    endpoint: Annotated[Url, Meta(max_length=2000)] = ""
    """Base URL of a receiver of OTLP over HTTP, such as `http://127.0.0.1:4318`; empty: no traces."""
    sample_ratio: Annotated[float, Meta(ge=0, le=1)] = 0.01
    """Share of the requests without a valid `traceparent` header that are traced. A valid one decides itself."""
    service_name: Annotated[str, Meta(min_length=1, max_length=255)] = "tableside"
    """The resource attribute `service.name` of all spans."""
    resource_attributes: tuple[ResourceAttribute, ...] = ()
    """Further resource attributes, NAME=VALUE, such as `deployment.environment.name=production`."""
    headers_file: str = ""
    """File with headers for the receiver, one `NAME: VALUE` a line, such as `Authorization: Bearer ...`."""
    timeout_s: Annotated[float, Meta(gt=0, le=60)] = 5.0
    """Seconds that connecting to the receiver, and each read of its answer, may take."""
    max_queue_requests: Positive = 2048
    """Traced requests whose spans may wait in one worker for the receiver; those of more are dropped and counted."""


def check(tracing: Tracing) -> None:
    """Raise SettingsError if traces are on and cannot be: no such address, or a package is not installed."""
    if not tracing.endpoint:
        return
    try:
        parts = urlsplit(tracing.endpoint)
        problem = not parts.hostname or parts.port == 0
    except ValueError:
        problem = True
    if problem:
        raise SettingsError("tracing.endpoint: expected http://HOST:PORT or https://HOST:PORT, with a path if needed")
    if parts.username is not None or parts.query or parts.fragment:
        raise SettingsError(
            "tracing.endpoint: a name, a password or a query is not sent. Write headers into tracing.headers_file"
        )
    if any(find_spec(module.partition(".")[0]) is None or find_spec(module) is None for module in _MODULES):
        raise SettingsError(
            "tracing.endpoint is set, but the packages for traces are not installed. Remove the setting, or install "
            f"them: {install_hint('tracing')}"
        )
