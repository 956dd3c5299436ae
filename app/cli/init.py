"""`tableside init`: makes a folder from which `tableside run` serves."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from tableside.cli.monitoring import files as monitoring_files
from tableside.errors import StackError

SETTINGS, CONTROL, IGNORED, MODELS = "tableside.toml", "supervisord.conf", ".gitignore", "models"

FILES = {
    SETTINGS: """\
# Settings of this server. `tableside config` prints those in force, with the defaults of all others.
# The workers take a change after `tableside restart`. Relative paths count from the folder of the start.

[server]
# listen = "127.0.0.1:8080"         # predictions, metadata and health
# admin_listen = "127.0.0.1:8081"   # the control plane: metrics and admin
# workers = 2                       # default: one for each processor
# request_timeout_s = 30.0          # seconds after which a request is given up

[repository]
path = "models"

[log]
# level = "info"
""",
    CONTROL: """\
; For supervisor's own `supervisorctl -c supervisord.conf status`. `tableside run` starts supervisord with a file of the
; package, because the programs belong to the installed version.
[supervisorctl]
; With another server.run_dir: supervisorctl -c RUN_DIR/supervisorctl.conf
serverurl=unix://%(here)s/run/supervisor.sock
prompt=tableside
""",
    IGNORED: """\
# The run folder has logs, sockets and the admin key.
/run/
/keys.json
/consent.jsonl
""",
}


@click.command()
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--no-example", is_flag=True, help="Publish no example model.")
@click.option("--monitoring", is_flag=True, help="Also write files for Prometheus and Grafana, and runbooks.")
def init(folder: Path, no_example: bool, monitoring: bool) -> None:
    """Make a folder for a server: settings, a model repository and an example model.

    Files that exist already stay as they are. Start the server in the folder with `tableside run`.
    """
    files = {**FILES, **(dict(monitoring_files()) if monitoring else {})}
    try:
        written = _write_files(folder, files)
    except OSError as problem:
        raise StackError(f"cannot write {problem.filename or folder}: {problem.strerror}") from problem
    for name in files:
        click.echo(f"{'wrote' if name in written else 'kept '} {folder / name}")
    root = folder / MODELS
    if not no_example and not _has_models(root):
        _publish_example(root)
    go = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))} && "
    click.echo(f"\nStart the server:\n  {go}tableside run")
    if not _has_models(root):
        click.echo("Publish a model:\n  tableside publish NAME MODEL.joblib --sample ROWS.csv")


def _write_files(folder: Path, files: dict[str, str]) -> set[str]:
    """Write the files that are missing, and return their names. Raises OSError."""
    written = set()
    (folder / MODELS).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            continue
        written.add(name)
    return written


def _has_models(root: Path) -> bool:
    from tableside.repository import paths

    return bool(paths.models(root))


def _publish_example(root: Path) -> None:
    from tableside.cli.step_progress import progress
    from tableside.publishing.example_model import publish_iris

    with progress() as step:
        contract = publish_iris(root, step)
    click.echo(f"published {contract.name}/{contract.version}, an example model, in {root}")
