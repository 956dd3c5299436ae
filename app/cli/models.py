"""The commands that read the model repository: list, show and verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tableside.cli import remote_commands, render, signing, step_progress
from tableside.cli.options import json_option, repository_option, repository_path
from tableside.cli.reload import find_stack
from tableside.cli.remote_commands import at_server
from tableside.errors import ContractBroken
from tableside.settings import Settings, load

if TYPE_CHECKING:
    from tableside.preflight.results import PreflightResult, VersionFiles


def _versions(root: Path, settings: Settings) -> list[render.Row]:
    """Return one row per version, with the problems that can be found without loading the version."""
    from tableside.model_process.known_environments import LibrariesByName
    from tableside.repository import consent_file, integrity, model_toml, model_toml_checks, paths, version_record
    from tableside.serving import traffic_report

    libraries = LibrariesByName(settings)
    seen = _seen_by_workers(root, settings)
    rows: list[render.Row] = []
    for name in paths.models(root):
        config, environment, config_problem, contradictions = model_toml.ModelConfig(), "", None, []
        try:
            config = model_toml.read(root, name)
            environment = model_toml.environment_of(name, config, settings.repository)
            contradictions = model_toml_checks.contradictions(root, name, config)
        except ContractBroken as problem:
            config_problem = problem
        tried = traffic_report.report(settings.run_dir, name, config)
        for number in paths.versions(root, name):
            pointing = [alias for alias, target in config.aliases.items() if target == number]
            row: render.Row = {
                "name": name, "version": number, "aliases": pointing, "retired": number in config.retired,
                "problem": "", "failure_kind": "", "traffic": tried.of_version(number),
            }  # fmt: skip
            try:
                contract, content = integrity.read_with_bytes(root, name, number)
                row |= render.summary(contract, pointing) | signing.row(root, contract, content, settings)
                warning = integrity.check_unloaded(
                    root, name, number, settings.repository.environment_skew, libraries.find(environment),
                    settings.repository.trusted_keys,
                )  # fmt: skip
                consent_file.check(root, contract, Path(settings.repository.consent_file))
                version_record.check(root, name, number)
                row |= {"problem": warning, "failure_kind": "environment" if warning else ""}
                if config_problem is not None:
                    raise config_problem
            except ContractBroken as problem:
                row |= {"problem": str(problem), "failure_kind": problem.failure_kind.value}
            rows.append(row | seen.get((name, number), {}))
        rows[-1]["problem"] = "; ".join(filter(None, (str(rows[-1]["problem"]), *contradictions)))
    return rows


def _seen_by_workers(root: Path, settings: Settings) -> dict[tuple[str, int], render.Row]:
    """Return, for each version in running workers, how far its golden answers lie apart there, and any problem.

    Only workers of the stack in this run folder that serve the repository `root` count.
    """
    from tableside.process import worker_slots
    from tableside.serving.version_status import merge_statuses, read_statuses

    statuses = worker_slots.statuses(settings.run_dir / "worker_slots")
    entries = read_statuses(status for status in statuses if status.get("repository") == str(root.absolute()))
    found: dict[tuple[str, int], render.Row] = {}
    for key, entry in merge_statuses(entries).items():
        problem = {"problem": entry.reason, "failure_kind": entry.failure_kind.value} if entry.reason else {}
        found[key] = {**problem, "golden_difference": entry.golden_difference}
    return found


@click.command("list")
@repository_option
@json_option
@at_server(remote_commands.list_models)
def list_models(repository: Path | None, as_json: bool) -> None:
    """List every published version with its problems: damaged files, another environment, failed loads in workers."""
    settings = load()
    root = repository_path(repository, settings)
    rows = _versions(root, settings)
    if as_json:
        render.as_json(rows)
        return
    render.versions(rows, root)


def find(spec: str, repository: Path | None) -> tuple[Path, str, int]:
    """Return the repository, the model's name and the version number for NAME, NAME/VERSION or NAME@ALIAS.

    Raises ModelNotFound if there is no such model, version or alias.
    """
    from tableside.repository import model_toml, paths

    root = repository_path(repository, load())
    name, _ = paths.split_spec(spec)
    return root, name, paths.find(root, spec, model_toml.read(root, name).aliases)


@click.command()
@click.argument("model")
@click.option("--curl", is_flag=True, help="Print only a curl command that asks the running stack for a prediction.")
@repository_option
@json_option
@at_server(remote_commands.show)
def show(model: str, curl: bool, repository: Path | None, as_json: bool) -> None:
    """Show the contract of MODEL, which is NAME, NAME/VERSION or NAME@ALIAS."""
    from tableside.repository import integrity

    settings = load()
    root, name, number = find(model, repository)
    contract, content = integrity.read_with_bytes(root, name, number)
    if curl:
        from tableside.deployment.banner import curl_line

        click.echo(curl_line(contract, find_stack(settings).listen, settings))
    elif as_json:
        import msgspec

        render.as_json(msgspec.to_builtins(contract))
    else:
        from tableside.model_process.known_environments import LibrariesByName
        from tableside.repository import model_toml
        from tableside.serving import traffic_report

        environment = model_toml.environment_of(name, model_toml.read(root, name), settings.repository)
        libraries = LibrariesByName(settings).find(environment)
        missing = integrity.missing_in_words(contract) if libraries is None else ""
        tried = traffic_report.report(settings.run_dir, name, model_toml.read(root, name)).of_version(number)
        if tried:
            click.echo(f"traffic: {tried}")
        differences = [*integrity.environment_differences(contract, libraries), *filter(None, [missing])]
        render.contract(contract, differences, signing.in_words(root, contract, content, settings))


@click.command()
@click.argument("model", required=False)
@repository_option
@json_option
def verify(model: str | None, repository: Path | None, as_json: bool) -> None:
    """Load MODEL, or every version, as the server does, and compare the answers to its golden rows.

    Each load runs in a separate process, so a version that crashes or hangs is reported like any other failure. The
    exit code is 1 if a version fails.
    """
    from tableside.repository import paths

    settings = load()
    root = repository_path(repository, settings)
    if model is None:
        wanted = [(name, number) for name in paths.models(root) for number in paths.versions(root, name)]
    else:
        wanted = [find(model, repository)[1:]]
    results: list[render.Row] = []
    with step_progress.progress() as step:
        from tableside.model_process.known_environments import known
        from tableside.preflight import runner
        from tableside.preflight.results import VersionFiles

        step(f"verifying {', '.join(f'{name}/{number}' for name, number in wanted)}")
        versions = [VersionFiles(name, number, None) for name, number in wanted]
        for found in runner.run(root, versions, settings.repository, None, known(settings)):
            if found is not None:
                results.append(_verify_row(root, *found))
    position = {version: at for at, version in enumerate(wanted)}
    results.sort(key=lambda result: position[str(result["name"]), int(str(result["version"]))])
    if as_json:
        render.as_json(results)
    else:
        render.verified(results)
    if not all(result["ok"] for result in results):
        raise SystemExit(1)


def _verify_row(root: Path, files: VersionFiles, outcome: PreflightResult) -> render.Row:
    from tableside.repository import integrity

    row: render.Row = {
        "name": files.name, "version": files.version, "ok": not outcome.failure_kind, "reason": outcome.reason,
        "failure_kind": outcome.failure_kind.value,
    }  # fmt: skip
    if not outcome.failure_kind:
        row["golden_rows"] = len(integrity.read_contract(root, files.name, files.version).golden.rows)
    return row
