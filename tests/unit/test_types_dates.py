"""Dates: which texts and numbers a column takes, and that the trained dtype goes into the estimator exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import FunctionTransformer

from tableside.contracts.schema import Column, Input
from tableside.contracts.table import Table
from tableside.decoding import arrow
from tableside.decoding.cells import to_array
from tableside.decoding.csv_tables import from_csv
from tableside.decoding.json_tables import from_rows
from tableside.decoding.rules import STRICT, Problems
from tableside.errors import PublishFailed, RequestRejected
from tableside.publishing import sample, sample_files, sample_rows
from tableside.publishing.publish import publish
from tests import typed_models
from tests.learned import learned

pytestmark = pytest.mark.no_greenlets


def column(dtype: str = "datetime64[ns]", **more: Any) -> Column:
    return Column("when", "BYTES", dtype, **more)


def decoded(value: Any, dtype: str = "datetime64[ns]") -> Any:
    problems = Problems()
    array = to_array([value], column(dtype), problems, lambda row: f"[{row}]")
    if problems:
        return problems.found[0].message
    return str(array[0])


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        ("2026-05-31", "datetime64[s]", "2026-05-31T00:00:00"),
        ("2026-05-31T12:30", "datetime64[s]", "2026-05-31T12:30:00"),
        ("2026-05-31 12:30:01", "datetime64[s]", "2026-05-31T12:30:01"),
        ("2026-05-31T12:30:01.000000001", "datetime64[ns]", "2026-05-31T12:30:01.000000001"),
        ("1969-12-31T23:59:59.5", "datetime64[ms]", "1969-12-31T23:59:59.500"),
        ("0001-01-01", "datetime64[us]", "0001-01-01T00:00:00.000000"),
        ("2026-05-31T12:00:00+02:00", "datetime64[s, UTC]", "2026-05-31T10:00:00"),
        ("2026-05-31T12:00:00-0130", "datetime64[s, Europe/Vienna]", "2026-05-31T13:30:00"),
        ("2026-05-31T12:00:00Z", "datetime64[s, UTC]", "2026-05-31T12:00:00"),
        (1780228800000, "datetime64[s]", "2026-05-31T12:00:00"),
        (-1, "datetime64[ms]", "1969-12-31T23:59:59.999"),
        (1780228800000.0, "datetime64[ns, UTC]", "2026-05-31T12:00:00.000000000"),
    ],
)
def test_a_date_is_text_or_milliseconds(value: Any, dtype: str, expected: str) -> None:
    """ISO 8601 in its extended form, and whole milliseconds since 1970; a zone is converted to UTC."""
    assert decoded(value, dtype) == expected


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        ("31.05.2026", "datetime64[ns]", "expected a date in ISO 8601, such as 2026-05-31T12:00:00"),
        ("20260531", "datetime64[ns]", "expected a date in ISO 8601"),
        ("1780228800000", "datetime64[ns]", "expected a date in ISO 8601"),
        ("2026-05-31T12", "datetime64[ns]", "expected a date in ISO 8601"),
        ("", "datetime64[ns]", "expected a date in ISO 8601"),
        ("2026-02-30", "datetime64[ns]", "no such day"),
        ("2026-05-31T24:00", "datetime64[ns]", "no such time"),
        ("2026-05-31T12:60", "datetime64[ns]", "no such time"),
        ("2026-05-31T12:00+24:00", "datetime64[s, UTC]", "no such time"),
        ("2026-05-31T12:00Z", "datetime64[ns]", "expected no time zone; the column has none"),
        ("2026-05-31T12:00", "datetime64[ns, UTC]", "expected a time zone, such as Z or +02:00"),
        ("2026-05-31T12:00:00.5", "datetime64[s]", "the column holds whole seconds"),
        ("2026-05-31T12:00:00.0000001", "datetime64[us]", "the column holds whole microseconds"),
        ("2300-01-01", "datetime64[ns]", "outside of the range of datetime64[ns]"),
        (1500, "datetime64[s]", "the column holds whole seconds"),
        (1.5, "datetime64[ns]", "expected a whole number of milliseconds since 1970"),
        (float("inf"), "datetime64[ns]", "expected a whole number of milliseconds since 1970"),
        (10**30, "datetime64[s]", "outside of the range of datetime64[s]"),
        (True, "datetime64[ns]", "expected a date as ISO 8601 text or in milliseconds since 1970, got a boolean"),
        (None, "datetime64[ns]", "expected a date as ISO 8601 text or in milliseconds since 1970, got null"),
    ],
)
def test_what_is_no_date_of_the_column_is_refused(value: Any, dtype: str, message: str) -> None:
    """Nothing is guessed and nothing is rounded: another form, another zone or a finer unit is an error."""
    assert message in decoded(value, dtype)


@given(st.integers(-(2**63) + 1, 2**63 - 1), st.sampled_from(["s", "ms", "us", "ns"]))
def test_every_date_survives_as_text(count: int, unit: str) -> None:
    """numpy's own text of a date becomes that date again, to the last unit."""
    date = np.array([count]).view(f"datetime64[{unit}]")
    text = str(date[0])
    if len(text.partition("-")[0]) == 4 and text[0] != "-" and text >= "0001":
        assert decoded(text, f"datetime64[{unit}]") == text


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Vienna", "+05:30"])
def test_the_trained_dtype_goes_in_from_every_form(unit: str, zone: str | None) -> None:
    """JSON, CSV, Arrow and Parquet give the estimator the trainer's frame: its unit, zone and every instant."""
    frame = typed_models.date_frame(zone, unit).iloc[:20]
    schema = sample.describe(frame, "frame", {})
    assert schema.columns[0].datatype == "BYTES"
    for name, table in tables(frame, schema).items():
        given = table.to_input()
        assert isinstance(given, pd.DataFrame)
        pd.testing.assert_frame_equal(given, frame, obj=name)


def tables(frame: pd.DataFrame, schema: Input) -> dict[str, Table]:
    plain = frame.assign(when=frame["when"].dt.tz_convert("UTC") if frame["when"].dt.tz else frame["when"])
    epoch = [int(stamp.value // 10**6) for stamp in plain["when"].dt.as_unit("ns")]
    arrow_table = pa.Table.from_pandas(frame, preserve_index=False)
    stream, file = pa.BufferOutputStream(), pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, arrow_table.schema) as writer:
        writer.write_table(arrow_table)
    pq.write_table(arrow_table, file)
    rows = sample_rows.rows_as_cells(frame, schema)
    return {
        "json": from_rows(rows, schema),
        "epoch": from_rows([[at, amount] for at, amount in zip(epoch, frame["amount"], strict=True)], schema),
        "isoformat": from_rows([[w.isoformat(), a] for w, a in frame.itertuples(index=False)], schema),
        "csv": from_csv(frame.to_csv(index=False).encode(), schema, STRICT),
        "csv, epoch": from_csv(frame.assign(when=epoch).to_csv(index=False).encode(), schema, STRICT),
        "arrow": arrow.from_arrow(stream.getvalue().to_pybytes(), schema, STRICT, 2**30),
        "parquet": arrow.from_parquet(file.getvalue().to_pybytes(), schema, STRICT, 2**30),
    }


def arrow_body(values: pa.Array) -> bytes:
    table = pa.table({"when": values})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    body: bytes = sink.getvalue().to_pybytes()
    return body


@pytest.mark.parametrize(
    ("kind", "dtype", "message"),
    [
        (pa.timestamp("us", "UTC"), "datetime64[us]", r"expected no time zone; the column has none, got timestamp\[us"),
        (pa.timestamp("us"), "datetime64[us, UTC]", r"expected a time zone, got timestamp\[us\]"),
        (pa.timestamp("us"), "datetime64[s]", "the column holds whole seconds"),
        (pa.timestamp("s"), "object", "send dates as text"),
    ],
)
def test_arrow_dates_that_do_not_fit_are_refused(kind: Any, dtype: str, message: str) -> None:
    """Another zone, a finer unit and dates for a column of text are errors that name the type."""
    values = pa.array([1_500_000], kind)
    with pytest.raises(RequestRejected, match=message):
        arrow.from_arrow(arrow_body(values), Input("frame", (column(dtype),)), STRICT, 2**30)


def test_arrow_dates_of_other_units_are_converted_exactly() -> None:
    """Days, coarser and finer units become the trained unit; a missing date stays missing, or is refused."""
    nullable = Input("frame", (column("datetime64[us]", nullable=True),))
    for values in (pa.array([1, None], pa.date32()), pa.array([86400, None], pa.timestamp("s")),
                   pa.array([86400 * 10**9, None], pa.timestamp("ns"))):  # fmt: skip
        frame = arrow.from_arrow(arrow_body(values), nullable, STRICT, 2**30).to_input()
        assert isinstance(frame, pd.DataFrame)
        assert str(frame["when"].dtype) == "datetime64[us]"
        assert frame["when"].tolist() == [pd.Timestamp("1970-01-02"), pd.NaT]
    with pytest.raises(RequestRejected, match="got null"):
        arrow.from_arrow(arrow_body(pa.array([None], pa.timestamp("us"))), Input("frame", (column(),)), STRICT, 2**30)


def test_compact_dates_in_csv_are_no_milliseconds() -> None:
    """20260531 could be a date, so CSV refuses it; a number of milliseconds has more digits."""
    schema = Input("frame", (column(), Column("x", "FP64", "float64")))
    with pytest.raises(RequestRejected, match="expected a date in ISO 8601"):
        from_csv(b"20260531,1\n", schema, STRICT, "absent")
    assert from_csv(b"1780228800000,1\n", schema, STRICT).rows == 1


@pytest.mark.parametrize("zone", [None, "Europe/Vienna"])
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_model_of_dates_answers_as_in_memory(zone: str | None, ending: str, tmp_path: Path) -> None:
    """The hour of the week in the column's own zone; a CSV sample needs the type, which the hint names."""
    model = typed_models.dates(zone)
    dtype = str(model.frame["when"].dtype)
    path = model.csv(tmp_path) if ending == "csv" else model.parquet(tmp_path)
    types = {"when": dtype} if ending == "csv" else {}
    frame, _ = sample_files.read(path, model.estimator, types=types)
    contract = learned(model.estimator, frame)
    assert contract.input.columns[0].dtype == dtype
    given = from_rows(sample_rows.rows_as_cells(model.frame, contract.input), contract.input).to_input()
    np.testing.assert_array_equal(model.estimator.predict(given), model.answers)


def test_a_date_that_the_model_drops_does_not_matter(tmp_path: Path) -> None:
    """A column of dates that no step takes is published from either file, and the answers are those of memory."""
    model = typed_models.unused_date()
    for path in (model.csv(tmp_path), model.parquet(tmp_path)):
        frame, _ = sample_files.read(path, model.estimator)
        # The unit of the dates differs by the kind of the file, and each unit refuses dates that the other one takes.
        contract = publish("m", model.estimator, frame, repository=tmp_path / "r", runtime="sklearn", breaking=True)
        given = from_rows(sample_rows.rows_as_cells(frame, contract.input), contract.input).to_input()
        np.testing.assert_array_equal(model.estimator.predict(given), model.answers)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pd.to_timedelta([1, 2], unit="h"), "timedelta64"),
        (pd.period_range("2026-01", periods=2, freq="M"), "period"),
        (pd.Series([pd.Timestamp("2026-01-01").date()] * 2, dtype=object), "dates as datetime64"),
        (pd.Categorical(pd.to_datetime(["2026-01-01", "2026-01-02"])), "dates as categories"),
    ],
)
def test_other_types_of_time_are_refused_at_publish(values: Any, message: str, tmp_path: Path) -> None:
    """Durations, periods and Python's own dates have no spelling in JSON: the error says what to convert them to.

    In a column that the model drops they are text (`test_sample.py`).
    """
    frame = pd.DataFrame({"when": values, "amount": [1.0, 2.0]})
    with pytest.raises(PublishFailed, match=message):
        publish("m", FunctionTransformer().fit(frame), frame, repository=tmp_path)


def test_the_client_sends_dates_as_text() -> None:
    """`datetime` objects, pandas' and numpy's dates become ISO 8601 text, which the column takes; NaT becomes null."""
    from datetime import UTC, datetime

    from tableside_client import rows

    frame = pd.DataFrame({"when": pd.to_datetime(["2026-05-31T12:00:00.5", None], format="ISO8601")})
    assert rows.body(frame) == {"inputs": {"when": ["2026-05-31T12:00:00.500000", None]}}
    array = frame["when"].to_numpy()
    assert rows.body(array) == {"instances": [str(array[0]), None]}
    zoned = [[datetime(2026, 5, 31, 12, tzinfo=UTC)], [np.datetime64("2026-05-31")], [np.datetime64("NaT", "s")]]
    assert rows.body(zoned) == {"instances": [["2026-05-31T12:00:00+00:00"], ["2026-05-31"], [None]]}
    assert decoded("2026-05-31T12:00:00+00:00", "datetime64[s, UTC]") == "2026-05-31T12:00:00"
