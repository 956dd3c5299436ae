"""`/admin/api/`: list models and workers, and make every worker read the repository again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

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
from tableside.process import host_overview, worker_overview, worker_slots
from tableside.process.hand_file import Pulse
from tableside.process.in_thread import InThread
from tableside.process.offload import run_native
from tableside.serving import switching
from tableside.serving.catalog import Model
from tableside.serving.generations import FOLDER, newest
from tableside.serving.servable import Servable
from tableside.telemetry import metrics, slot_counts
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

    `models=false` leaves out what it serves. `host` is the machine and the stack.
    """
    with_models = request.args.get("models") != "false"
    found, host = run_native(partial(_workers, settings().run_dir, extensions().hand.pulses(), with_models))
    return response.json_response({"version": __version__, "workers": found, "host": host})


def _workers(
    run_dir: Path, pulses: Mapping[int, Pulse], with_models: bool
) -> tuple[list[dict[str, object]], dict[str, object]]:
    found = worker_overview.rows(worker_slots.statuses(run_dir / "worker_slots"), pulses, datetime.now(UTC))
    files = metrics.folder()
    for each in found:
        slot = each.get("worker_slot")
        counts = slot_counts.of_slot(files, slot) if files is not None and isinstance(slot, int) else None
        each |= dict(zip(slot_counts.SlotCounts._fields, counts or (None,) * 3, strict=True))
        if not with_models:
            each.pop("models", None)
            each.pop("aliases", None)
    return found, host_overview.host(run_dir)


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
