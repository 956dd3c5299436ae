"""Reads a CSV sample as text, and gives each column its type with the rules of `tableside_contract.csv_types`."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import csv as arrow_csv

from tableside.errors import PublishFailed
from tableside.publishing import column_types
from tableside.publishing.column_types import Types
from tableside_contract import csv_types, model_choice, readings
from tableside_contract.csv_types import Rules, Texts
from tableside_contract.errors import RecordFailed
from tableside_contract.readings import Known, Label

labels = csv_types.labels


def typed(
    columns: Mapping[str, Texts], types: Types, known: Mapping[Label, Known], estimator: object, names: list[Label]
) -> tuple[pd.DataFrame, list[str]]:
    """Return the columns as a DataFrame with the declared types, those of the model, or those that it alone takes.

    names: the columns of the model in order. Also returns notes. Raises PublishFailed for a column whose type stays
    open, with what to declare.
    """
    rules = Rules(
        types, known, readings.dropped(estimator, names), column_types.of_text, column_types.date_dtype,
        model_choice.asker(estimator),
    )  # fmt: skip
    try:
        return csv_types.typed(columns, rules)
    except RecordFailed as problem:
        raise PublishFailed(str(problem)) from problem


def read_text(path: Path) -> dict[str, Texts]:
    """Return the columns of a CSV file with a header line as text. Raises PublishFailed."""
    try:
        body = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
        names = next(csv.reader(io.StringIO(body.decode(), newline="")), [])
    except (OSError, ValueError, csv.Error) as problem:
        raise PublishFailed(f"{path}: {problem}") from problem
    if not names:
        raise PublishFailed(f"{path}: the file is empty; a header line with the names of the columns was expected")
    for name, count in Counter(names).items():
        if count > 1:
            raise PublishFailed(f"{path}: the sample has more than one column {name!r}. Give each column its own name")
    fields = [str(at) for at in range(len(names))]
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(body),
            read_options=arrow_csv.ReadOptions(column_names=fields, block_size=min(len(body) + 2, 2**31 - 1)),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=len(names) > 1),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(fields, pa.string()), strings_can_be_null=True, null_values=[""],
                quoted_strings_can_be_null=False,
            ),
        )  # fmt: skip
    except pa.ArrowException as problem:
        raise PublishFailed(f"{path}: {problem}") from problem
    return {name: table.column(at).to_pylist()[1:] for at, name in enumerate(names)}
