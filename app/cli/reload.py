"""`tableside reload`: makes the workers of the running stack read the model repository again."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
import orjson

from tableside.cli import remote, remote_commands
from tableside.cli.remote_commands import at_server
from tableside.deployment import running_stack
from tableside.deployment.running_stack import RunningStack
from tableside.errors import ContractBroken, StackError
from tableside.settings import Settings, load


class ReloadedModel(msgspec.Struct):
    """The state of one version in one worker. current: False if it serves files that have changed since."""

    name: str
    version: int
    state: str
    reason: str = ""
    failure_kind: str = ""
    current: bool = True

    @property
    def is_failed(self) -> bool:
        """Whether the version, as it is in the repository, is not served although it should be."""
        unloaded = self.reason.startswith("unloaded") and not self.failure_kind
        return (self.state != "READY" and not unloaded) or not self.current


class ReloadedWorker(msgspec.Struct):
    """One worker. `models` is empty for a worker that has not read the repository yet.

    generation: the one that it serves. failure: why it could not read the repository at all. aliases: what each alias
    of each model names there.
    """

    pid: int | None = None
    generation: int = 0
    models: list[ReloadedModel] = []
    failure: str = ""
    aliases: dict[str, dict[str, int]] = {}


class ReloadResult(msgspec.Struct):
    """What `POST /admin/api/reload` answers. `late`: the workers that did not finish in time."""

    generation: int
    workers: list[ReloadedWorker]
    late: list[ReloadedWorker]


def find_stack(settings: Settings) -> RunningStack:
    """Return the stack of the run folder as it was started, or else as the settings of this command describe it."""
    return running_stack.find(settings) or running_stack.of_settings(settings)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
@at_server(remote_commands.reload)
def reload(as_json: bool) -> None:
    """Make every worker of the running stack read the model repository again.

    The exit code is 1 if a worker did not finish in time, or if something in the repository cannot be served: a version
    that is unavailable or damaged, a model.toml that cannot be read, or one that names a missing version or column.
    """
    settings = load()
    stack = find_stack(settings)
    content, done = ask(settings, stack)
    if as_json:
        click.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2))
    result = result_of(content)
    _note_versions(Path(stack.repository))
    problems = [*failures(result), *_broken_files(Path(stack.repository))]
    if not as_json:
        print_result(result)
    for problem in problems:
        click.echo(f"  {problem}", err=True)
    if problems or not done:
        raise SystemExit(1)


def _note_versions(root: Path) -> None:
    """Record the numbers of versions that came by another road than publish, so that they are never used twice."""
    from tableside.repository import version_record

    version_record.note_all(root)


def ask(settings: Settings, stack: RunningStack) -> tuple[dict[str, object], bool]:
    """Ask for a reload. Return the server's answer, and whether every worker has finished. Raises StackError."""
    answer = remote.of_stack(settings, stack).ask("POST", "reload")
    return answer.or_raise(), answer.status == 200


def result_of(content: dict[str, object]) -> ReloadResult:
    """Return the answer to /admin/api/reload. Raises StackError for one of another form."""
    try:
        return msgspec.convert(content, ReloadResult)
    except msgspec.ValidationError as problem:
        raise StackError(f"unexpected answer to /admin/api/reload: {problem}") from problem


def print_result(result: ReloadResult) -> None:
    """Print the generation, and what is served with a warning or not at all."""
    versions = {(model.name, model.version): model for worker in result.workers for model in worker.models}
    ready = sum(model.state == "READY" for model in versions.values())
    click.echo(f"generation {result.generation}: {len(result.workers)} workers serve {ready} versions")
    for (name, version), model in sorted(versions.items(), key=lambda item: item[0]):
        if (model.state != "READY" or model.reason) and not model.is_failed:
            click.echo(f"  {name}/{version} is {model.state}: {model.reason}")


def failures(result: ReloadResult) -> list[str]:
    """Return a line for each worker that is late or cannot read the repository, and for each version that failed."""
    lines = [f"worker {worker.pid} has not read the repository yet" for worker in result.late]
    lines += sorted({f"the repository cannot be read: {worker.failure}" for worker in result.workers if worker.failure})
    failed = {
        (model.name, model.version): f"{model.name}/{model.version} is {model.state}: {model.reason}"
        for worker in result.workers
        for model in worker.models
        if model.is_failed
    }
    return lines + [failed[key] for key in sorted(failed)]


def _broken_files(root: Path) -> list[str]:
    """Return a line for each model.toml that cannot be read, and for what one says that its versions contradict."""
    from tableside.repository import model_toml, model_toml_checks, paths

    lines = []
    for name in paths.models(root):
        try:
            config = model_toml.read(root, name)
        except ContractBroken as problem:
            lines.append(str(problem))
            continue
        lines += [f"{name}: {each}" for each in model_toml_checks.contradictions(root, name, config)]
    return lines
