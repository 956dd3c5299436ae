"""`tableside reload`: makes the workers of the running stack read the model repository again."""

from __future__ import annotations

import http.client

import click
import msgspec
import orjson

from tableside.errors import StackError
from tableside.settings import Settings, load, split_address

TIMEOUT_S = 120.0
"""The admin route waits until every worker has read the repository, which includes loading new versions."""


class ReloadedModel(msgspec.Struct):
    """The state of one version in one worker."""

    name: str
    version: int
    state: str
    reason: str = ""


class ReloadedWorker(msgspec.Struct):
    """One worker. `models` is empty for a worker that has not read the repository yet."""

    pid: int | None = None
    models: list[ReloadedModel] = []


class ReloadResult(msgspec.Struct):
    """What `POST /admin/api/reload` answers. `late`: the workers that did not finish in time."""

    generation: int
    workers: list[ReloadedWorker]
    late: list[ReloadedWorker]


def _post(settings: Settings, path: str) -> tuple[int, dict[str, object]]:
    key_file = settings.run_dir / "admin.key"
    try:
        key = key_file.read_text(encoding="ascii").strip()
    except OSError:
        raise StackError(
            f"cannot read {key_file}: start the stack with `tableside run`, or set server.run_dir"
        ) from None
    host, port = split_address(settings.server.admin_listen)
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("POST", path, headers={"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        return answer.status, msgspec.json.decode(answer.read(), type=dict[str, object])
    except (OSError, http.client.HTTPException, msgspec.MsgspecError) as problem:
        raise StackError(
            f"no answer from {settings.server.admin_listen} (server.admin_listen): {problem}. Is the stack running?"
        ) from problem
    finally:
        connection.close()


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
def reload(as_json: bool) -> None:
    """Make every worker of the running stack read the model repository again.

    The exit code is 1 if some workers did not finish in time.
    """
    status, content = _post(load(), "/admin/api/reload")
    if status not in (200, 202):
        raise StackError(str(content.get("error", f"status {status}")))
    if as_json:
        click.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2))
    else:
        try:
            _print_result(msgspec.convert(content, ReloadResult))
        except msgspec.ValidationError as problem:
            raise StackError(f"unexpected answer to /admin/api/reload: {problem}") from problem
    if status != 200:
        raise SystemExit(1)


def _print_result(result: ReloadResult) -> None:
    versions = {(model.name, model.version): model for worker in result.workers for model in worker.models}
    ready = sum(model.state == "READY" for model in versions.values())
    click.echo(f"generation {result.generation}: {len(result.workers)} workers serve {ready} versions")
    for (name, version), model in sorted(versions.items(), key=lambda item: item[0]):
        if model.state != "READY" or model.reason:
            click.echo(f"  {name}/{version} is {model.state}: {model.reason}")
    for worker in result.late:
        click.echo(f"  worker {worker.pid} has not read the repository yet", err=True)
