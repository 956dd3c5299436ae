"""`tableside publish`: writes a fitted estimator as the next version of a model, or many estimators of a manifest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import msgspec

from tableside.cli import consent, manifest, publish_options, render, signing, step_progress
from tableside.cli.local_audit import audited
from tableside.cli.manifest import Entry
from tableside.cli.options import breaking_option, json_option, repository_option, repository_path, served_elsewhere
from tableside.cli.publish_options import PublishOptions
from tableside.cli.stack_wait import check_stack, wait_until_served
from tableside.errors import PublishFailed, StackError, TablesideError
from tableside.repository import traffic_notes
from tableside.settings import Settings, load

if TYPE_CHECKING:
    from tableside.contracts.schema import Contract

Step = Callable[[str], None]
WIDE = 1000
"""A matrix of more columns than this is probably made by a vectorizer."""


class Published(NamedTuple):
    """The contract of a new version, the remarks on it that the user should read, and the alias that points at it."""

    contract: Contract
    notes: list[str]
    alias: str | None = None


@click.command()
@click.argument("name", required=False)
@click.argument("estimator", type=click.Path(path_type=Path), required=False)
@click.option(
    "--sample",
    type=click.Path(path_type=Path),
    help="File with rows like the training data, .csv or .parquet. Not needed for an MLflow directory that has an "
    "input example.",
)
@click.option(
    "--expect",
    type=click.Path(path_type=Path),
    help="File with the trainer's answers to the rows of the sample, .csv or .parquet, which must agree.",
)
@click.option("--version", type=int, help="Version number. Default: the next one that was never used.")
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
    "--types",
    metavar="COLUMN=DTYPE,...",
    help="Types of the sample's columns, or a JSON file with them. They outrank the sample's: zip=str keeps 00501.",
)
@click.option(
    "--nullable",
    metavar="COLUMN,...",
    help="Columns that accept missing cells although the sample has none; all: where the estimator answers one.",
)
@click.option(
    "--allow-pickle",
    is_flag=True,
    help="Read the pickle file of an MLflow directory or a training record. Reading it runs the code it contains.",
)
@click.option(
    "--allow-code",
    is_flag=True,
    help="Run the own code of an MLflow directory (its code_paths), and publish it with the model.",
)
@click.option(
    "--code",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Module (.py) or package folder of your own that the estimator uses; may be repeated. It is copied into the "
    "version, and this host consents to it.",
)
@click.option(
    "--as-pickle",
    is_flag=True,
    help="Write the artifact as a pickle, for an estimator that no skops file can hold. Only the model's own process "
    "loads it.",
)
@click.option(
    "--environment",
    metavar="NAME",
    help="Publish a model that runs in this environment: its interpreter reads the file, and answers the requests.",
)
@click.option("--sign", metavar="KEYFILE", type=click.Path(path_type=Path), help="Sign the version with this key.")
@breaking_option
@click.option("--quick", is_flag=True, help="Compare fast backends on fewer rows: about 1 s for a small model.")
@click.option(
    "--from",
    "manifest_file",
    type=click.Path(path_type=Path),
    help="Publish every model of a TOML manifest in this process, instead of NAME and ESTIMATOR.",
)
@click.option("--reload", "wait", is_flag=True, help="Make the running stack serve it, and wait until all workers do.")
@repository_option
@json_option
@audited("publish", lambda given: str(given["name"] or given["manifest_file"] or ""))
def publish(
    name: str | None, estimator: Path | None, manifest_file: Path | None, wait: bool, repository: Path | None,
    as_json: bool, **given: object,
) -> None:  # fmt: skip
    """Publish a fitted ESTIMATOR as the next version of model NAME.

    ESTIMATOR is a joblib, pickle or skops file, an ONNX graph or a booster's own file (with --sample), a training
    record, or an MLflow model directory with the scikit-learn flavour.

    Reading a joblib or pickle file runs the code in it, so publish only files that you trust. The server never reads
    such a file.
    """
    settings = load()
    entries = _entries(name, estimator, manifest_file, publish_options.from_command_line(given))
    root = repository_path(repository, settings)
    elsewhere = served_elsewhere(root, settings)
    if wait:
        check_stack(settings, elsewhere)
        signing.check_before_waiting((entry.options.sign for entry in entries), root, settings)
    done, failures = _publish_all(entries, root, settings, is_list=manifest_file is not None)
    workers = _wait(done, settings, failures) if wait else 0
    if as_json:
        _print_json(done, failures, is_list=manifest_file is not None)
    else:
        for contract, notes, _ in done:
            served_by = None if wait and not workers else workers
            render.published(contract, root, [*notes, *filter(None, [elsewhere])], served_by)
    for failure in failures:
        click.echo(f"tableside: {failure}", err=True)
    if failures:
        click.echo(f"tableside: {len(failures)} of {len(entries)} failed", err=True)
        raise SystemExit(1)


def _entries(
    name: str | None, estimator: Path | None, manifest_file: Path | None, options: PublishOptions
) -> list[Entry]:  # fmt: skip
    """Return what to publish. Raises PublishFailed for arguments that do not go together."""
    if manifest_file is None:
        if name is None or estimator is None:
            raise PublishFailed("name a model and its estimator: tableside publish NAME ESTIMATOR, or --from MANIFEST")
        return [Entry(name, estimator, options)]
    if name is not None:
        raise PublishFailed(f"--from {manifest_file} names the models itself. Leave out {name!r}, or --from")
    if options != PublishOptions(quick=options.quick, sign=options.sign):
        raise PublishFailed(f"only --quick and --sign go with --from. Write the other options into {manifest_file}")
    given = {name: value for name, value in (("quick", options.quick), ("sign", options.sign)) if value}
    return [
        msgspec.structs.replace(each, options=msgspec.structs.replace(each.options, **given))
        for each in manifest.read(manifest_file)
    ]


def _publish_all(
    entries: Sequence[Entry], root: Path, settings: Settings, *, is_list: bool
) -> tuple[list[Published], list[str]]:
    """Publish each entry. Return the new versions, and a line for each that failed. Raises if there is only one."""
    done: list[Published] = []
    failures: list[str] = []
    for at, entry in enumerate(entries, 1):
        with step_progress.progress(f"{at}/{len(entries)} {entry.name}: " if is_list else "") as step:
            before = traffic_notes.configuration(root, entry.name)
            try:
                made = publish_one(entry.name, entry.estimator, entry.options, root, settings, step)
                notes = [*made.notes, *traffic_notes.notes(root, made.contract, before, made.alias)]
                done.append(made._replace(notes=notes))
            except TablesideError as problem:
                if not is_list:
                    raise
                failures.append(f"{entry.name}: {problem}")
            except Exception as problem:
                if not is_list:
                    raise
                failures.append(f"{entry.name}: {type(problem).__name__}: {problem}")
    return done, failures


def _wait(done: Sequence[Published], settings: Settings, failures: list[str]) -> int:
    """Wait until the running stack serves each new version. Return its number of workers, and add to the failures."""
    workers = 0
    for contract, *_ in done:
        with step_progress.progress() as step:
            step(f"waiting until every worker serves {contract.name}/{contract.version}")
            try:
                workers = wait_until_served(settings, contract.name, contract.version)
            except StackError as problem:
                failures.append(f"{contract.name}/{contract.version} is published, but: {problem}")
    return 0 if failures else workers


def _print_json(done: Sequence[Published], failures: Sequence[str], *, is_list: bool) -> None:
    rows = [{**render.summary(contract, [alias] if alias else []), "notes": notes} for contract, notes, alias in done]
    render.as_json({"published": rows, "failed": list(failures)} if is_list else rows[0])


def publish_one(
    name: str, estimator: Path, options: PublishOptions, root: Path, settings: Settings, step: Step
) -> Published:
    """Read the estimator and its sample, and publish them as a version in the repository `root`.

    step: is called with the name of each step. Raises PublishFailed.
    """
    step("loading scikit-learn")
    if options.environment:
        return _publish_in_environment(name, estimator, options, root, settings, step)
    from tableside.publishing import code_files, sources, warning_counts
    from tableside.publishing import publish as publishing

    consent_path = Path(settings.repository.consent_file)
    with warning_counts.counted() as warned:
        step(f"reading {estimator}")
        request = sources.Request(
            options.sample, options.target, options.declared_types(), options.expect, options.allow_pickle,
            options.allow_code, code_files.collect(options.code), options.as_pickle,
        )  # fmt: skip
        prepared = sources.prepare(estimator, request, settings.repository, step)
        contract = publishing.publish(
            name, prepared.estimator, prepared.sample, repository=root, version=options.version, alias=options.alias,
            trusted_types=settings.repository.trusted_types, trusted_libraries=settings.repository.trusted_libraries,
            source=prepared.source, progress=step,
            runtime=options.runtime, tolerance=options.tolerance, quick=options.quick, code=prepared.code or (),
            as_pickle=(prepared.content or True) if options.as_pickle else False, consent_path=consent_path,
            nullable=options.nullable_columns(), optional=prepared.optional, trained_with=prepared.trained_with,
            expect=prepared.answers, environment_skew=settings.repository.environment_skew, sign=options.sign,
            trusted_keys=(), breaking=options.breaking,
        )  # fmt: skip
    notes = [
        *prepared.notes_for(contract), *consent.notes(contract, consent_path), *_advice(contract), *warned.lines(),
        *signing.notes(contract, root, settings),
    ]  # fmt: skip
    return Published(contract, notes, options.alias)


def _publish_in_environment(
    name: str, estimator: Path, options: PublishOptions, root: Path, settings: Settings, step: Step
) -> Published:
    from tableside.publishing import code_files, sources
    from tableside.publishing.in_environment import publish_in_environment

    if options.tolerance:
        raise PublishFailed(
            "--tolerance is for fast backends, and a model in an environment of its own has none: its estimator "
            "answers. Leave out --tolerance"
        )
    assert options.environment is not None
    consent_path = Path(settings.repository.consent_file)
    request = sources.Request(
        options.sample, options.target, options.declared_types(), options.expect, options.allow_pickle,
        options.allow_code, code_files.collect(options.code), options.as_pickle,
    )  # fmt: skip
    made = publish_in_environment(
        name, estimator, options.environment, settings, request, repository=root, version=options.version,
        alias=options.alias, nullable=options.nullable_columns(), quick=options.quick, consent_path=consent_path,
        progress=step, sign=options.sign, breaking=options.breaking,
    )  # fmt: skip
    notes = [f"it runs in the environment {options.environment} (model.toml)", *made.notes]
    consented = consent.notes(made.contract, consent_path, options.environment)
    return Published(made.contract, [*notes, *consented, *signing.notes(made.contract, root, settings)], options.alias)


def _advice(contract: Contract) -> list[str]:
    """Return what would make a model easier to call."""
    width = len(contract.input.columns)
    if contract.input.form != "matrix" or width <= WIDE:
        return []
    return [
        f"clients have to send all {width} columns. If a vectorizer or encoder makes them, put it into the model, "
        "make_pipeline(vectorizer, model), and publish that: clients then send its few columns or texts"
    ]
