"""Samples that are no pandas tables but speak Arrow: polars DataFrames, Arrow tables, and others with its C stream."""

from __future__ import annotations

from typing import Any

import pandas as pd

from tableside.contracts import answers
from tableside.contracts.schema import Contract
from tableside.decoding.json_tables import from_rows
from tableside.errors import PublishFailed
from tableside.publishing import sample_rows
from tableside.runtimes import golden
from tableside.runtimes.sklearn import SklearnRuntime

_ROWS = 200


def is_arrow(sample: object) -> bool:
    """Return whether a sample gives its columns as an Arrow stream and is not a pandas DataFrame."""
    return hasattr(sample, "__arrow_c_stream__") and not isinstance(sample, (pd.DataFrame, pd.Series))


def to_frame(sample: Any) -> pd.DataFrame:
    """Return the columns as a DataFrame, with the dtypes that pandas gives to Arrow's. Raises PublishFailed."""
    import pyarrow as pa

    try:
        frame: pd.DataFrame = pa.table(sample).to_pandas()
    except (pa.ArrowException, TypeError, ValueError) as problem:
        raise PublishFailed(f"the sample cannot be read as an Arrow table: {problem}") from problem
    return frame


def check(runtime: SklearnRuntime, sample: Any, contract: Contract) -> None:
    """Raise PublishFailed unless the estimator answers the sample itself as it answers the same rows from a request.

    A request becomes a pandas table, also for an estimator that was fitted on a polars DataFrame. An estimator that
    refuses the sample's own kind was fitted on another one, and is not compared.
    """
    if not hasattr(sample, "head"):
        return
    rows = sample.head(_ROWS)
    try:
        own = answers.collect(contract.outputs, runtime.run, rows.select([c.name for c in contract.input.columns]))
    except Exception:  # noqa: BLE001 - whatever it raises, it was not fitted on such a table
        return
    cells = sample_rows.rows_as_cells(to_frame(rows), contract.input)
    decoded = answers.collect(contract.outputs, runtime.run, from_rows(cells, contract.input).to_input())
    for name, array in own.items():
        if not golden.all_agree(golden.cells_of(array), golden.cells_of(decoded[name])):
            raise PublishFailed(
                f"{name} differs between the {type(sample).__module__.partition('.')[0]} table and the same rows as a "
                "pandas table, which is what a request becomes. Fit the estimator on sample.to_pandas()"
            )
