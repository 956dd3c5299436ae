"""Learns a contract from a fitted estimator and its sample: input table, outputs, golden rows and batch invariance."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import numpy as np
import pandas as pd

from tableside.contract import answers, schema, wide
from tableside.contract.answers import MethodAnswer
from tableside.contract.environment import environment
from tableside.contract.schema import Artifact, Cell, Contract, Golden, Input, Output
from tableside.decoding.json_tables import from_rows
from tableside.errors import PublishFailed
from tableside.publishing import batch_invariance, input_form, outputs, sample
from tableside.publishing.effort import FULL, Effort
from tableside.publishing.sample import EstimatorInput
from tableside.repository import paths
from tableside.runtimes import golden
from tableside.runtimes.sklearn import SklearnRuntime


def learn_contract(name: str, runtime: SklearnRuntime, frame: pd.DataFrame, effort: Effort = FULL) -> Contract:
    """Return the contract of an estimator, as yet without its version, its artifact's hash and its backends.

    Raises PublishFailed when the sample does not fit the estimator, or when the estimator cannot answer it as the
    contract says, and RequestRejected when no request could send the sample's cells.
    """
    estimator = runtime.estimator
    original = frame
    frame, form = sample.align(frame, estimator)
    frame, form = input_form.choose(runtime, original, frame, form)
    fitted = sample.fitted_categories(estimator)
    frame = sample.restore_none(frame, fitted)
    described = _without_ranges(sample.describe(frame, form, fitted))
    chosen = sample.golden_rows(frame)
    rows = sample.rows_as_cells(frame.iloc[chosen], described)
    first = from_rows(rows, _nullable(described))
    available, _ = outputs.find(runtime, first.to_input(), first)
    _check_rows(runtime, from_rows(rows * 2, _nullable(described)).to_input(), len(rows) * 2, available[0])
    described = _probe_missing(runtime, described, rows, available[0].source)
    table = from_rows(rows, described)
    recorded = golden.record(runtime.run, table, tuple(tuple(row) for row in rows), available)
    _compare_with_trained_dtypes(runtime, frame.iloc[chosen], described, available, recorded)
    batch, batch_tolerance_ulp = batch_invariance.measure(runtime.run, described, recorded, available, effort)
    return Contract(
        format=schema.FORMAT,
        name=name,
        version=0,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        kind=outputs.kind_of(estimator),
        estimator=_class_name(estimator),
        input=described,
        outputs=available,
        golden=recorded,
        artifact=Artifact(paths.ARTIFACT, "", 0),
        environment=environment(),
        batch_invariance=batch,
        batch_tolerance_ulp=batch_tolerance_ulp,
    )


def _without_ranges(described: Input) -> Input:
    """Return the input table; without the ranges of its columns if it has so many that nobody reads them."""
    if len(described.columns) <= wide.MIN_COLUMNS:
        return described
    columns = tuple(msgspec.structs.replace(each, minimum=None, maximum=None) for each in described.columns)
    return msgspec.structs.replace(described, columns=columns)


def _check_rows(runtime: SklearnRuntime, data: EstimatorInput, rows: int, output: Output) -> None:
    """Raise PublishFailed unless there is one answer for each row.

    A text vectorizer that is called with a DataFrame iterates over its column names, and gives one answer for each.
    """
    answered = len(answers.collect([output], runtime.run, data)[output.name])
    if answered != rows:
        raise PublishFailed(
            f"{output.name} gives {answered} answers for {rows} rows. If the estimator takes a list of texts and not a "
            "table, put it into a ColumnTransformer, with the column's name as a string"
        )


def _class_name(estimator: object) -> str:
    steps = getattr(estimator, "steps", None)
    inner = f"({', '.join(type(part).__name__ for _, part in steps)})" if steps else ""
    return f"{type(estimator).__name__}{inner}"


def _nullable(described: Input) -> Input:
    columns = tuple(msgspec.structs.replace(column, nullable=True) for column in described.columns)
    return msgspec.structs.replace(described, columns=columns)


def _probe_missing(runtime: SklearnRuntime, described: Input, rows: list[list[Cell]], method: str) -> Input:
    """Mark a column as nullable when the sample has a missing value there, or the estimator answers a row with one."""
    open_schema = _nullable(described)

    def make_input(cells: list[list[Cell]]) -> EstimatorInput:
        data: EstimatorInput = from_rows(cells, open_schema).to_input()
        return data

    def run(data: EstimatorInput) -> MethodAnswer:
        return runtime.run(method, data)

    complete = next((row for row in rows if None not in row), rows[0])
    columns = tuple(
        column
        if column.nullable
        else msgspec.structs.replace(column, nullable=sample.accepts_missing(run, make_input, complete, at))
        for at, column in enumerate(described.columns)
    )
    return msgspec.structs.replace(described, columns=columns)


def _as_trained(frame: pd.DataFrame, described: Input) -> EstimatorInput:
    if described.form == "matrix":
        return np.ascontiguousarray(frame.to_numpy())
    return frame.iloc[:, 0].tolist() if described.form == "texts" else frame


def _compare_with_trained_dtypes(
    runtime: SklearnRuntime, frame: pd.DataFrame, described: Input, available: Sequence[Output], recorded: Golden
) -> None:
    """Raise PublishFailed unless the trainer's own rows have the same answers as the rows decoded from JSON.

    Numbers are compared within the tolerance of golden rows: BLAS adds the columns of a DataFrame in another order than
    those of a decoded table, where the numbers lie otherwise in memory.
    """
    data = _as_trained(frame, described)
    for name, array in answers.collect(available, runtime.run, data).items():
        if not golden.all_agree(golden.cells_of(array), recorded.answers[name]):
            raise PublishFailed(
                f"{name} gives other answers for the sample than for the same rows sent as JSON. This is a defect of "
                "Tableside: please report it with the sample's dtypes"
            )
