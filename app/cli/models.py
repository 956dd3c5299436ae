"""Commands on the model repository: publish, list, show, verify."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli import render
from app.errors import ContractBroken, PublishFailed
from app.settings import Settings, load

if TYPE_CHECKING:
    from app.repository import mlflow


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
@click.option("--allow-pickle", is_flag=True, help="Read the pickle of an MLflow directory, which runs the code in it.")
@_repository_option
@_json_option
def publish(
    name: str, estimator: Path, sample: Path | None, version: int | None, alias: str | None, target: str | None,
    allow_pickle: bool, repository: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Publish a fitted ESTIMATOR as the next version of model NAME.

    ESTIMATOR is a joblib file of your own (with --sample) or an MLflow model directory with the scikit-learn flavour.

    Reading a joblib or pickle file runs the code in it: publish your own files only. The server never reads one.
    """
    settings = load()
    with render.progress() as step:
        step("loading scikit-learn")
        from app.repository import mlflow
        from app.repository import publish as publishing

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
        )  # fmt: skip
    notes = prepared.notes_for(contract)
    if as_json:
        render.as_json({**render.summary(contract, [alias] if alias else []), "notes": notes})
        return
    render.published(contract, _repository(repository, settings), notes)


def _from_joblib(estimator: Path, sample: Path | None, target: str | None) -> mlflow.Prepared:
    from app.repository import estimators, mlflow
    from app.repository import sample as samples

    fitted = estimators.load(estimator)
    if sample is None:
        raise PublishFailed(f"{estimator}: a joblib file needs --sample with rows like the training data")
    return mlflow.Prepared(fitted, samples.as_frame(samples.read(sample), target), {}, ())


def _versions(root: Path, only: str | None = None) -> list[dict[str, Any]]:
    from app.repository import integrity, modelfile, paths

    rows: list[dict[str, Any]] = []
    for name in paths.models(root):
        if only not in (None, name):
            continue
        aliases, reason = {}, ""
        try:
            aliases = modelfile.read(root, name).aliases
        except ContractBroken as problem:
            reason = str(problem)
        for number in paths.versions(root, name):
            pointing = [alias for alias, target in aliases.items() if target == number]
            try:
                contract = integrity.read_contract(root, name, number)
                rows.append({**render.summary(contract, pointing), "reason": reason})
            except ContractBroken as problem:
                rows.append({"name": name, "version": number, "aliases": pointing, "reason": str(problem)})
    return rows


@click.command("list")
@_repository_option
@_json_option
def list_models(repository: Path | None, as_json: bool) -> None:
    """List every published version."""
    root = _repository(repository, load())
    rows = _versions(root)
    if as_json:
        render.as_json(rows)
        return
    render.versions(rows, root)


def find(spec: str, repository: Path | None) -> tuple[Path, str, int]:
    """The repository, the model's name and the version a spec means. Raises ModelNotFound."""
    from app.repository import modelfile, paths

    root = _repository(repository, load())
    name, _ = paths.split_spec(spec)
    return root, name, paths.find(root, spec, modelfile.read(root, name).aliases)


@click.command()
@click.argument("model")
@click.option("--curl", is_flag=True, help="Only a curl line that works against the running stack.")
@_repository_option
@_json_option
def show(model: str, curl: bool, repository: Path | None, as_json: bool) -> None:
    """Show the contract of MODEL: NAME, NAME/VERSION or NAME@ALIAS."""
    from app.repository import integrity

    root, name, number = find(model, repository)
    contract = integrity.read_contract(root, name, number)
    if curl:
        from app.stack.banner import curl_line

        click.echo(curl_line(contract, load().server.listen))
    elif as_json:
        import msgspec

        render.as_json(msgspec.to_builtins(contract))
    else:
        render.contract(contract)


@click.command()
@click.argument("model", required=False)
@_repository_option
@_json_option
def verify(model: str | None, repository: Path | None, as_json: bool) -> None:
    """Load MODEL (or every version) as the server does, and replay its golden rows. Exit code 1 when one fails."""
    from app.repository import integrity

    settings = load()
    root = _repository(repository, settings)
    if model is None:
        wanted = [(row["name"], row["version"]) for row in _versions(root)]
    else:
        wanted = [find(model, repository)[1:]]
    results: list[dict[str, Any]] = []
    with render.progress() as step:
        from app.serving.loader import check_version

        for name, number in wanted:
            step(f"verifying {name}/{number}")
            result: dict[str, Any] = {"name": name, "version": number, "ok": True, "reason": ""}
            try:
                check_version(root, name, number, settings.repository)
                result["golden_rows"] = len(integrity.read_contract(root, name, number).golden.rows)
            except ContractBroken as problem:
                result |= {"ok": False, "reason": str(problem)}
            results.append(result)
    if as_json:
        render.as_json(results)
    else:
        render.verified(results)
    if not all(result["ok"] for result in results):
        raise SystemExit(1)
