"""Records what commands change on this host in the audit log of the run folder, beside the changes by the admin API."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from tableside.disk_errors import DiskFull
from tableside.errors import ContractBroken, TablesideError
from tableside.process.audit_log import END_BYTES, FILE, AuditLog, Line, now
from tableside.process.os_user import current_user
from tableside.settings import Settings, load

Given = Mapping[str, object]
Command = Callable[..., None]
MAX_TEXT_CHARS = 200


def audited(
    action: str, model: Callable[[Given], str] | str, when: Callable[[Given], bool] = lambda given: True
) -> Callable[[Command], Command]:
    """Record each run of a command that changes something. Put it next to the function.

    model: the argument that names the model, or a function of the arguments. when: whether it changes something.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def recorded_command(**given: object) -> None:
            name = model(given) if callable(model) else str(given.get(model) or "")
            if not name or not when(given):
                command(**given)
                return
            repository = given.get("repository")
            with recorded(action, name, repository if isinstance(repository, Path) else None):
                command(**given)

        return recorded_command

    return decorate


@contextmanager
def recorded(action: str, name: str, repository: Path | None = None, *, is_model: bool = True) -> Iterator[None]:
    """Record that a change begins, with what is in force of a model, and how it ended, with what is in force then.

    name: the model's, or without `is_model` that of something else, such as a key.
    Nothing is recorded where there is no run folder. Raises DiskFull, before anything is done, without room.
    """
    settings = load()
    if not (settings.run_dir / FILE).parent.is_dir():
        yield
        return
    log = AuditLog(settings.run_dir, settings.log.max_bytes)
    named = {"model" if is_model else "name": name[:MAX_TEXT_CHARS]}
    change = {"level": "info", "source": "audit", "event": action, **named, "who": current_user()}
    before = _in_force(settings, repository, name) if is_model else {}
    try:
        log.begin({**now(), **change, **before, "state": "begun"})
    except PermissionError:
        click.echo(
            f"note: {settings.run_dir / FILE} cannot be written by this user: this change is not in it", err=True
        )
        yield
        return
    except OSError as problem:
        raise DiskFull("the audit log", END_BYTES) from problem
    try:
        yield
    except BaseException as problem:
        log.end({**now(), **change, "state": "failed", **_failure(problem)})
        raise
    after = _in_force(settings, repository, name).get("before", "") if is_model else ""
    log.end({**now(), **change, **before, **({"after": after} if after else {}), "state": "done"})


def _failure(problem: BaseException) -> Line:
    if isinstance(problem, SystemExit):
        return {"error": f"exit status {problem.code}"}
    reason = {"reason": str(problem)[:MAX_TEXT_CHARS]} if isinstance(problem, TablesideError) else {}
    return {"error": type(problem).__name__, **reason}


def _in_force(settings: Settings, repository: Path | None, spec: str) -> dict[str, str]:
    """Return in words what a model's repository says now: versions, aliases, what is retired or tried."""
    from tableside.deployment import running_stack
    from tableside.repository import model_toml, paths

    stack = running_stack.find(settings)
    root = repository or (Path(stack.repository) if stack is not None else settings.repository_path)
    name = paths.split_spec(spec)[0]
    published = paths.versions(root, name)
    if not published:
        return {}
    words = [f"versions {', '.join(map(str, published))}"]
    try:
        config = model_toml.read(root, name)
    except ContractBroken:
        return {"before": f"{words[0]}; model.toml cannot be read"}
    words += [f"{alias} = {number}" for alias, number in sorted(config.aliases.items())]
    words += [f"retired {number}" for number in config.retired]
    for kind, tried in (("canary", config.canary), ("shadow", config.shadow)):
        words += [f"{kind} {tried.version} {tried.percent:g} %"] if tried is not None else []
    return {"before": "; ".join(words)[:MAX_TEXT_CHARS]}
