"""`/v2/repository/`: list all versions, and load or unload a model in every worker.

Load and unload answer 200 when every living worker serves the new state, so that the next request on any connection
meets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from flask import Blueprint, Response, request

from tableside.blueprints.repository.schemas import ChangeRequest, IndexRequest
from tableside.errors import ContractBroken, ModelNotFound, ModelNotReady, RequestRejected
from tableside.preflight.results import PREFLIGHT_FOLDER, forget_failures
from tableside.process import worker_slots
from tableside.repository import model_toml, paths, version_record
from tableside.repository.model_toml import ModelConfig
from tableside.serving import changes
from tableside.serving.lifecycle import State
from tableside.serving.version_status import VersionStatus, all_versions, read_statuses, status_of_servable
from tableside.switch_errors import SwitchRefused
from tableside.web import audit, response
from tableside.web.auth import Access, allow
from tableside.web.extensions import registry, settings
from tableside.web.request import parse_json, read_body

T = TypeVar("T")

blueprint = Blueprint("repository", __name__, url_prefix="/v2/repository")
allow(blueprint, Access.ADMIN)


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
    version_record.note(root, name)
    forget_failures(settings().run_dir / PREFLIGHT_FOLDER, name)
    wanted = _config(root, name).wanted(paths.versions(root, name))
    if not wanted:
        raise RequestRejected(
            f"model {name!r}: `versions` in {name}/{paths.MODEL_TOML} leaves out every published version. Add one of "
            f"{', '.join(map(str, paths.versions(root, name)))}"
        )
    _apply(name, True, [(name, wanted[-1])])
    return response.json_response({"name": name, "load": True})


@blueprint.post("/models/<name>/unload")
def unload(name: str) -> Response:
    """Stop serving the model, in workers that start later too, until it is loaded again."""
    _body(ChangeRequest)
    _root_with(name)
    with audit.recorded("unload", name):
        _apply(name, False)
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


def _config(root: Path, name: str) -> ModelConfig:
    try:
        return model_toml.read(root, name)
    except ContractBroken as problem:
        raise RequestRejected(str(problem)) from problem


def _apply(name: str, enabled: bool, targets: Sequence[tuple[str, int]] = ()) -> None:
    """Turn a model on or off in all workers.

    Raises RequestRejected with the reason when its newest version cannot be served, and ModelNotReady when the
    repository or the run folder cannot be written, or a worker does not answer; nothing is changed then.
    """
    what = f"{'load' if enabled else 'unload'} of {name}"
    try:
        edit = partial(changes.set_enabled, settings(), name, enabled)
        outcome = changes.apply(settings(), name, edit, what, targets, force=enabled).outcome
    except ContractBroken as problem:
        raise RequestRejected(str(problem)) from problem
    except SwitchRefused as problem:
        raise RequestRejected(str(problem)) if targets else ModelNotReady(str(problem)) from problem
    except OSError as problem:
        raise ModelNotReady(
            f"cannot write {name}/{paths.MODEL_TOML}: {problem.strerror}. Make room on the disk, or give the server's "
            "user write access to the model's folder"
        ) from problem
    if not outcome.workers:
        raise ModelNotReady(f"no worker is running to serve generation {outcome.generation}")
