"""`POST /admin/api/models/NAME/versions`: publish a version, or an estimator with its sample, from another machine."""

from __future__ import annotations

import os
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path

import msgspec
from flask import Blueprint, Response, request

from tableside.blueprints.admin.changes import seen_generation
from tableside.blueprints.admin.model_views import generation
from tableside.blueprints.admin.operation_views import answer, wait_s
from tableside.control_errors import GenerationChanged
from tableside.disk_errors import DiskFull
from tableside.errors import PublishFailed, RequestRejected
from tableside.process import operations
from tableside.repository import paths
from tableside.uploads import start
from tableside.uploads.archive import SETTING
from tableside.uploads.child import UploadJob
from tableside.uploads.options import Options
from tableside.web import audit
from tableside.web.auth import KEY_NAME
from tableside.web.extensions import extensions, settings
from tableside.web.upload_body import receive

FOLDER = "uploads"
"""Folder of the bodies, in the run folder."""
STALE_S = 86400.0
"""A body that is older than this was left behind by a worker that was killed."""
_SHA256 = re.compile(r"[0-9a-fA-F]{64}\Z")


def mount(blueprint: Blueprint) -> None:
    """Add the route."""
    blueprint.add_url_rule("/models/<name>/versions", "publish", publish, methods=["POST"])


def publish(name: str) -> Response:
    """Publish the body as a version of the model: a tar file, plain or with gzip.

    It holds a whole version, or one skops file with `sample.csv` or `sample.parquet`. Answers 202 with an operation, or
    with `wait` what has become of it.
    """
    seconds, renumber, options = wait_s(), _renumber(), _options()
    _require_generation()
    digest = _digest()
    try:
        paths.check_name(name)
    except PublishFailed as problem:
        raise RequestRejected(str(problem)) from problem
    run_dir = settings().run_dir
    archive = run_dir / FOLDER / f"{secrets.token_hex(16)}.tar"
    _remove_stale(archive.parent)
    _, received = receive(request.environ, archive, SETTING, settings().server.max_upload_bytes)
    try:
        if digest not in ("", received):
            raise RequestRejected(
                f"the body arrived with the sha256 {received[:12]}..., and the request says {digest[:12]}...: send it "
                "again"
            )
        begun = _begin(name, archive, received, renumber, options)
    except BaseException:
        archive.unlink(missing_ok=True)
        raise
    return answer(begun, seconds)


def _begin(name: str, archive: Path, digest: str, renumber: bool, options: Options) -> str:
    """Record the act, and start its process. Return the id of the operation."""
    run_dir = settings().run_dir
    change = audit.begin("publish", name, upload_sha256=digest)
    try:
        running = operations.begin(run_dir, "publish", name, str(request.environ.get(KEY_NAME, "")))
        job = UploadJob(settings(), running.operation, 0, name, str(archive), renumber, options, change)
        start.start(job, running, extensions().predict_offload.spawn)
    except OSError as problem:
        audit.abandoned(change, problem)
        raise DiskFull("an operation", os.sysconf("SC_PAGE_SIZE")) from problem
    return running.operation.id


def _require_generation() -> None:
    """Raise GenerationChanged if If-Match names another generation than the one that is served."""
    seen = seen_generation()
    if seen is not None and seen != (now := generation()):
        raise GenerationChanged(str(seen), now)


def _renumber() -> bool:
    number = request.args.get("number", "keep")
    if number not in ("keep", "next"):
        raise RequestRejected(
            "number is `keep`, for the number that the version has, or `next`, for the model's next one"
        )
    return number == "next"


def _options() -> Options:
    """The parameters for an estimator with a sample, and `breaking`. Raises RequestRejected."""
    names = ("target", "runtime", "tolerance", "quick", "breaking")
    given: dict[str, object] = {name: request.args[name] for name in names if name in request.args}
    if "nullable" in request.args:
        given["nullable"] = [column.strip() for column in request.args["nullable"].split(",") if column.strip()]
    try:
        return msgspec.convert(given, Options, strict=False)
    except msgspec.ValidationError as problem:
        message, _, place = str(problem).partition(" - at ")
        raise RequestRejected(f"parameter {place.strip('`$.') or 'of the query'}: {message}") from problem


def _digest() -> str:
    digest = request.args.get("sha256", "").lower()
    if digest and not _SHA256.match(digest):
        raise RequestRejected("sha256 is 64 hexadecimal digits, as sha256sum prints them")
    return digest


def _remove_stale(folder: Path) -> None:
    for file in folder.glob("*.tar"):
        with suppress(OSError):
            if time.time() - file.stat().st_mtime > STALE_S:
                file.unlink()
