"""The operator API under `/admin/api/`: what is served, by whom, and reading the repository anew."""

from __future__ import annotations

from flask import Blueprint, Response

from tableside import __version__
from tableside.preflight.results import PREFLIGHT_FOLDER, forget_failures
from tableside.process import worker_slots
from tableside.serving import generations
from tableside.serving.registry import wait_for_generation
from tableside.telemetry import logs
from tableside.web import response
from tableside.web.auth import Access, allow
from tableside.web.extensions import catalog, settings

RELOAD_TIMEOUT_S = 60.0

blueprint = Blueprint("admin", __name__, url_prefix="/admin/api")
allow(blueprint, Access.ADMIN)
log = logs.get_logger("admin")


@blueprint.get("/models")
def models() -> Response:
    """Every model with its versions, their state and reason, as this worker serves them."""
    serving = catalog()
    found = [
        {
            "name": model.name,
            "aliases": dict(model.aliases),
            "reason": model.reason,
            "versions": [
                {
                    "version": servable.version,
                    "state": servable.state.value,
                    "reason": servable.reason,
                    "load_s": round(servable.load_s, 4),
                    "estimator": servable.contract.estimator if servable.contract else "",
                    "sha256": servable.contract.artifact.sha256 if servable.contract else "",
                }
                for servable in model.servables
            ],
        }
        for _, model in sorted(serving.models.items())
    ]
    return response.json_response({"generation": serving.generation, "models": found})


@blueprint.get("/workers")
def workers() -> Response:
    """Every living worker of this host, as it last described itself."""
    return response.json_response(
        {"version": __version__, "workers": worker_slots.statuses(settings().run_dir / "worker_slots")}
    )


@blueprint.post("/reload")
def reload() -> Response:
    """Every worker reads the repository anew. 200 when all have; 202, naming who has not, after a minute."""
    run_dir = settings().run_dir
    forget_failures(run_dir / PREFLIGHT_FOLDER)
    generation = generations.publish(run_dir / "generations", "reload asked for through the admin API")
    log.info("reload", generation=generation)
    done, found = wait_for_generation(run_dir, generation, RELOAD_TIMEOUT_S)
    late = [worker for worker in found if worker.get("generation") != generation]
    return response.json_response(
        {"generation": generation, "complete": done, "workers": found, "late": late}, 200 if done else 202
    )
