"""Commands on the model repository: publish, list, show, verify."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from tableside.cli import render
from tableside.errors import ContractBroken, PublishFailed
from tableside.settings import Settings, load

if TYPE_CHECKING:
    from tableside.publishing import mlflow


def _repository(given: Path | None, settings: Settings) -> Path:
    return given if given is not None else settings.repository_path


_repository_option: Callable[[Any], Any] = click.option(
    "--repository", type=click.Path(path_type=Path), help="The model repository; default: repository.path."
)
_json_option: Callable[[Any], Any] = click.option("--json", "as_json", is_flag=True, help="JSON for programs.")


@click.command()
@click.argument("name")
@click.argument("estimator", type=click.Path(path_type=Path))
@click.option(
    "--sample",
    type=click.Path(path_type=Path),
    help="Rows like the training data: .csv or .parquet. An MLflow directory with an input example needs none.",
)
@click.option("--version", type=int, help="A version number; default: the next free one.")
@click.option("--alias", help="Point this alias at the new version.")
@click.option("--target", help="The sample's target column, which is dropped.")
@click.option(
    "--runtime",
    type=click.Choice(["auto", "sklearn"]),
    default="auto",
    show_default=True,
    help="auto: use a fast backend where one is proved equal; sklearn: the estimator always.",
)
@click.option(
    "--tolerance",
    type=float,
    default=0.0,
    show_default=True,
    help="How far a fast backend's numbers may lie apart, relative; 0 is to the bit.",
)
@click.option("--allow-pickle", is_flag=True, help="Read the pickle of an MLflow directory, which runs the code in it.")
@_repository_option
@_json_option
def publish(
    name: str, estimator: Path, sample: Path | None, version: int | None, alias: str | None, target: str | None,
    runtime: Literal["auto", "sklearn"], tolerance: float, allow_pickle: bool, repository: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Publish a fitted ESTIMATOR as the next version of model NAME.

    ESTIMATOR is a joblib file of your own (with --sample) or an MLflow model directory with the scikit-learn flavour.

    Reading a joblib or pickle file runs the code in it: publish your own files only. The server never reads one.
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
        raise PublishFailed(f"{estimator}: a joblib file needs --sample with rows like the training data")
    return mlflow.Prepared(fitted, samples.as_frame(samples.read(sample), target), {}, ())


def _versions(root: Path, settings: Settings) -> list[dict[str, Any]]:
    """A row for each version, with what is wrong with it as far as that shows without loading it."""
    from tableside.repository import integrity, model_toml, paths

    worker_problems = _problems_seen_by_workers(root, settings)
    rows: list[dict[str, Any]] = []
    for name in paths.models(root):
        aliases, broken = {}, None
        try:
            aliases = model_toml.read(root, name).aliases
        except ContractBroken as problem:
            broken = problem
        for number in paths.versions(root, name):
            pointing = [alias for alias, target in aliases.items() if target == number]
            row: dict[str, Any] = {
                "name": name,
                "version": number,
                "aliases": pointing,
                "problem": "",
                "failure_kind": "",
            }
            try:
                row |= render.summary(integrity.read_contract(root, name, number), pointing)
                warning = integrity.check_unloaded(root, name, number, settings.repository.environment_skew)
                row |= {"problem": warning, "failure_kind": "environment" if warning else ""}
                if broken is not None:
                    raise broken
            except ContractBroken as problem:
                row |= {"problem": str(problem), "failure_kind": problem.failure_kind.value}
            rows.append(row | worker_problems.get((name, number), {}))
        _add_dangling_aliases(rows[-1], aliases, paths.versions(root, name))
    return rows


def _add_dangling_aliases(row: dict[str, Any], aliases: Mapping[str, int], published: Sequence[int]) -> None:
    """An alias that points nowhere is a problem of the model; its newest version's row says it."""
    for alias, target in aliases.items():
        if target not in published:
            worker_problems = f"alias {alias!r} points at version {target}, which is not there"
            row["problem"] = "; ".join(filter(None, (row["problem"], worker_problems)))


def _problems_seen_by_workers(root: Path, settings: Settings) -> dict[tuple[str, int], dict[str, str]]:
    """What the workers of a stack that runs on this run folder, and serves `root`, have against a version."""
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
    """List every published version, and what is wrong with it: hash, environment, and what running workers say."""
    settings = load()
    root = _repository(repository, settings)
    rows = _versions(root, settings)
    if as_json:
        render.as_json(rows)
        return
    render.versions(rows, root)


def find(spec: str, repository: Path | None) -> tuple[Path, str, int]:
    """The repository, the model's name and the version a spec means. Raises ModelNotFound."""
    from tableside.repository import model_toml, paths

    root = _repository(repository, load())
    name, _ = paths.split_spec(spec)
    return root, name, paths.find(root, spec, model_toml.read(root, name).aliases)


@click.command()
@click.argument("model")
@click.option("--curl", is_flag=True, help="Only a curl line that works against the running stack.")
@_repository_option
@_json_option
def show(model: str, curl: bool, repository: Path | None, as_json: bool) -> None:
    """Show the contract of MODEL: NAME, NAME/VERSION or NAME@ALIAS."""
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
    """Load MODEL (or every version) as the server does, and replay its golden rows. Exit code 1 when one fails.

    That happens in a process of its own, so a version that crashes or hangs is a line of the result.
    """
    from tableside.repository import integrity, paths

    settings = load()
    root = _repository(repository, settings)
    if model is None:
        wanted = [(name, number) for name in paths.models(root) for number in paths.versions(root, name)]
    else:
        wanted = [find(model, repository)[1:]]
    results: list[dict[str, Any]] = []
    with render.progress() as step:
        from tableside.preflight import runner
        from tableside.preflight.results import VersionFiles

        step(f"verifying {', '.join(f'{name}/{number}' for name, number in wanted)}")
        for found in runner.run(root, [VersionFiles(name, n, None) for name, n in wanted], settings.repository):
            if found is not None:
                version_files, preflight_result = found
                result: dict[str, Any] = {
                    "name": version_files.name,
                    "version": version_files.version,
                    "ok": not preflight_result.failure_kind,
                }
                result |= {"reason": preflight_result.reason, "failure_kind": preflight_result.failure_kind.value}
                if not preflight_result.failure_kind:
                    contract = integrity.read_contract(root, version_files.name, version_files.version)
                    result["golden_rows"] = len(contract.golden.rows)
                results.append(result)
    results.sort(key=lambda result: wanted.index((result["name"], result["version"])))
    if as_json:
        render.as_json(results)
    else:
        render.verified(results)
    if not all(result["ok"] for result in results):
        raise SystemExit(1)
