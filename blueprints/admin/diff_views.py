"""`GET /admin/api/models/NAME/diff`: what changes from one version to another."""

from __future__ import annotations

import os

import msgspec
from flask import Blueprint, Response, request

from tableside.blueprints.admin.changes import require_published
from tableside.comparison import process, report
from tableside.comparison.child import ComparisonJob
from tableside.control_errors import Conflict
from tableside.errors import ContractBroken, RequestRejected
from tableside.model_process.known_environments import known
from tableside.repository import integrity, live_versions, model_toml, paths
from tableside.web import response
from tableside.web.extensions import settings

ASKING_S = 60.0
"""How long the versions may take for the golden rows, once both are loaded."""


def mount(blueprint: Blueprint) -> None:
    """Add the route."""
    blueprint.add_url_rule("/models/<name>/diff", "diff", diff)


def diff(name: str) -> Response:
    """Compare two versions, `old` and `new`: what changes for clients.

    With `answers=true` also their answers to the golden rows, which are computed in a process of their own.
    """
    root, policy = settings().repository_path, settings().repository
    require_published(name)
    wanted = [request.args.get(side, "") for side in ("old", "new")]
    if not all(wanted):
        raise RequestRejected("say which versions: old=1&new=2, each a number or an alias")
    try:
        aliases = model_toml.read(root, name).aliases
        old, new = (paths.find(root, f"{name}/{spec}", aliases) for spec in wanted)
        first, second = (integrity.read_contract(root, name, version) for version in (old, new))
        found = report.compare_contracts(first, second, live_versions.config_of(root, name).columns)
    except ContractBroken as problem:
        raise Conflict(str(problem)) from problem
    if request.args.get("answers") == "true":
        job = ComparisonJob(str(root), (name, old), (name, new), policy, os.getpid(), "", dict(known(settings())))
        found = msgspec.structs.replace(found, answers=process.compare(job, 2 * policy.load_timeout_s + ASKING_S))
    return response.json_response(msgspec.to_builtins(found))
