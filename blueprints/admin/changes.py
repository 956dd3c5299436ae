"""A change of one model through the admin API: recorded, then made in all workers or in none, as an operation."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import TypeVar

from flask import Response, request

from tableside.blueprints.admin.operation_views import answer, wait_s
from tableside.control_errors import Conflict
from tableside.disk_errors import DiskFull
from tableside.errors import ContractBroken, ModelNotFound, PublishFailed, RequestRejected, TablesideError
from tableside.process import operations
from tableside.process.audit_log import AuditLog, now
from tableside.process.operations import RunningOperation
from tableside.repository import model_toml, paths
from tableside.repository.model_toml import ModelConfig
from tableside.serving import changes
from tableside.switch_errors import SwitchRefused
from tableside.telemetry import logs
from tableside.web import audit, error_replies
from tableside.web.auth import KEY_NAME
from tableside.web.extensions import extensions, settings
from tableside.web.request import parse_json, read_body

Key = tuple[str, int]
Edit = Callable[[], object]
T = TypeVar("T")
log = logs.get_logger("admin")


class Plan:
    """What a change does. edit: changes the files. targets: versions that must be served afterwards.

    after: is called when every worker has switched. before, result: what was and what is then, for the audit log and
    for the answer.
    """

    def __init__(
        self, edit: Edit, targets: Collection[Key] = (), *, before: str = "", result: str = "",
        after: Callable[[object], None] = lambda made: None,
    ) -> None:  # fmt: skip
        self.edit, self.targets, self.before, self.result, self.after = edit, tuple(targets), before, result, after


def body(kind: type[T]) -> T:
    """Return the body of the request; an empty one counts as `{}`. Raises RequestRejected and others."""
    content = read_body(request.environ, settings().server).content()
    return parse_json(content if content.strip() else b"{}", kind)


def require_model(name: str) -> ModelConfig:
    """Return the model.toml of a model. Raises ModelNotFound, or Conflict for a file that cannot be read."""
    require_published(name)
    try:
        return model_toml.read(settings().repository_path, name)
    except ContractBroken as problem:
        raise Conflict(str(problem)) from problem


def require_published(name: str) -> None:
    """Raise ModelNotFound if the model has no version in the repository."""
    root = settings().repository_path
    if not paths.versions(root, name):
        raise ModelNotFound(f"no model {name[:100]!r}; there is {', '.join(paths.models(root)[:20]) or 'none'}")


def version_of(name: str, config: ModelConfig, spec: int | str) -> int:
    """Return the published version that a number or an alias names. Raises ModelNotFound."""
    return paths.find(settings().repository_path, f"{name}/{spec}", config.aliases)


def make(action: str, name: str, plan: Plan) -> Response:
    """Record the change, begin it as an operation, and answer 202, or with `wait` its result.

    Raises DiskFull, with nothing done, if it cannot be recorded.
    """
    seconds, seen = wait_s(), seen_generation()
    change = audit.begin(action, name, before=plan.before, after=plan.result)
    try:
        running = operations.begin(settings().run_dir, action, name, str(request.environ.get(KEY_NAME, "")))
    except OSError as problem:
        audit.abandoned(change, problem)
        raise DiskFull("an operation", 4096) from problem
    work = partial(
        changes.apply, settings(), name, plan.edit, f"{action} of {name} ({change['key']})", plan.targets, seen
    )
    extensions().predict_offload.spawn(partial(_carry_out, work, plan, running, change, extensions().audit_log))
    return answer(running.operation.id, seconds)


def seen_generation() -> int | None:
    """Return the generation in If-Match; None without that header, or for `*`. Raises RequestRejected."""
    text = request.headers.get("If-Match", "*").strip()
    if text == "*":
        return None
    number = text.removeprefix("W/").strip('"')
    if not number.isdecimal() or not number.isascii() or len(number) > 18:
        raise RequestRejected('If-Match is the generation in quotes, as ETag has it, such as "12"')
    return int(number)


def _carry_out(
    work: Callable[[], changes.Applied[object]], plan: Plan, running: RunningOperation, change: dict[str, str],
    audit_log: AuditLog,
) -> None:  # fmt: skip
    """Make the change, and say how it ended in the operation and in the audit log."""
    running.step("waiting until every worker has prepared it")
    try:
        applied = work()
        plan.after(applied.made)
    except Exception as problem:  # noqa: BLE001 - the operation says what happened, whatever it was
        status, text, reasons = _failure(problem)
        audit_log.end({**now(), **change, "state": "failed", "error": type(problem).__name__, "reason": text})
        running.fail(status, text, reasons)
        return
    outcome = applied.outcome
    audit_log.end({**now(), **change, "state": "done", "generation": outcome.generation})
    running.end(
        {
            "generation": outcome.generation, "workers": outcome.workers, "seconds": outcome.seconds,
            "before": plan.before, "after": plan.result,
            "refused": {version: why.reason for version, why in outcome.refused.items()},
        }
    )  # fmt: skip


def _failure(problem: Exception) -> tuple[int, str, tuple[str, ...]]:
    """Return the status, the text and the reasons of the workers for what stopped a change."""
    if isinstance(problem, SwitchRefused):
        reasons = tuple(f"worker {each.pid}: {each.reason}" for each in problem.reasons)
        return 409, problem.detail, reasons
    if isinstance(problem, ContractBroken):
        return 409, str(problem), ()
    if isinstance(problem, PublishFailed):
        return 400, str(problem), ()
    if isinstance(problem, TablesideError):
        return error_replies.STATUS[type(problem)], str(problem), ()
    if isinstance(problem, OSError):
        return 507, f"the repository cannot be written: {problem.strerror or problem}. Nothing has changed", ()
    log.error("change_failed", exception=logs.frames_without_values(problem))
    return 500, error_replies.INTERNAL, ()
