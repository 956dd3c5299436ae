"""`POST /admin/api/models/NAME/...`: what decides which versions are served, and which answers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from flask import Blueprint, Response

from tableside.blueprints.admin import schemas
from tableside.blueprints.admin.changes import Plan, body, make, require_model, version_of
from tableside.control_errors import Conflict
from tableside.errors import ModelNotFound, ModelNotReady, RequestRejected
from tableside.preflight.results import PREFLIGHT_FOLDER, forget_failures
from tableside.repository import paths, release_edits, traffic_edits, version_record
from tableside.repository.model_toml import ModelConfig
from tableside.repository.paths import DEFAULT
from tableside.repository.release_edits import Change
from tableside.repository.traffic_config import CanaryConfig, ShadowConfig
from tableside.serving import changes, traffic_report
from tableside.web.extensions import catalog, settings

ACTIONS = ("promote", "rollback", "alias", "retire", "delete", "load", "unload")


def mount(blueprint: Blueprint) -> None:
    """Add the routes."""
    views = (promote, rollback, alias, retire, delete, load, unload)
    for action, view in zip(ACTIONS, views, strict=True):
        blueprint.add_url_rule(f"/models/<name>/{action}", action, view, methods=["POST"])
    blueprint.add_url_rule("/models/<name>/traffic", "set_traffic", set_traffic, methods=["POST"])
    blueprint.add_url_rule("/models/<name>/shadow", "set_shadow", set_shadow, methods=["POST"])


def promote(name: str) -> Response:
    """Make a version answer the requests that name none: the alias `default` is pointed at it."""
    asked, config = body(schemas.Promote), require_model(name)
    version = version_of(name, config, asked.version)
    if asked.if_ready:
        _require_ready(name, version, config)
    return make("promote", name, _move(name, config, DEFAULT, version, asked.breaking))


def rollback(name: str) -> Response:
    """Point `default` back at the version that it named before. That one is loaded, so it answers at once."""
    body(schemas.Nothing)
    require_model(name)
    root = _root()
    now, former = release_edits.former_default(root, name)
    plan = Plan(
        partial(release_edits.roll_back, root, name, former), [(name, former)],
        before=f"{DEFAULT} = {now}", result=f"{DEFAULT} = {former}",
    )  # fmt: skip
    return make("rollback", name, plan)


def alias(name: str) -> Response:
    """Point an alias at a version, or remove it: version null."""
    asked, config = body(schemas.Alias), require_model(name)
    if asked.version is None:
        before = config.aliases.get(asked.alias)
        edit = partial(release_edits.remove_alias, _root(), name, asked.alias, breaking=asked.breaking)
        return make("alias", name, Plan(edit, before=f"{asked.alias} = {before}", result=f"{asked.alias} removed"))
    return make(
        "alias", name, _move(name, config, asked.alias, version_of(name, config, asked.version), asked.breaking)
    )


def _move(name: str, config: ModelConfig, alias_name: str, version: int, breaking: bool) -> Plan:
    before = config.aliases.get(alias_name)
    edit = partial(release_edits.move_alias, _root(), name, alias_name, version, _answering(name), breaking=breaking)
    return Plan(
        edit, [(name, version)],
        before=f"{alias_name} = {before}" if before is not None else f"no {alias_name}",
        result=f"{alias_name} = {version}",
    )  # fmt: skip


def retire(name: str) -> Response:
    """Do not serve a version any more, and keep its files; `undo` serves it again."""
    asked, config = body(schemas.Retire), require_model(name)
    version = version_of(name, config, asked.version)
    if not asked.undo:
        _refuse_in_use(name, version, config, "retire")
    edit = partial(release_edits.retire, _root(), name, version, undo=asked.undo, breaking=asked.breaking)
    words = ("retired", "served") if asked.undo else ("served", "retired")
    plan = Plan(
        edit, [(name, version)] if asked.undo else [], before=f"{version} {words[0]}", result=f"{version} {words[1]}"
    )
    return make("retire", name, plan)


def delete(name: str) -> Response:
    """Delete a version with its files. Its number is never used again."""
    asked, config = body(schemas.Delete), require_model(name)
    version = version_of(name, config, asked.version)
    if paths.versions(_root(), name) != [version]:
        _refuse_in_use(name, version, config, "delete")

    def remove(made: object) -> None:
        assert isinstance(made, Path)
        release_edits.remove_folders([made])

    edit = partial(release_edits.delete, _root(), name, version)
    return make("delete", name, Plan(edit, before=f"{version} published", result=f"{version} deleted", after=remove))


def load(name: str) -> Response:
    """Serve the model, and try again what failed of it."""
    body(schemas.Nothing)
    config = require_model(name)
    version_record.note(_root(), name)
    forget_failures(settings().run_dir / PREFLIGHT_FOLDER, name)
    wanted = config.wanted(paths.versions(_root(), name))
    if not wanted:
        raise Conflict(f"`versions` in {name}/{paths.MODEL_TOML} leaves out every published version")
    return make("load", name, _enable(name, config, True, [(name, wanted[-1])]))


def unload(name: str) -> Response:
    """Stop serving the model until it is loaded again."""
    body(schemas.Nothing)
    return make("unload", name, _enable(name, require_model(name), False, []))


def _enable(name: str, config: ModelConfig, enabled: bool, targets: list[tuple[str, int]]) -> Plan:
    edit = partial(changes.set_enabled, settings(), name, enabled)
    return Plan(edit, targets, before=f"enabled = {config.enabled}".lower(), result=f"enabled = {enabled}".lower())


def set_traffic(name: str) -> Response:
    """Let a version answer a part of the requests that name none, change that part, or end it."""
    asked, config = body(schemas.Traffic), require_model(name)
    how = partial(traffic_edits.set_canary, sticky=asked.sticky, breaking=asked.breaking)
    say = 'say which version gets how much: {"version": 2, "percent": 5}, or {"stop": true}'
    return make("traffic", name, _trial(name, "canary", asked, config, how, say))


def set_shadow(name: str) -> Response:
    """Let a version compute a part of the answered requests once more, change that part, or end it."""
    asked, config = body(schemas.Shadow), require_model(name)
    how = partial(traffic_edits.set_shadow, cpu_share=asked.cpu_share)
    say = 'say which version and how many requests: {"version": 2, "percent": 20}'
    return make("shadow", name, _trial(name, "shadow", asked, config, how, say))


def _trial(
    name: str, kind: traffic_edits.Kind, asked: schemas.Traffic | schemas.Shadow, config: ModelConfig,
    how: Callable[..., Change], say: str,
) -> Plan:  # fmt: skip
    """Plan what begins, changes or ends a canary or a shadow. how: edits the file. say: what a request lacks."""
    now = config.canary if kind == "canary" else config.shadow
    before = f"{kind} {now.version} {now.percent:g} %" if now is not None else f"no {kind}"
    if asked.stop:
        return Plan(partial(traffic_edits.stop, _root(), name, kind), before=before, result=f"no {kind}")
    version = _tried(name, config, asked.version, now)
    percent = asked.percent if asked.percent is not None or now is None else now.percent
    if version is None or percent is None:
        raise RequestRejected(say)
    edit = partial(how, _root(), name, version, percent, now=_now())
    return Plan(edit, [(name, version)], before=before, result=f"{kind} {version} {percent:g} %")


def _tried(
    name: str, config: ModelConfig, spec: int | str | None, now: CanaryConfig | ShadowConfig | None
) -> int | None:
    """Return the version that the request names, else the one that is tried now."""
    if spec is not None:
        return version_of(name, config, spec)
    return now.version if now is not None else None


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _root() -> Path:
    return settings().repository_path


def _answering(name: str) -> int | None:
    """Return the version that answers without a version being named; None if none does."""
    try:
        return catalog().servable(name).version
    except (ModelNotFound, ModelNotReady):
        return None


def _refuse_in_use(name: str, version: int, config: ModelConfig, command: str) -> None:
    """Raise Conflict for a version that answers requests which name none, because no alias says another."""
    release_edits.check_unnamed(_root(), name, version, command)
    if config.enabled and DEFAULT not in config.aliases and _answering(name) == version:
        raise Conflict(
            f"{name}/{version} is what requests without a version get. Promote another one first; then {command} it"
        )


def _require_ready(name: str, version: int, config: ModelConfig) -> None:
    """Raise Conflict unless the rules of the model say that the version is ready to be promoted."""
    report = traffic_report.report(settings().run_dir, name, config)
    judged = [each for each in report.judgements if each.version == version]
    if not judged or not all(each.is_ready for each in judged):
        why = "; ".join(each.text for each in judged) or "it is no canary and no shadow, so nothing judges it"
        raise Conflict(f"{name}/{version} is not ready to promote: {why}. Nothing has changed")
