"""The commands that read or write the model repository: publish, list, show and verify."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import click

from tableside.cli import render
from tableside.errors import ContractBroken, PublishFailed
from tableside.settings import Settings, load

if TYPE_CHECKING:
    from tableside.preflight.results import PreflightResult, VersionFiles
    from tableside.publishing import mlflow

Command = TypeVar("Command", bound=Callable[..., None])


def _repository(option: Path | None, settings: Settings) -> Path:
    return option if option is not None else settings.repository_path


def _repository_option(command: Command) -> Command:
    option = click.option(
        "--repository", type=click.Path(path_type=Path), help="Path of the model repository. Default: repository.path."
    )
    return option(command)


def _json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


@click.command()
@click.argument("name")
@click.argument("estimator", type=click.Path(path_type=Path))
@click.option(
    "--sample",
    type=click.Path(path_type=Path),
    help="File with rows like the training data, .csv or .parquet. Not needed for an MLflow directory that has an "
    "input example.",
)
@click.option("--version", type=int, help="Version number. Default: the next free number.")
@click.option("--alias", help="Point this alias at the new version.")
@click.option("--target", help="Name of the target column, which is dropped from the sample.")
@click.option(
    "--runtime",
    type=click.Choice(["auto", "sklearn"]),
    default="auto",
    show_default=True,
    help="auto: use a fast backend if its answers equal the estimator's; sklearn: always use the estimator.",
)
@click.option(
    "--tolerance",
    type=float,
    default=0.0,
    show_default=True,
    help="Largest relative difference between a fast backend's numbers and the estimator's; 0 means bit for bit equal.",
)
@click.option(
    "--allow-pickle",
    is_flag=True,
    help="Read the pickle file of an MLflow directory. Reading it runs the code it contains.",
)
@_repository_option
@_json_option
def publish(
    name: str, estimator: Path, sample: Path | None, version: int | None, alias: str | None, target: str | None,
    runtime: Literal["auto", "sklearn"], tolerance: float, allow_pickle: bool, repository: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Publish a fitted ESTIMATOR as the next version of model NAME.

    ESTIMATOR is a joblib file (with --sample) or an MLflow model directory with the scikit-learn flavour.

    Reading a joblib or pickle file runs the code in it, so publish only files that you trust. The server never reads
    such a file.
    """
    settings = load()
    with render.progress() as step:
        step("loading scikit-learn")
        from tableside.publishing import mlflow
        from tableside.publishing import publish as publishing

        step(f"reading {estimator}")
        if estimator.is_dir():
            prepared = mlflow.prepare(
                estimator, sample, settings.repository, target=target, allow_pickle=allow_pickle, progress=step
            )
        else:
            prepared = _from_joblib(estimator, sample, target)
        contract = publishing.publish(
            name, prepared.estimator, prepared.sample, repository=_repository(repository, settings), version=version,
            alias=alias, trusted_types=settings.repository.trusted_types, source=prepared.source, progress=step,
            runtime=runtime, tolerance=tolerance,
        )  # fmt: skip
    notes = prepared.notes_for(contract)
    if as_json:
        render.as_json({**render.summary(contract, [alias] if alias else []), "notes": notes})
        return
    render.published(contract, _repository(repository, settings), notes)


def _from_joblib(estimator: Path, sample: Path | None, target: str | None) -> mlflow.Prepared:
    from tableside.publishing import estimator_files, mlflow
    from tableside.publishing import sample as samples

    fitted = estimator_files.load(estimator)
    if sample is None:
        raise PublishFailed(
            f"{estimator}: a joblib file needs a sample; add --sample FILE with rows like the training data"
        )
    return mlflow.Prepared(fitted, samples.as_frame(samples.read(sample), target), {}, ())


def _versions(root: Path, settings: Settings) -> list[render.Row]:
    """Return one row per version, with the problems that can be found without loading the version."""
    from tableside.repository import integrity, model_toml, paths

    worker_problems = _problems_seen_by_workers(root, settings)
    rows: list[render.Row] = []
    for name in paths.models(root):
        aliases, config_problem = {}, None
        try:
            aliases = model_toml.read(root, name).aliases
        except ContractBroken as problem:
            config_problem = problem
        for number in paths.versions(root, name):
            pointing = [alias for alias, target in aliases.items() if target == number]
            row: render.Row = {
                "name": name, "version": number, "aliases": pointing, "problem": "", "failure_kind": "",
            }  # fmt: skip
            try:
                row |= render.summary(integrity.read_contract(root, name, number), pointing)
                warning = integrity.check_unloaded(root, name, number, settings.repository.environment_skew)
                row |= {"problem": warning, "failure_kind": "environment" if warning else ""}
                if config_problem is not None:
                    raise config_problem
            except ContractBroken as problem:
                row |= {"problem": str(problem), "failure_kind": problem.failure_kind.value}
            rows.append(row | worker_problems.get((name, number), {}))
        _add_dangling_aliases(rows[-1], aliases, paths.versions(root, name))
    return rows


def _add_dangling_aliases(row: render.Row, aliases: Mapping[str, int], published: Sequence[int]) -> None:
    """Add a problem for each alias of a missing version to the row of the model's newest version."""
    for alias, target in aliases.items():
        if target not in published:
            dangling = f"alias {alias!r} in model.toml points at version {target}, which does not exist"
            row["problem"] = "; ".join(filter(None, (str(row["problem"]), dangling)))


def _problems_seen_by_workers(root: Path, settings: Settings) -> dict[tuple[str, int], dict[str, str]]:
    """Return, for each version that running workers cannot serve without a problem, the reason and the failure kind.

    Only workers of the stack in this run folder that serve the repository `root` count.
    """
    from tableside.process import worker_slots
    from tableside.serving.version_status import merge_statuses, read_statuses

    statuses = worker_slots.statuses(settings.run_dir / "worker_slots")
    entries = read_statuses(status for status in statuses if status.get("repository") == str(root.absolute()))
    return {
        key: {"problem": entry.reason, "failure_kind": entry.failure_kind.value}
        for key, entry in merge_statuses(entries).items()
        if entry.reason
    }


@click.command("list")
@_repository_option
@_json_option
def list_models(repository: Path | None, as_json: bool) -> None:
    """List every published version with its problems: damaged files, another environment, failed loads in workers."""
    settings = load()
    root = _repository(repository, settings)
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

    root = _repository(repository, load())
    name, _ = paths.split_spec(spec)
    return root, name, paths.find(root, spec, model_toml.read(root, name).aliases)


@click.command()
@click.argument("model")
@click.option("--curl", is_flag=True, help="Print only a curl command that asks the running stack for a prediction.")
@_repository_option
@_json_option
def show(model: str, curl: bool, repository: Path | None, as_json: bool) -> None:
    """Show the contract of MODEL, which is NAME, NAME/VERSION or NAME@ALIAS."""
    from tableside.repository import integrity

    root, name, number = find(model, repository)
    contract = integrity.read_contract(root, name, number)
    if curl:
        from tableside.deployment.banner import curl_line

        click.echo(curl_line(contract, load().server.listen))
    elif as_json:
        import msgspec

        render.as_json(msgspec.to_builtins(contract))
    else:
        render.contract(
            contract,
            [*integrity.environment_differences(contract), *filter(None, [integrity.missing_libraries(contract)])],
        )


@click.command()
@click.argument("model", required=False)
@_repository_option
@_json_option
def verify(model: str | None, repository: Path | None, as_json: bool) -> None:
    """Load MODEL, or every version, as the server does, and compare the answers to its golden rows.

    Each load runs in a separate process, so a version that crashes or hangs is reported like any other failure. The
    exit code is 1 if a version fails.
    """
    from tableside.repository import paths

    settings = load()
    root = _repository(repository, settings)
    if model is None:
        wanted = [(name, number) for name in paths.models(root) for number in paths.versions(root, name)]
    else:
        wanted = [find(model, repository)[1:]]
    results: list[render.Row] = []
    with render.progress() as step:
        from tableside.preflight import runner
        from tableside.preflight.results import VersionFiles

        step(f"verifying {', '.join(f'{name}/{number}' for name, number in wanted)}")
        for found in runner.run(root, [VersionFiles(name, n, None) for name, n in wanted], settings.repository):
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
