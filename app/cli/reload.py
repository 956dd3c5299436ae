"""`tableside reload`: the running stack reads its repository."""

from __future__ import annotations

import http.client
from typing import Any

import click
import orjson

from tableside.errors import StackError
from tableside.settings import Settings, load, split_address

TIMEOUT_S = 120.0


def _post(settings: Settings, path: str) -> tuple[int, dict[str, Any]]:
    key_file = settings.run_dir / "admin.key"
    try:
        key = key_file.read_text(encoding="ascii").strip()
    except OSError:
        raise StackError(f"{key_file} cannot be read: is a stack running with this run folder?") from None
    host, port = split_address(settings.server.admin_listen)
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("POST", path, headers={"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        return answer.status, orjson.loads(answer.read())
    except (OSError, http.client.HTTPException, orjson.JSONDecodeError) as problem:
        raise StackError(f"no answer from {settings.server.admin_listen}: {problem}") from problem
    finally:
        connection.close()


@click.command()
@click.option("--json", "as_json", is_flag=True, help="JSON for programs.")
def reload(as_json: bool) -> None:
    """Let every worker of the running stack read the repository. Exit code 1 when some have not in time."""
    status, content = _post(load(), "/admin/api/reload")
    if status not in (200, 202):
        raise StackError(str(content.get("error", f"status {status}")))
    if as_json:
        click.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2))
    else:
        _print_result(content)
    if status != 200:
        raise SystemExit(1)


def _print_result(content: dict[str, Any]) -> None:
    workers = content["workers"]
    versions = {(m["name"], m["version"]): m for worker in workers for m in worker.get("models", [])}
    ready = [key for key, found in versions.items() if found["state"] == "READY"]
    click.echo(f"generation {content['generation']}: {len(workers)} workers serve {len(ready)} versions")
    for (name, version), found in sorted(versions.items()):
        if found["state"] != "READY" or found["reason"]:
            click.echo(f"  {name}/{version} is {found['state']}: {found['reason']}")
    for worker in content["late"]:
        click.echo(f"  worker {worker.get('pid')} has not read it yet", err=True)
