"""`tableside publish`: writes a fitted estimator as the next version of a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import click
import msgspec

from tableside.cli import render
from tableside.cli.options import json_option, repository_option, repository_path
from tableside.errors import PublishFailed
from tableside.settings import Settings, load

if TYPE_CHECKING:
    from tableside.contract.schema import Contract
    from tableside.publishing import mlflow


class PublishOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one publish is told besides the model's name, the estimator and the repository.

    Each option of the command has the name of its field here.
    """

    sample: Path | None = None
    version: int | None = None
    alias: str | None = None
    target: str | None = None
    runtime: Literal["auto", "sklearn"] = "auto"
    tolerance: float = 0.0
    allow_pickle: bool = False


class Published(NamedTuple):
    """The contract of a new version, and the remarks on it that the user should read."""

    contract: Contract
    notes: list[str]


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
@repository_option
@json_option
def publish(name: str, estimator: Path, repository: Path | None, as_json: bool, **given: object) -> None:
    """Publish a fitted ESTIMATOR as the next version of model NAME.

    ESTIMATOR is a joblib file (with --sample) or an MLflow model directory with the scikit-learn flavour.

    Reading a joblib or pickle file runs the code in it, so publish only files that you trust. The server never reads
    such a file.
    """
    settings = load()
    root, options = repository_path(repository, settings), options_of(given)
    with render.progress() as step:
        contract, notes = publish_one(name, estimator, options, root, settings, step)
    if as_json:
        render.as_json({**render.summary(contract, [options.alias] if options.alias else []), "notes": notes})
        return
    render.published(contract, root, notes)


def options_of(given: dict[str, object]) -> PublishOptions:
    """Return the options by name as one object. Raises msgspec.ValidationError for an unknown name or a wrong type."""
    return msgspec.convert(given, PublishOptions, dec_hook=_path)


def _path(kind: type, value: object) -> object:
    return Path(value) if kind is Path and isinstance(value, (str, Path)) else value


def publish_one(
    name: str, estimator: Path, options: PublishOptions, root: Path, settings: Settings, step: Callable[[str], None]
) -> Published:
    """Read the estimator and its sample, and publish them as a version in the repository `root`.

    step: is called with the name of each step. Raises PublishFailed.
    """
    step("loading scikit-learn")
    from tableside.publishing import publish as publishing

    step(f"reading {estimator}")
    prepared = _prepare(estimator, options, settings, step)
    contract = publishing.publish(
        name, prepared.estimator, prepared.sample, repository=root, version=options.version, alias=options.alias,
        trusted_types=settings.repository.trusted_types, source=prepared.source, progress=step,
        runtime=options.runtime, tolerance=options.tolerance,
    )  # fmt: skip
    return Published(contract, prepared.notes_for(contract))


def _prepare(
    estimator: Path, options: PublishOptions, settings: Settings, step: Callable[[str], None]
) -> mlflow.Prepared:
    """Return the estimator of a file or a directory with its sample. Raises PublishFailed."""
    from tableside.publishing import mlflow

    if estimator.is_dir():
        return mlflow.prepare(
            estimator, options.sample, settings.repository, target=options.target, allow_pickle=options.allow_pickle,
            progress=step,
        )  # fmt: skip
    return _from_joblib(estimator, options)


def _from_joblib(estimator: Path, options: PublishOptions) -> mlflow.Prepared:
    from tableside.publishing import estimator_files, mlflow
    from tableside.publishing import sample as samples

    fitted = estimator_files.load(estimator)
    if options.sample is None:
        raise PublishFailed(
            f"{estimator}: a joblib file needs a sample; add --sample FILE with rows like the training data"
        )
    return mlflow.Prepared(fitted, samples.as_frame(samples.read(options.sample), options.target), {}, ())
