"""`/v2/repository/`: list all versions, and load or unload a model in every worker.

Load and unload answer 200 when every living worker serves the new state, so that the next request on any connection
meets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from flask import Blueprint, Response, request

from tableside.blueprints.repository.schemas import ChangeRequest, IndexRequest
from tableside.errors import ContractBroken, ModelNotFound, ModelNotReady, RequestRejected
from tableside.preflight.results import PREFLIGHT_FOLDER, forget_failures
from tableside.process import worker_slots
from tableside.repository import model_toml, model_toml_edits, paths, version_record
from tableside.serving import generations
from tableside.serving.generations import wait_for_generation
from tableside.serving.lifecycle import State
from tableside.serving.version_status import VersionStatus, all_versions, read_statuses, status_of_servable
from tableside.telemetry import logs
from tableside.web import audit, response
from tableside.web.auth import Access, allow
from tableside.web.extensions import registry, settings
from tableside.web.request import parse_json, read_body

MARGIN_S = 30.0
"""How long a change may take beyond `repository.load_timeout_s`, which limits the load of one version."""
T = TypeVar("T")
WorkerStatus = dict[str, object]

blueprint = Blueprint("repository", __name__, url_prefix="/v2/repository")
allow(blueprint, Access.ADMIN)
log = logs.get_logger("repository")


@blueprint.post("/index")
def index() -> Response:
    """Every version of every model: READY when it is READY in all workers, otherwise its state and the reason."""
    body = _body(IndexRequest)
    statuses = worker_slots.statuses(settings().run_dir / "worker_slots")
    entries = read_statuses(statuses) or [status_of_servable(servable) for servable in registry().catalog]
    versions = all_versions(settings().repository_path, entries)
    return response.json_response(
        [_index_entry(version) for version in versions if version.state is State.READY or not body.ready]
    )


def _index_entry(entry: VersionStatus) -> dict[str, str]:
    return {
        "name": entry.name, "version": str(entry.version), "state": entry.state.value, "reason": entry.reason,
    }  # fmt: skip


@blueprint.post("/models/<name>/load")
def load(name: str) -> Response:
    """Serve the model, and retry versions that failed. Answers 400 with the reason when its newest version fails."""
    for key in _body(ChangeRequest).parameters or {}:
        if key == "config" or key.startswith("file:"):
            raise RequestRejected(
                f"parameters.{key[:40]} is not supported. Publish a version with `tableside publish`, then load the "
                "model without this parameter"
            )
    root = _root_with(name)
    with audit.recorded("load", name):
        return _load(root, name)


def _load(root: Path, name: str) -> Response:
    _set_enabled(root, name, True)
    version_record.note(root, name)
    forget_failures(settings().run_dir / PREFLIGHT_FOLDER, name)
    statuses = _reload_workers(f"load of {name}")
    wanted = model_toml.read(root, name).wanted(paths.versions(root, name))
    if not wanted:
        raise RequestRejected(
            f"model {name!r}: `versions` in {name}/{paths.MODEL_TOML} leaves out every published version. Add one of "
            f"{', '.join(map(str, paths.versions(root, name)))}"
        )
    _require_ready(name, wanted[-1], statuses)
    return response.json_response({"name": name, "load": True})


def _require_ready(name: str, version: int, statuses: Sequence[WorkerStatus]) -> None:
    entries = [entry for entry in read_statuses(statuses) if (entry.name, entry.version) == (name, version)]
    for entry in entries:
        if entry.state is not State.READY or not entry.current:
            raise RequestRejected(f"model {name}/{version} is {entry.state}: {entry.reason}")
    if len(entries) < len(statuses):
        missing = len(statuses) - len(entries)
        raise ModelNotReady(
            f"{missing} of {len(statuses)} workers do not serve {name}/{version} yet; POST /v2/repository/index shows "
            "its state"
        )


@blueprint.post("/models/<name>/unload")
def unload(name: str) -> Response:
    """Stop serving the model, in workers that start later too, until it is loaded again."""
    _body(ChangeRequest)
    root = _root_with(name)
    with audit.recorded("unload", name):
        _set_enabled(root, name, False)
        _reload_workers(f"unload of {name}")
    return response.json_response({"name": name, "unload": True})


def _body(kind: type[T]) -> T:
    content = read_body(request.environ, settings().server).content()
    return parse_json(content if content.strip() else b"{}", kind)


def _root_with(name: str) -> Path:
    """The repository folder. Raises ModelNotFound when it has no published version of that model."""
    root = settings().repository_path
    if not paths.versions(root, name):
        raise ModelNotFound(f"no model {name[:100]!r}; there is {', '.join(paths.models(root)[:20]) or 'none'}")
    return root


def _set_enabled(root: Path, name: str, enabled: bool) -> None:
    try:
        model_toml_edits.set_enabled(root, name, enabled)
    except ContractBroken as problem:
        raise RequestRejected(str(problem)) from problem
    except OSError as problem:
        raise ModelNotReady(
            f"cannot write {name}/{paths.MODEL_TOML}: {problem.strerror}. Make room on the disk, or give the server's "
            "user write access to the model's folder"
        ) from problem


def _reload_workers(reason: str) -> list[WorkerStatus]:
    """Make every worker read the repository. Returns the status of each worker.

    Raises ModelNotReady when the repository cannot be read, or when workers do not serve the new generation in time.
    """
    run_dir, timeout_s = settings().run_dir, settings().repository.load_timeout_s + MARGIN_S
    generation = generations.announce(run_dir / "generations", reason)
    log.info("repository_change", reason=reason, generation=generation)
    done, statuses = wait_for_generation(run_dir, generation, timeout_s)
    for status in statuses:
        if status.get("failure"):
            raise ModelNotReady(f"a worker cannot read the repository: {status['failure']}")
    if not done:
        late = [str(status.get("pid")) for status in statuses if _generation(status) < generation]
        workers = f"workers {', '.join(late)} (PIDs) do not serve" if late else "no worker is running to serve"
        raise ModelNotReady(
            f"{workers} generation {generation} after {timeout_s:g} s; POST /v2/repository/index shows each version's "
            "state"
        )
    return statuses


def _generation(status: WorkerStatus) -> int:
    number = status.get("generation")
    return number if isinstance(number, int) else -1
