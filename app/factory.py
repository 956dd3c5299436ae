"""The composition root: the only module that imports everything."""

from __future__ import annotations

from flask import Flask

from app import logs, metrics
from app.concurrency.delayed import make_later
from app.concurrency.offload import make_offload
from app.repository.shelf import SHARED
from app.serving.registry import Registry
from app.serving.trials import Trials
from app.serving.verdicts import TRIALS
from app.settings import Settings, load
from app.web import problems, trace
from app.web.current import EXTENSION, Wiring
from app.web.express import ExpressFlask
from app.web.guard import DECLARED
from app.web.journal import Journal
from blueprints import FACES, FAST_ENDPOINTS


def create_app(settings: Settings | None = None, registry: Registry | None = None) -> Flask:
    """Wire one application. It serves nothing until its registry has been told to load (`registry.follow` or `reload`).

    Raises SettingsError for settings that cannot be read, RuntimeError for a face that does not say who may call it
    and for a hook that the fast dispatch of predictions would pass over.
    """
    settings = settings or load()
    logs.configure(settings.log.format, settings.log.level, settings.run_dir / "log" / "web.log")
    counters = metrics.make() if registry is None else registry.metrics
    if registry is None:
        loading = make_offload(1)
        trials = Trials(settings.run_dir / TRIALS, loading, settings.run_dir / SHARED)
        registry = Registry(settings, counters, loading, trials)
    app = ExpressFlask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.server.max_body_bytes
    threads = settings.server.predict_threads
    journal = Journal(counters, make_later())
    app.extensions[EXTENSION] = Wiring(
        settings, registry, counters, make_offload(threads), make_offload(threads), journal
    )
    trace.install(app)
    problems.install(app)
    for face in FACES:
        if face.name not in DECLARED:
            raise RuntimeError(f"face {face.name} does not say who may call it")
        app.register_blueprint(face)
    app.register_fast(FAST_ENDPOINTS)
    return app
