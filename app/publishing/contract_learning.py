"""Learns a contract from a fitted estimator and its sample: input table, outputs, golden rows and batch invariance."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

import msgspec
import numpy as np
import pandas as pd

from tableside.contracts import answers, schema, wide
from tableside.contracts.answers import MethodAnswer
from tableside.contracts.environment import environment
from tableside.contracts.schema import Artifact, Cell, Contract, Golden, Input, Output
from tableside.contracts.table import EstimatorInput
from tableside.decoding.json_tables import from_rows
from tableside.errors import PublishFailed
from tableside.publishing import (
    batch_invariance,
    input_form,
    missing_cells,
    outputs,
    sample,
    sample_files,
    sample_rows,
    trainers_answers,
)
from tableside.publishing.effort import FULL, Effort
from tableside.publishing.missing_cells import Nullable
from tableside.publishing.trainers_answers import TrainersAnswers
from tableside.repository import paths
from tableside.runtimes import golden
from tableside.runtimes.sklearn import SklearnRuntime
from tableside_contract.readings import Known

COMPARED_ROWS = 200
"""Rows of the sample, besides the golden rows, whose answers are compared with those of the same rows sent as JSON."""
_COMPARED_CELLS = 500_000


def learn_contract(
    name: str, runtime: SklearnRuntime, frame: pd.DataFrame, effort: Effort = FULL, *, nullable: Nullable = (),
    optional: Collection[str] = (), expected: TrainersAnswers | None = None,
) -> Contract:  # fmt: skip
    """Return the contract of an estimator, as yet without its version, its artifact's hash and its backends.

    nullable: columns that accept missing cells although the sample has none there. optional: those that do so where the
    estimator answers a missing cell; others need a value. expected: the trainer's answers to the rows of the frame,
    which must agree and become the golden answers.
    Raises PublishFailed when the sample does not fit the estimator, or when the estimator cannot answer it as the
    contract says, and RequestRejected when no request could send the sample's cells.
    """
    estimator = runtime.estimator
    integers = sample.integer_names(frame, estimator)
    original = frame
    frame, form = sample.align(frame, estimator)
    frame, form = input_form.choose(runtime, original, frame, form)
    known = sample_files.by_text(sample_files.known_columns(estimator, list(frame.columns)))
    frame = missing_cells.as_fitted(frame, known)
    missing_cells.check(frame, known)
    described = sample.describe(frame, form, sample.fitted_categories(estimator), integers)
    described = _without_ranges(described)
    missing_cells.check_names(nullable, described.columns)
    chosen = sample_rows.golden_rows(frame)
    rows = sample_rows.rows_as_cells(frame.iloc[chosen], described)
    first = from_rows(rows, _nullable(described))
    available, _ = outputs.find(runtime, first.to_input(), first)
    _check_rows(runtime, from_rows(rows * 2, _nullable(described)).to_input(), len(rows) * 2, available[0])
    described = _mark_nullable(runtime, described, rows, available[0].source, nullable, optional)
    _check_nullable(described, known)
    table = from_rows(rows, described)
    recorded = golden.record(runtime.run, table, tuple(tuple(row) for row in rows), available)
    _compare_with_trained_dtypes(runtime, frame.iloc[_compared_rows(frame, chosen)], described, available)
    if expected is not None:
        recorded = _with_trainers_answers(runtime, frame, described, available, recorded, expected, chosen)
    batch, batch_tolerance_ulp = batch_invariance.measure(runtime.run, described, recorded, available, effort)
    return Contract(
        format=schema.FORMAT,
        name=name,
        version=0,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        kind=runtime.facts["kind"],
        estimator=runtime.facts["estimator"],
        input=described,
        outputs=available,
        golden=recorded,
        artifact=Artifact(paths.ARTIFACT, "", 0),
        environment=environment(runtime.facts["libraries"]),
        batch_invariance=batch,
        batch_tolerance_ulp=batch_tolerance_ulp,
    )


def _with_trainers_answers(
    runtime: SklearnRuntime, frame: pd.DataFrame, described: Input, available: Sequence[Output], recorded: Golden,
    expected: TrainersAnswers, chosen: Sequence[int],
) -> Golden:  # fmt: skip
    """Compare the trainer's answers to every row of the sample, and return the golden rows with them."""
    wanted = expected.for_outputs(available, len(frame))
    covered = [output for output in available if output.name in wanted]
    answered = answers.collect(covered, runtime.run, _as_trained(frame, described))
    trainers_answers.compare(wanted, answered, expected.label)
    return trainers_answers.into_golden(recorded, wanted, chosen)


def _compared_rows(frame: pd.DataFrame, chosen: Sequence[int]) -> list[int]:
    """Return the positions of the golden rows and of evenly spaced others, fewer in a wide table."""
    most = min(COMPARED_ROWS, len(frame), max(len(chosen), _COMPARED_CELLS // max(1, len(frame.columns))))
    return sorted({*chosen, *np.linspace(0, len(frame) - 1, num=most, dtype=int).tolist()})


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


def _nullable(described: Input) -> Input:
    columns = tuple(msgspec.structs.replace(column, nullable=True) for column in described.columns)
    return msgspec.structs.replace(described, columns=columns)


def _mark_nullable(
    runtime: SklearnRuntime, described: Input, rows: list[list[Cell]], method: str, nullable: Nullable,
    optional: Collection[str],
) -> Input:  # fmt: skip
    """Mark the columns that accept missing cells: those of the sample that have one, and those that the trainer names.

    Raises PublishFailed for a column of `nullable` whose missing cell the estimator refuses.
    """
    asked = {column.name for column in described.columns} if nullable == "all" else {*nullable, *optional}
    named = set() if nullable == "all" else set(nullable)
    open_schema = _nullable(described)

    def make_input(cells: list[list[Cell]]) -> EstimatorInput:
        data: EstimatorInput = from_rows(cells, open_schema).to_input()
        return data

    def run(data: EstimatorInput) -> MethodAnswer:
        return runtime.run(method, data)

    complete = next((row for row in rows if None not in row), rows[0])
    columns = list(described.columns)
    for at, column in enumerate(described.columns):
        if column.nullable or column.name not in asked:
            continue
        refusal = missing_cells.refusal(run, make_input, complete, at)
        if refusal and column.name in named:
            raise PublishFailed(
                f"--nullable {column.name}: the estimator refuses a missing cell there: {refusal}. "
                "Leave the column out, or "
                "fit the model with an imputer"
            )
        columns[at] = msgspec.structs.replace(column, nullable=not refusal)
    return msgspec.structs.replace(described, columns=tuple(columns))


def _check_nullable(described: Input, known: Mapping[str, Known]) -> None:
    for column in described.columns:
        if column.nullable and column.name in known and len(known[column.name].missing) > 1:
            raise PublishFailed(missing_cells.two_kinds(column.name, known[column.name]))


def _as_trained(frame: pd.DataFrame, described: Input) -> EstimatorInput:
    if described.form == "matrix":
        return np.ascontiguousarray(frame.to_numpy())
    if described.form == "texts":
        return frame.iloc[:, 0].tolist()
    return frame.set_axis([column.label for column in described.columns], axis=1)


def _compare_with_trained_dtypes(
    runtime: SklearnRuntime, frame: pd.DataFrame, described: Input, available: Sequence[Output]
) -> None:
    """Raise PublishFailed unless the trainer's own rows have the same answers as the rows decoded from JSON.

    Numbers are compared within the tolerance of golden rows: BLAS adds the columns of a DataFrame in another order than
    those of a decoded table, where the numbers lie otherwise in memory.
    """
    decoded = from_rows(sample_rows.rows_as_cells(frame, described), described).to_input()
    from_json = answers.collect(available, runtime.run, decoded)
    for name, array in answers.collect(available, runtime.run, _as_trained(frame, described)).items():
        if not golden.all_agree(golden.cells_of(array), golden.cells_of(from_json[name])):
            raise PublishFailed(
                f"{name} gives other answers for the sample than for the same rows sent as JSON. "
                f"{_reason(frame, described)}"
            )


def _reason(frame: pd.DataFrame, described: Input) -> str:
    """Return the likely cause of other answers: missing cells of another kind than the one that requests get."""
    for column in described.columns:
        others = missing_cells.kinds_of(frame[column.name]).keys() - {column.missing}
        if others and column.nullable:
            words = [missing_cells.NAMES[kind] for kind in sorted({*others, column.missing})]
            return (
                f"Column {column.name!r} has missing cells of the kinds {' and '.join(words)}, which "
                "the estimator tells "
                "apart, and a request has only null, which is given as "
                f"{missing_cells.NAMES[column.missing]}. Make them "
                f"one kind before fit, for instance frame[{column.name!r}].fillna('missing')"
            )
    return "This is a defect of Tableside: please report it with the sample's dtypes"
