"""`/admin/api/`: list models and workers, and make every worker read the repository again."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from flask import Blueprint, Response, request

from tableside import __version__
from tableside.blueprints.admin import (
    diff_views,
    host_views,
    model_views,
    openapi,
    operation_views,
    release_views,
    traffic_views,
    uploads,
)
from tableside.preflight.results import PREFLIGHT_FOLDER, forget_failures
from tableside.process import worker_overview, worker_slots
from tableside.process.in_thread import InThread
from tableside.process.offload import run_native
from tableside.serving import switching
from tableside.serving.catalog import Model
from tableside.serving.generations import FOLDER, newest
from tableside.serving.servable import Servable
from tableside.web import audit, response
from tableside.web.auth import Access, allow
from tableside.web.extensions import catalog, extensions, settings

RELOAD_TIMEOUT_S = 60.0
"""How long a reload waits for all workers before it answers 202."""

blueprint = Blueprint("admin", __name__, url_prefix="/admin/api")
allow(blueprint, Access.ADMIN)
uploads.mount(blueprint)
operation_views.mount(blueprint)
traffic_views.mount(blueprint)
release_views.mount(blueprint)
diff_views.mount(blueprint)
openapi.mount(blueprint)
model_views.mount(blueprint)
host_views.mount(blueprint)


@blueprint.get("/models")
def models() -> Response:
    """Every model and its versions, with the state and the reasons over all workers. The ETag is the generation."""
    serving = catalog()
    found = [_describe_model(model) for _, model in sorted(serving.models.items())]
    model_views.add_states(found)
    return model_views.with_etag(response.json_response({"generation": model_views.generation(), "models": found}))


def _describe_model(model: Model) -> dict[str, object]:
    return {
        "name": model.name,
        "aliases": dict(model.aliases),
        "reason": model.reason,
        "versions": [_describe_version(servable) for servable in model.servables],
        **traffic_views.describe(model),
    }


def _describe_version(servable: Servable) -> dict[str, object]:
    contract = servable.contract
    return {
        "version": servable.version,
        "state": servable.state.value,
        "reason": servable.reason,
        "load_s": round(servable.load_s, 4),
        "estimator": contract.estimator if contract else "",
        "sha256": contract.artifact.sha256 if contract else "",
    }


@blueprint.get("/workers")
def workers() -> Response:
    """Every living worker of this host: its age, memory, requests in hand, lag of the event loop, and what it serves.

    `models=false` leaves out what it serves.
    """
    statuses = worker_slots.statuses(settings().run_dir / "worker_slots")
    found = run_native(partial(worker_overview.rows, statuses, extensions().hand.pulses(), datetime.now(UTC)))
    if request.args.get("models") == "false":
        found = [{name: value for name, value in each.items() if name not in ("models", "aliases")} for each in found]
    return response.json_response({"version": __version__, "workers": found})


@blueprint.post("/reload")
def reload() -> Response:
    """Make every worker read the repository again, and retry versions that failed.

    Answers 200 when all workers have, or 202 after a minute, with the workers that are still preparing in `late`.
    """
    with audit.recorded("reload"):
        return _reload()


def _reload() -> Response:
    run_dir = settings().run_dir
    forget_failures(run_dir / PREFLIGHT_FOLDER)
    work = InThread(partial(switching.switch, settings(), "reload through the admin API", retry=None, force=True))
    done = work.wait(RELOAD_TIMEOUT_S)
    statuses = worker_slots.statuses(run_dir / "worker_slots")
    if done:
        outcome = work.result()
        return response.json_response(
            {
                "generation": outcome.generation, "complete": True, "workers": statuses, "late": [],
                "changed": outcome.changed, "refused": {key: why.reason for key, why in outcome.refused.items()},
            }
        )  # fmt: skip
    number = newest(run_dir / FOLDER)
    late = [status for status in statuses if status.get("generation") != number]
    content = {"generation": number, "complete": False, "workers": statuses, "late": late}
    return response.json_response(content, 202)
