"""`tableside contract`: writes a training record with the libraries of this environment."""

from __future__ import annotations

from pathlib import Path

import click

from tableside.errors import PublishFailed


@click.command("contract")
@click.argument("estimator", type=click.Path(path_type=Path))
@click.option(
    "--sample", type=click.Path(path_type=Path), required=True, help="File with rows like the training data, .csv or "
    ".parquet.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The new folder to write.")
@click.option("--target", help="Name of the target column, which is dropped from the sample.")
@click.option("--rows", type=int, default=1000, show_default=True, help="Rows of the sample to keep at most.")
def contract(estimator: Path, sample: Path, out: Path, target: str | None, rows: int) -> None:
    """Write a training record of ESTIMATOR, a joblib, pickle or skops file, in the environment where it was trained.

    The record holds the estimator, rows of the sample and the estimator's answers to them. Where Tableside is not
    installed, `python -m tableside_contract` does the same.
    """
    from tableside_contract.__main__ import write
    from tableside_contract.errors import RecordFailed

    try:
        click.echo(write(estimator, sample, out, target, rows))
    except RecordFailed as problem:
        raise PublishFailed(str(problem)) from problem
