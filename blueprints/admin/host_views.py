"""`/admin/api/`: this host: drain and resume, the settings in force, and the audit log."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec
from flask import Blueprint, Response

from tableside import setting_origins
from tableside.blueprints.admin.operation_views import whole_number
from tableside.disk_errors import DiskFull
from tableside.process import drained
from tableside.process.offload import run_native
from tableside.web import audit, response
from tableside.web.extensions import extensions, settings

MOST_LINES = 10_000
"""Most lines of the audit log in one answer."""


def mount(blueprint: Blueprint) -> None:
    """Add the routes."""
    blueprint.add_url_rule("/drain", "drain", drain, methods=["POST"])
    blueprint.add_url_rule("/resume", "resume", resume, methods=["POST"])
    blueprint.add_url_rule("/settings", "settings", show_settings)
    blueprint.add_url_rule("/audit", "audit", show_audit)


def drain() -> Response:
    """Take this host out of the traffic: readiness answers 503 until `resume`, and requests are still answered."""
    return _set_drained("drain", partial(drained.drain, settings().run_dir))


def resume() -> Response:
    """Put this host back into the traffic: readiness answers as before."""
    return _set_drained("resume", partial(drained.resume, settings().run_dir))


def _set_drained(action: str, work: Callable[[], object]) -> Response:
    run_dir = settings().run_dir
    before = drained.is_drained(run_dir)
    with audit.recorded(action, before=_word(before), after=_word(action == "drain")):
        try:
            run_native(work)
        except OSError as problem:
            raise DiskFull("the mark of a drained host", 1) from problem
    return response.json_response({"drained": action == "drain", "was_drained": before})


def _word(is_drained: bool) -> str:
    return "drained" if is_drained else "in traffic"


def show_settings() -> Response:
    """Every setting in force with its origin: `default`, `file` or `variable`. Paths of files with keys are hidden."""
    shown = run_native(partial(setting_origins.effective, settings()))
    return response.json_response({"settings": [msgspec.to_builtins(each) for each in shown]})


def show_audit() -> Response:
    """The newest lines of the audit log, the newest last; `limit` says how many."""
    most = whole_number("limit", 100, MOST_LINES)
    return response.json_response({"lines": extensions().audit_log.newest(most)})
