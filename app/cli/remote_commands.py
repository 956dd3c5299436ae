"""The commands that work on another machine too: with `--to` they ask its admin API, and touch no files here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click

from tableside.cli import remote, render, step_progress
from tableside.cli.remote import Answer, Content, Remote, objects, part, remote_options, wait_for_end
from tableside.errors import StackError

Given = Mapping[str, object]
"""The options and arguments of a command by name."""
Send = Callable[[Remote, Given], None]
Command = Callable[..., None]
ROW_TYPES = {".csv": "text/csv", ".parquet": "application/vnd.apache.parquet", ".jsonl": "application/jsonlines"}
"""The media types of files of rows."""
NOT_THERE = ("repository",)
"""Options of files here, which say nothing to a server."""


def if_generation_option(command: Command) -> Command:
    """Add `--if-generation N` to a command that changes something."""
    text = "With --to: only if the server still serves this generation."
    return click.option("--if-generation", type=int, metavar="N", help=text)(command)


def at_server(send: Send) -> Callable[[Command], Command]:
    """Add `--to` and `--key-file` to a command; with `--to`, `send` carries it out. Put it next to the function."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def either(*, to: str | None, key_file: Path | None, **given: object) -> None:
            if not to:
                if key_file is not None:
                    raise StackError("--key-file goes with --to URL")
                command(**given)
                return
            for name in NOT_THERE:
                if given.get(name) is not None:
                    raise StackError(f"--{name} is a folder here, and --to works on {to}. Leave one of them out")
            send(remote.of_url(to, key_file), given)

        return remote_options(either)

    return decorate


def at_server_change(send: Send) -> Callable[[Command], Command]:
    """Do as `at_server` for a command that changes something, and add `--if-generation`."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def either(*, if_generation: int | None, **given: object) -> None:
            if given.get("to"):
                at_server(lambda server, more: send(server, {**more, "if_generation": if_generation}))(command)(**given)
                return
            if if_generation is not None:
                raise StackError("--if-generation goes with --to URL")
            given.pop("to")
            if given.pop("key_file") is not None:
                raise StackError("--key-file goes with --to URL")
            command(**given)

        return if_generation_option(remote_options(either))

    return decorate


def change(server: Remote, given: Given, name: str, action: str, content: Content) -> Content:
    """Make a change, wait for its end, and print it. Return the result. Raises StackError with what the server says."""
    seen = given.get("if_generation")
    headers = {"If-Match": f'"{seen}"'} if seen is not None else {}
    with step_progress.progress() as step:
        step(f"{action} of {name} at {server.name}")
        answer = server.ask("POST", f"models/{part(name)}/{action}", {"wait": "10"}, content=content, headers=headers)
        done = wait_for_end(server, answer.or_raise(), step)
    if given.get("as_json"):
        render.as_json({"name": name, **done})
    else:
        workers = f"{done.get('workers')} workers, generation {done.get('generation')}"
        click.echo(f"{name}: {done.get('before')} -> {done.get('after')} ({workers})")
    return done


def version_of(spec: str, command: str) -> tuple[str, str | int]:
    """Split NAME/VERSION or NAME@ALIAS. Raises StackError for a plain name: what it means is what a change changes."""
    from tableside.repository import paths

    name, wanted = paths.split_spec(spec)
    if not wanted:
        raise StackError(f"say which version of {name!r}: `tableside {command} {name}/N`")
    return name, as_version(wanted)


def as_version(text: str) -> str | int:
    """Return a version as the API takes it: a number, or an alias."""
    return int(text) if text.isdecimal() else text


def promote(server: Remote, given: Given) -> None:
    """Do as `tableside promote`, at a server."""
    name, version = version_of(str(given["model"]), "promote")
    content: Content = {"version": version, "breaking": given["breaking"], "if_ready": given["if_ready"]}
    change(server, given, name, "promote", content)


def rollback(server: Remote, given: Given) -> None:
    """Do as `tableside rollback`, at a server."""
    change(server, given, str(given["name"]), "rollback", {})


def alias(server: Remote, given: Given) -> None:
    """Do as `tableside alias`, at a server."""
    version, removed = given["version"], bool(given["remove"])
    if removed == (version is not None):
        raise StackError(f"give a version, or --remove: tableside alias {given['name']} {given['alias']} N")
    content: Content = {
        "alias": given["alias"], "version": None if removed else as_version(str(version)),
        "breaking": given["breaking"],
    }  # fmt: skip
    change(server, given, str(given["name"]), "alias", content)


def retire(server: Remote, given: Given) -> None:
    """Do as `tableside retire`, at a server."""
    name, version = version_of(str(given["model"]), "retire")
    content: Content = {"version": version, "undo": given["undo"], "breaking": given["breaking"]}
    change(server, given, name, "retire", content)


def delete(server: Remote, given: Given) -> None:
    """Do as `tableside delete`, at a server."""
    import sys

    name, version = version_of(str(given["model"]), "delete")
    question = f"Delete {name}/{version} at {server.name}, with all its files?"
    if not given["yes"] and not (sys.stdin.isatty() and click.confirm(question, err=True)):
        raise StackError(f"nothing is deleted. To delete {name}/{version} at {server.name}, add --yes")
    change(server, given, name, "delete", {"version": version})


def traffic(server: Remote, given: Given) -> None:
    """Do as `tableside traffic`, at a server."""
    name, canary = str(given["name"]), given["canary"]
    if not given["stop"] and canary is None and given["percent"] is None and given["sticky"] is None:
        _show_traffic(server, given, name)
        return
    content: Content = {
        "version": as_version(str(canary)) if canary is not None else None, "percent": given["percent"],
        "sticky": given["sticky"], "stop": given["stop"], "breaking": given["breaking"],
    }  # fmt: skip
    change(server, given, name, "traffic", content)


def shadow(server: Remote, given: Given) -> None:
    """Do as `tableside shadow`, at a server."""
    from tableside.repository import paths

    name, version = paths.split_spec(str(given["model"]))
    if not given["stop"] and given["percent"] is None and given["cpu_share"] is None:
        _show_traffic(server, given, name)
        return
    content: Content = {
        "version": as_version(version) if version else None, "percent": given["percent"],
        "cpu_share": given["cpu_share"], "stop": given["stop"],
    }  # fmt: skip
    change(server, given, name, "shadow", content)


def _show_traffic(server: Remote, given: Given, name: str) -> None:
    import msgspec

    from tableside.cli import traffic_lines
    from tableside.serving.traffic_report import TrafficReport

    content = server.ask("GET", f"models/{part(name)}/traffic").or_raise()
    if given["as_json"]:
        render.as_json(content)
        return
    for line in traffic_lines.lines(msgspec.convert(content, TrafficReport)):
        click.echo(line)


def list_models(server: Remote, given: Given) -> None:
    """Do as `tableside list`, at a server: states are those of all its workers."""
    content = server.ask("GET", "models").or_raise()
    if given["as_json"]:
        render.as_json(content)
        return
    rows = [row for model in objects(content.get("models")) for row in _rows_of(model)]
    headings = ["model", "version", "aliases", "state", "estimator", "sha256", "traffic", "problem"]
    if not any(row[-2] for row in rows):
        headings, rows = [*headings[:-2], "problem"], [(*row[:-2], row[-1]) for row in rows]
    render.table(headings, rows)
    click.echo(f"generation {content.get('generation')}")


def _rows_of(model: dict[str, object]) -> Iterator[tuple[object, ...]]:
    """The row of each version. Its traffic is that of a canary or shadow, with the judgement."""
    aliases, traffic = model.get("aliases"), model.get("traffic")
    for version in objects(model.get("versions")):
        number = version.get("version")
        named = [alias for alias, target in aliases.items() if target == number] if isinstance(aliases, dict) else []
        tried = traffic.get(str(number), "") if isinstance(traffic, dict) else ""
        yield (
            model.get("name"), number, ", ".join(named), version.get("state"), version.get("estimator"),
            str(version.get("sha256", ""))[:12], tried, version.get("reason"),
        )  # fmt: skip


def show(server: Remote, given: Given) -> None:
    """Do as `tableside show`, at a server: the model with all its versions."""
    from tableside.repository import paths

    if given["curl"]:
        raise StackError("--curl asks the stack on this host. Leave it out, or leave out --to")
    name, wanted = paths.split_spec(str(given["model"]))
    content = server.ask("GET", f"models/{part(name)}").or_raise()
    if wanted:
        aliases = content.get("aliases")
        number = aliases.get(wanted, wanted) if isinstance(aliases, dict) else wanted
        found = [each for each in objects(content.get("versions")) if str(each.get("version")) == str(number)]
        if not found:
            raise StackError(f"model {name!r} has no version or alias {wanted!r} at {server.name}")
        content = {**content, "versions": found}
    if given["as_json"]:
        render.as_json(content)
        return
    versions = objects(content.pop("versions"))
    text = str(content.pop("model_toml", "")).strip()
    for key, value in content.items():
        click.echo(f"{key}: {value if value not in ('', None) else '-'}")
    for version in versions:
        click.echo(f"{name}/{version.pop('version')}")
        for key, value in version.items():
            click.echo(f"  {key}: {value if value not in ('', None) else '-'}")
    if text:
        click.echo(f"model.toml:\n{text}")


def diff(server: Remote, given: Given) -> None:
    """Do as `tableside diff`, at a server."""
    import msgspec

    from tableside.cli import diff_view
    from tableside.comparison.report import Comparison

    name, old = version_of(str(given["old"]), "diff")
    other, new = version_of(str(given["new"]), "diff")
    if name != other:
        raise StackError(f"{given['old']} and {given['new']} are two models; with --to both are versions of one")
    query, path = {"old": str(old), "new": str(new)}, f"models/{part(name)}/diff"
    with step_progress.progress() as step:
        step(f"{server.name} compares {given['old']} and {given['new']}")
        if isinstance(given["data"], Path):
            content = _send_rows(server, path, query, given["data"]).or_raise()
        else:
            answers = "false" if given["contracts"] else "true"
            content = server.ask("GET", path, {**query, "answers": answers}).or_raise()
    found = msgspec.convert(content, Comparison)
    if given["as_json"]:
        render.as_json(content)
    else:
        diff_view.show(found)
    if found.breaking or (found.answers is not None and found.answers.problem):
        raise SystemExit(1)


def _send_rows(server: Remote, path: str, query: Mapping[str, str], rows: Path) -> Answer:
    kind = ROW_TYPES.get(rows.suffix)
    if kind is None or not rows.is_file():
        raise StackError(f"{rows} is no file of rows: {', '.join(ROW_TYPES)}")
    with rows.open("rb") as file:
        size = rows.stat().st_size
        return server.ask("POST", path, query, body=file, size=size, headers={"Content-Type": kind})


def reload(server: Remote, given: Given) -> None:
    """Do as `tableside reload`, at a server."""
    from tableside.cli import reload as reloading

    answer: Answer = server.ask("POST", "reload")
    content = answer.or_raise()
    if given["as_json"]:
        render.as_json(content)
    result = reloading.result_of(content)
    if not given["as_json"]:
        reloading.print_result(result)
    problems = reloading.failures(result)
    for problem in problems:
        click.echo(f"  {problem}", err=True)
    if problems or answer.status != 200:
        raise SystemExit(1)
