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
@click.option("--types", metavar="COLUMN=DTYPE,...", help="Types of the columns of a CSV sample: zip=str keeps 00501.")
@click.option(
    "--code", multiple=True, type=click.Path(path_type=Path),
    help="Module (.py) or package folder of your own that the "
    "estimator uses; may be repeated.",
)  # fmt: skip
@click.option("--as-pickle", is_flag=True, help="Write the estimator with joblib, not with skops.")
def contract(
    estimator: Path, sample: Path, out: Path, target: str | None, rows: int, types: str | None, code: tuple[Path, ...],
    as_pickle: bool,
) -> None:  # fmt: skip
    """Write a training record of ESTIMATOR, a joblib, pickle or skops file, in the environment where it was trained.

    The record holds the estimator, rows of the sample and the estimator's answers to them. Where Tableside is not
    installed, `python -m tableside_contract` does the same.
    """
    from tableside_contract.__main__ import make_importable, write
    from tableside_contract.errors import RecordFailed

    try:
        make_importable(code)
        click.echo(write(estimator, sample, out, target, rows, types, as_pickle=as_pickle))
    except RecordFailed as problem:
        raise PublishFailed(str(problem)) from problem
