"""`/v2/repository/`: what there is, and loading and unloading a model in every worker at once.

200 is sent when every living worker serves the new state; whoever asks on a new connection afterwards meets no old one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from flask import Blueprint, Response, request

from tableside.blueprints.repository.schemas import ChangeRequest, IndexRequest
from tableside.errors import ContractBroken, ModelNotFound, ModelNotReady, RequestRejected
from tableside.preflight.results import PREFLIGHT_FOLDER, forget_failures
from tableside.process import worker_slots
from tableside.repository import model_toml, paths
from tableside.serving import generations
from tableside.serving.lifecycle import State
from tableside.serving.registry import wait_for_generation
from tableside.serving.version_status import VersionStatus, all_versions, read_statuses, status_of_servable
from tableside.telemetry import logs
from tableside.web import response
from tableside.web.auth import Access, allow
from tableside.web.extensions import registry, settings
from tableside.web.request import parse_json, read_body

MARGIN_S = 30.0
"""What a change may take beyond one version's `repository.load_timeout_s`."""
T = TypeVar("T")

blueprint = Blueprint("repository", __name__, url_prefix="/v2/repository")
allow(blueprint, Access.ADMIN)
log = logs.get_logger("repository")


@blueprint.post("/index")
def index() -> Response:
    """Every version of every model: READY when it is so in every worker, else its state and the reason."""
    asked = _body(IndexRequest)
    statuses = worker_slots.statuses(settings().run_dir / "worker_slots")
    entries = read_statuses(statuses) or [status_of_servable(servable) for servable in registry().catalog]
    found = all_versions(settings().repository_path, entries)
    return response.json_response([_shown(each) for each in found if each.state is State.READY or not asked.ready])


def _shown(entry: VersionStatus) -> dict[str, str]:
    return {
        "name": entry.name, "version": str(entry.version), "state": entry.state.value, "reason": entry.reason,
    }  # fmt: skip


@blueprint.post("/models/<name>/load")
def load(name: str) -> Response:
    """Serve the model, and try again what failed of it. 400 and the reason when its newest version cannot be served."""
    for key in _body(ChangeRequest).parameters or {}:
        if key == "config" or key.startswith("file:"):
            raise RequestRejected(f"parameters.{key[:40]}: not taken here; publish a version, then load the model")
    root = _known(name)
    _enable(root, name, True)
    forget_failures(settings().run_dir / PREFLIGHT_FOLDER, name)
    statuses = _reload_workers(f"load of {name}")
    wanted = model_toml.read(root, name).wanted(paths.versions(root, name))
    if not wanted:
        raise RequestRejected(f"model {name!r}: `versions` in its model.toml leaves out every published version")
    entries = [entry for entry in read_statuses(statuses) if (entry.name, entry.version) == (name, wanted[-1])]
    against = [entry for entry in entries if not (entry.state is State.READY and entry.current)]
    if against:
        raise RequestRejected(f"model {name}/{wanted[-1]} is {against[0].state}: {against[0].reason}")
    if len(entries) < len(statuses):
        raise ModelNotReady(f"not every worker serves {name}/{wanted[-1]}; ask the index again")
    return response.json_response({"name": name, "load": True})


@blueprint.post("/models/<name>/unload")
def unload(name: str) -> Response:
    """Stop serving the model, also in workers that are born later, until it is loaded again."""
    _body(ChangeRequest)
    _enable(_known(name), name, False)
    _reload_workers(f"unload of {name}")
    return response.json_response({"name": name, "unload": True})


def _body(kind: type[T]) -> T:
    content = read_body(request.environ, settings().server).content()
    return parse_json(content if content.strip() else b"{}", kind)


def _known(name: str) -> Path:
    root = settings().repository_path
    if not paths.versions(root, name):
        raise ModelNotFound(f"no model {name[:100]!r}; there is {', '.join(paths.models(root)[:20]) or 'none'}")
    return root


def _enable(root: Path, name: str, enabled: bool) -> None:
    try:
        model_toml.set_enabled(root, name, enabled)
    except ContractBroken as problem:
        raise RequestRejected(str(problem)) from problem
    except OSError as problem:
        raise ModelNotReady(f"{name}/{paths.MODEL_TOML} cannot be written: {problem.strerror}") from problem


def _reload_workers(why: str) -> list[dict[str, Any]]:
    """Have every worker read the repository; what each says then. Raises ModelNotReady naming those that are late."""
    run_dir, timeout_s = settings().run_dir, settings().repository.load_timeout_s + MARGIN_S
    generation = generations.publish(run_dir / "generations", why)
    log.info("change", why=why, generation=generation)
    done, found = wait_for_generation(run_dir, generation, timeout_s)
    failed = next((str(each["failure"]) for each in found if each.get("failure")), "")
    if failed:
        raise ModelNotReady(f"the repository cannot be read: {failed}")
    if not done:
        late = [str(each.get("pid")) for each in found if _generation(each) < generation]
        who = f"workers {', '.join(late)} do" if late else "no worker is there to"
        raise ModelNotReady(f"{who} not serve generation {generation} after {timeout_s:g} s; ask the index again")
    return found


def _generation(status: dict[str, object]) -> int:
    number = status.get("generation")
    return number if isinstance(number, int) else -1
