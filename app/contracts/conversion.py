"""Conversion between arrays and what an estimator takes and answers.

This file also runs in model processes, by the interpreters of other environments (tableside.model_process.child).
Therefore it needs Python 3.8 only, with any numpy and pandas, and imports only files of its own folder when it runs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Iterator, Mapping, Sequence

import numpy as np

if TYPE_CHECKING or __package__:
    from tableside.contracts import native_boosters, object_graph
else:
    import native_boosters
    import object_graph

if TYPE_CHECKING:
    import pandas as pd

    from tableside.contracts.array_type import Array
    from tableside.contracts.schema import Column


def to_matrix(columns: Sequence[Column], rows: int, arrays: Mapping[str, Array] | None, matrix: Array | None) -> Array:
    """Return the columns as one C-ordered writable array of shape [rows, columns], in the contract's order.

    Either `arrays` or `matrix` holds the table, as in tableside.contracts.table.Table.
    """
    if matrix is not None:
        # Some of scikit-learn's compiled code does not accept read-only memory, such as a request's body.
        return np.require(matrix, requirements=["C", "W"])
    assert arrays is not None
    parts = [arrays[column.name] for column in columns]
    return np.ascontiguousarray(np.column_stack(parts)) if parts else np.empty((rows, 0))


def to_frame(columns: Sequence[Column], arrays: Mapping[str, Array] | None, matrix: Array | None) -> pd.DataFrame:
    """Return the columns as a DataFrame with the dtypes that the estimator was trained on.

    Either `arrays` or `matrix` holds the table, as in tableside.contracts.table.Table.
    """
    import pandas as pd

    if arrays is None:
        assert matrix is not None
        dtypes = {column.dtype for column in columns}
        if len(dtypes) == 1 and str(matrix.dtype) in dtypes:
            return pd.DataFrame(matrix, columns=_names(tuple([column.label for column in columns])))
        return pd.DataFrame({c.label: _trained(matrix[:, at], c) for at, c in enumerate(columns)})
    return pd.DataFrame({c.label: _trained(arrays[c.name], c) for c in columns})


def _names(labels: tuple[str | int, ...]) -> pd.Index[Any]:
    """Return the columns of a DataFrame with these names. Making them anew takes longer than the DataFrame itself.

    Each caller gets an object of its own, because an estimator may set its `name`.
    """
    return _known_names(labels).view()


@lru_cache(maxsize=256)
def _known_names(labels: tuple[str | int, ...]) -> pd.Index[Any]:
    import pandas as pd

    return pd.DataFrame(np.empty((0, len(labels))), columns=list(labels)).columns


def _trained(array: Array, column: Column) -> object:
    """Convert an array to the column's trained dtype, as something that a DataFrame takes.

    Integers with a missing value stay float64, which is what pandas reads them as.
    """
    import pandas as pd

    if column.dtype == "category":
        categories = dict.fromkeys(column.categories or ())
        if not column.closed:  # the encoder handles unknown categories, which a Categorical would make missing
            categories.update(dict.fromkeys(cell for cell in array.tolist() if cell is not None and cell == cell))
        known = pd.Index(list(categories), dtype=column.categories_dtype or None)
        return pd.Categorical(array, categories=known, ordered=column.ordered)
    if column.is_date:
        return dates_with_zone(array, column.dtype)
    if (
        column.dtype in ("str", "string", "boolean") or column.dtype[0].isupper()
    ):  # a nullable dtype of pandas, such as Int64
        nullable_dtype: Any = column.dtype  # the stubs list every name of a dtype; this one is known at run time
        return pd.array(array, dtype=nullable_dtype)
    if array.dtype == object:
        if column.missing == "na":
            array = np.array([pd.NA if cell is None else cell for cell in array.tolist()], dtype=object)
        return pd.Series(array, dtype=object)  # from an array of text, pandas would infer its own text dtype
    if column.dtype in ("object", "bool") or column.datatype == "INT64":
        return array if column.dtype in ("bool", "object") else _whole(array, column)
    return array.astype(column.dtype, copy=False)


def dates_with_zone(array: Array, dtype: str) -> pd.Series[Any]:
    """Return an array of datetime64, which is in UTC if the dtype has a time zone, with that dtype."""
    import pandas as pd

    dates: pd.Series[Any] = pd.Series(array)
    zoned: Any = dtype
    return dates.dt.tz_localize("UTC").astype(zoned) if "," in dtype else dates


def _whole(array: Array, column: Column) -> Array:
    if array.dtype.kind == "f" and np.isnan(array).any():
        return array
    return array.astype(column.dtype, copy=False)


def as_array(answer: Any) -> Array:
    """One answer of an estimator as an array: float16 becomes float32, and long double becomes float64."""
    if hasattr(answer, "toarray"):
        answer = answer.toarray()
    if hasattr(answer, "to_numpy"):
        answer = answer.to_numpy()
    array: Array = np.asarray(answer)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    return array.astype(np.float64) if array.dtype == np.longdouble != np.float64 else array


def single_threaded(estimator: Any) -> Any:
    """Make the estimator and its parts compute with one thread, because the worker processes share the cores already.

    Every `n_jobs` becomes 1; boosters have settings of their own.
    """
    for part in object_graph.objects(estimator):
        if _has_jobs(part):
            part.n_jobs = 1  # type: ignore[attr-defined]
        native_boosters.use_one_thread(part)
    return estimator


def is_single_threaded(estimator: Any) -> bool:
    """Whether `single_threaded` would change nothing."""
    return not any(_has_jobs(part) or native_boosters.has_threads(part) for part in object_graph.objects(estimator))


def _has_jobs(part: object) -> bool:
    return hasattr(part, "get_params") and getattr(part, "n_jobs", None) not in (None, 1)


def parts(estimator: Any) -> Iterator[Any]:
    """Iterate over the estimator and every estimator inside it: steps, members of ensembles, fitted attributes."""
    return (part for part in object_graph.objects(estimator) if hasattr(part, "get_params"))
