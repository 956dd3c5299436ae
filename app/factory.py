"""The composition root: it makes all parts of an application and connects them. Only this module imports all others."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flask import Flask

from tableside.blueprints import BLUEPRINTS, FAST_ENDPOINTS
from tableside.model_process.known_environments import known
from tableside.preflight.coordinator import PreflightCoordinator
from tableside.preflight.results import PREFLIGHT_FOLDER
from tableside.process.answer_files import AnswerFiles
from tableside.process.audit_log import AuditLog
from tableside.process.delayed_calls import make_call_later
from tableside.process.offload import make_offload
from tableside.runtimes.checked_artifacts import CHECKED_ARTIFACTS_FOLDER
from tableside.runtimes.shared_store import SHARED_STORE_FOLDER
from tableside.serving.registry import Registry
from tableside.serving.reloading import THREADS
from tableside.settings import Settings, load
from tableside.telemetry import logs, metrics
from tableside.telemetry.metrics import Metrics
from tableside.telemetry.request_metrics import RequestMetrics
from tableside.telemetry.request_trace import RequestTrace
from tableside.web import error_replies, guard, large_answers, request_lifecycle
from tableside.web.auth import ACCESS_BY_BLUEPRINT
from tableside.web.body_size import BytesInHand
from tableside.web.dispatch import FastDispatchFlask
from tableside.web.extensions import EXTENSION_KEY, Extensions
from tableside.web.route_names import route_names

if TYPE_CHECKING:
    from tableside.telemetry.tracing import Tracing


def create_app(settings: Settings | None = None, registry: Registry | None = None) -> Flask:
    """Make one application. It has no models until its registry loads them (`Registry.follow` or `Registry.reload`).

    settings: by default those of the environment. registry: by default a new one, which runs preflights.
    Raises SettingsError if the settings cannot be read. Raises RuntimeError for a blueprint that declares no access,
    and for a Flask hook that the fast dispatch of predictions would skip.
    """
    settings = settings or load()
    logs.configure(settings.log.format, settings.log.level, settings.run_dir / "log" / "web.log")
    if not settings.predict.show_values:
        logs.hide_texts_of_warnings()
    counters = metrics.make() if registry is None else registry.metrics
    if registry is None:
        loading = make_offload(THREADS)
        preflights = PreflightCoordinator(
            settings.run_dir / PREFLIGHT_FOLDER,
            loading,
            settings.run_dir / SHARED_STORE_FOLDER,
            partial(known, settings),
            settings.run_dir / CHECKED_ARTIFACTS_FOLDER,
            settings.server.workers,
        )
        registry = Registry(settings, counters, loading, preflights)
    app = FastDispatchFlask(__name__, static_folder=None, prefix=settings.server.path_prefix)
    app.config["MAX_CONTENT_LENGTH"] = settings.server.max_body_bytes
    threads = settings.server.predict_threads
    request_metrics, tracing = _recording(settings, counters)
    registry.traffic.replays.is_busy = request_metrics.is_busy
    app.extensions[EXTENSION_KEY] = Extensions(
        settings,
        registry,
        counters,
        make_offload(threads),
        make_offload(threads),
        request_metrics,
        BytesInHand(settings.server.max_bytes_in_hand),
        guard.Guard(settings),
        AnswerFiles(settings.run_dir),
        AuditLog(settings.run_dir, settings.log.max_bytes),
        new_trace=tracing.begin if tracing else RequestTrace,
        tracing=tracing,
    )
    request_lifecycle.install(app)
    large_answers.install(app)  # before the request is recorded: hooks run in the reverse order
    guard.install(app)
    error_replies.install(app)
    for blueprint in BLUEPRINTS:
        if blueprint.name not in ACCESS_BY_BLUEPRINT:
            raise RuntimeError(
                f"blueprint '{blueprint.name}' declares no access. Call tableside.web.auth.allow for it in its package"
            )
        app.register_blueprint(blueprint)
    app.register_fast(FAST_ENDPOINTS)
    if tracing:
        tracing.route_of = route_names(app)
    return app


def _recording(settings: Settings, counters: Metrics) -> tuple[RequestMetrics, Tracing | None]:
    """Make what counts and logs requests, and what traces them. Without traces nothing of these is imported."""
    later, soon, log_one_in = make_call_later(), make_call_later(0.0), settings.log.access_one_in
    if not settings.tracing.endpoint:
        return RequestMetrics(counters, later, soon, log_one_in), None
    from tableside.telemetry.tracing import TracedRequestMetrics, Tracing

    tracing = Tracing(settings, counters)
    return TracedRequestMetrics(counters, later, soon, log_one_in, tracing), tracing
