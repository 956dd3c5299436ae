"""Tables of a sample on the wire, with every dtype that they have: publish asks an estimator in its environment.

A request's table is not sent like this (see Loaded.prepare): its columns have the few dtypes that decoding makes. Runs
in the server and in other environments: Python 3.8, no import of Tableside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING or __package__:
    from tableside.model_process.child.wire import Writer, read_array
else:
    from wire import Writer, read_array


def write(data: Any, writer: Writer) -> dict[str, Any]:
    """Add a DataFrame, an array or a list of texts to a message. Raises WireError for cells that no message carries."""
    if isinstance(data, list):
        texts = np.empty(len(data), dtype=object)
        texts[:] = data
        return {"texts": writer.add(texts)}
    if isinstance(data, np.ndarray):
        return {"matrix": writer.add(data)}
    names = [name.item() if hasattr(name, "item") else name for name in data.columns.tolist()]
    if len({str(dtype) for dtype in data.dtypes}) == 1 and isinstance(data.dtypes.iloc[0], np.dtype):
        values = data.to_numpy()
        if values.dtype != object:  # as one matrix it keeps its order in memory, on which last digits depend
            return {"names": names, "values": writer.add(values)}
    columns = [_write_column(data.iloc[:, at], writer) for at in range(len(names))]
    return {"names": names, "columns": columns}


def _write_column(series: Any, writer: Writer) -> dict[str, Any]:
    dtype = series.dtype
    if hasattr(series, "cat"):
        categories = series.cat.categories
        return {
            "codes": writer.add(series.cat.codes.to_numpy()), "ordered": bool(series.cat.ordered),
            "categories": writer.add(categories.to_numpy().astype(object)), "categories_dtype": str(categories.dtype),
        }  # fmt: skip
    if getattr(dtype, "tz", None) is not None:
        return {"utc": writer.add(series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()), "dtype": str(dtype)}
    if isinstance(dtype, np.dtype) and dtype.kind != "O":
        return {"array": writer.add(series.to_numpy())}
    cells = series.to_numpy(dtype=object)
    absent = [type(cell).__name__ in ("NAType", "NaTType") for cell in cells]
    if isinstance(dtype, np.dtype) and not any(absent):
        return {"array": writer.add(cells)}
    plain = np.empty(len(cells), dtype=object)
    plain[:] = [None if is_absent or cell != cell else cell for cell, is_absent in zip(cells, absent)]
    return {"cells": writer.add(plain), "dtype": str(dtype)}


def read(spec: dict[str, Any], payload: bytearray) -> Any:
    """Return what `write` was given."""
    if "texts" in spec:
        return read_array(spec["texts"], payload).tolist()
    if "matrix" in spec:
        return read_array(spec["matrix"], payload)
    import pandas as pd

    names = spec["names"]
    if "values" in spec:
        return pd.DataFrame(read_array(spec["values"], payload), columns=names)
    columns = [_read_column(column, payload) for column in spec["columns"]]
    return pd.DataFrame(dict(zip(names, columns)))


def _read_column(column: dict[str, Any], payload: bytearray) -> Any:
    import pandas as pd

    if "codes" in column:
        categories = pd.Index(read_array(column["categories"], payload).tolist(), dtype=column["categories_dtype"])
        return pd.Categorical.from_codes(
            read_array(column["codes"], payload), categories=categories, ordered=column["ordered"]
        )
    if "utc" in column:
        utc: Any = pd.Series(read_array(column["utc"], payload))
        return utc.dt.tz_localize("UTC").astype(column["dtype"])
    if "array" in column:
        array = read_array(column["array"], payload)
        return pd.Series(array, dtype=object) if array.dtype == object else array
    cells = read_array(column["cells"], payload)
    if column["dtype"] == "str" and int(pd.__version__.partition(".")[0]) < 3:
        # Older releases of pandas hold text as objects, and would make text of a missing cell.
        return pd.Series([np.nan if cell is None else cell for cell in cells.tolist()], dtype=object)
    if column["dtype"] == "object":
        cells[:] = [pd.NA if cell is None else cell for cell in cells.tolist()]
        return pd.Series(cells, dtype=object)
    return pd.array(cells, dtype=column["dtype"])
