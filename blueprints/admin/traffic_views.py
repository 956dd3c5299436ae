"""`/admin/api/models/NAME/traffic` and `/shadow`: how the traffic of a model is divided, and what was counted."""

from __future__ import annotations

import msgspec
from flask import Blueprint, Response

from tableside.errors import ModelNotFound
from tableside.repository.model_toml import ModelConfig
from tableside.serving import traffic_report
from tableside.serving.catalog import Model
from tableside.serving.traffic_report import TrafficReport
from tableside.web import response
from tableside.web.extensions import catalog, settings


def traffic(name: str) -> Response:
    """The canary and the shadow of a model, with the counts of all workers of this host, and the judgements."""
    return response.json_response(msgspec.to_builtins(_report(catalog().model(name))))


def shadow(name: str) -> Response:
    """The shadow of a model, with its counts and the judgement. Raises ModelNotFound if it has none."""
    report = _report(catalog().model(name))
    if report.shadow is None:
        raise ModelNotFound(f"model {name!r} has no shadow; begin one with `tableside shadow {name}/N --percent 20`")
    found = next(each for each in report.judgements if each.version == report.shadow.version)
    content: dict[str, object] = msgspec.to_builtins(report.shadow)
    return response.json_response({"name": name, **content, "judgement": found.text, "ready": found.is_ready})


def describe(model: Model) -> dict[str, object]:
    """Return what the list of models says of a model's traffic: nothing for one that is not divided."""
    found = _report(model)
    if not found.judgements and found.rolled_back is None:
        return {}
    tried = {version: found.of_version(version) for version in (each.version for each in model.servables)}
    return {"traffic": {str(version): text for version, text in tried.items() if text}}


def _report(model: Model) -> TrafficReport:
    return traffic_report.report(settings().run_dir, model.name, model.config or ModelConfig())


def mount(blueprint: Blueprint) -> None:
    """Add the routes of traffic to the blueprint."""
    blueprint.add_url_rule("/models/<name>/traffic", view_func=traffic, endpoint="traffic")
    blueprint.add_url_rule("/models/<name>/shadow", view_func=shadow, endpoint="shadow")
