"""The walk of the URL map: every rule and method, the planes that answer it, and the scope of key that it needs."""

from __future__ import annotations

from pathlib import Path

from flask import Flask

from tableside import settings
from tableside.factory import create_app
from tableside.process.offload import make_offload
from tableside.serving.registry import Registry
from tableside.serving.reloading import THREADS
from tableside.telemetry import metrics
from tableside.web.auth import Access, access_of

_BOTH = (Access.OPEN, Access.PREDICT)


def application(folder: Path) -> Flask:
    """Return an application without models, whose URL map is the same."""
    environ = {"TABLESIDE__SERVER__RUN_DIR": str(folder / "run"), "TABLESIDE__REPOSITORY__PATH": str(folder)}
    chosen = settings.load(environ)
    return create_app(chosen, Registry(chosen, metrics.make(), make_offload(THREADS), None, None))


def walk(app: Flask) -> list[tuple[str, str, str, str]]:
    """Return (rule, methods, planes, scope) for each rule, in order of the scopes."""
    found = []
    for rule in app.url_map.iter_rules():
        access = access_of(rule.endpoint)
        methods = " ".join(sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}))
        found.append((rule.rule, methods, "data, control" if access in _BOTH else "control", access.value))
    order = [access.value for access in Access]
    return sorted(found, key=lambda row: (order.index(row[3]), row[0], row[1]))


def table(found: list[tuple[str, str, str, str]]) -> str:
    """Return the walk as a Markdown table."""
    lines = ["| rule | methods | plane | scope |", "|---|---|---|---|"]
    lines += [f"| `{rule}` | {methods} | {planes} | {scope} |" for rule, methods, planes, scope in found]
    return "\n".join(lines)
