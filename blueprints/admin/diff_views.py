"""`GET /admin/api/models/NAME/diff`: what changes from one version to another."""

from __future__ import annotations

import os
import secrets

import msgspec
from flask import Blueprint, Response, request

from tableside.blueprints.admin.changes import require_published
from tableside.comparison import process, report
from tableside.comparison.child import ComparisonJob
from tableside.control_errors import Conflict
from tableside.errors import ContractBroken, RequestRejected, UnsupportedBody
from tableside.model_process.known_environments import known
from tableside.repository import integrity, live_versions, model_toml, paths
from tableside.web import response
from tableside.web.extensions import settings
from tableside.web.upload_body import receive

FOLDER = "uploads"
"""Folder of the bodies, in the run folder."""
SUFFIXES = {
    "text/csv": ".csv", "application/vnd.apache.parquet": ".parquet", "application/jsonlines": ".jsonl",
    "application/x-ndjson": ".jsonl",
}  # fmt: skip
"""The media types of rows, and the names of their files."""

ASKING_S = 60.0
"""How long the versions may take for the golden rows, once both are loaded."""


def mount(blueprint: Blueprint) -> None:
    """Add the routes."""
    blueprint.add_url_rule("/models/<name>/diff", "diff", diff)
    blueprint.add_url_rule("/models/<name>/diff", "diff_rows", diff_rows, methods=["POST"])


def diff(name: str) -> Response:
    """Compare two versions, `old` and `new`: what changes for clients.

    With `answers=true` also their answers to the golden rows, which are computed in a process of their own.
    """
    return _compared(name, "" if request.args.get("answers") == "true" else None)


def diff_rows(name: str) -> Response:
    """Compare two versions, `old` and `new`, by their answers to the rows in the body.

    The body is CSV with a line of headings, Parquet or JSON lines, as Content-Type says.
    """
    kind = request.mimetype
    if kind not in SUFFIXES:
        raise UnsupportedBody(f"send the rows as {', '.join(SUFFIXES)}, and say which in Content-Type")
    require_published(name)
    rows = settings().run_dir / FOLDER / f"{secrets.token_hex(16)}{SUFFIXES[kind]}"
    receive(request.environ, rows, "server.max_body_bytes", settings().server.max_body_bytes)
    try:
        return _compared(name, str(rows))
    finally:
        rows.unlink(missing_ok=True)


def _compared(name: str, rows: str | None) -> Response:
    """Compare the contracts, and the answers unless `rows` is None: to the rows of that file, or to the golden rows."""
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
    if rows is not None:
        job = ComparisonJob(str(root), (name, old), (name, new), policy, os.getpid(), rows, dict(known(settings())))
        found = msgspec.structs.replace(found, answers=process.compare(job, 2 * policy.load_timeout_s + ASKING_S))
    return response.json_response(msgspec.to_builtins(found))
