"""Bodies that people write themselves for clients that write none: Java's HttpClient, curl and ab."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

Table = list[tuple[str, str, list[Any]]]
"""Name, dtype and cells of each column (`tests.clients.tables.as_json`)."""


def bodies(model: str, table: Table) -> Iterator[tuple[str, str, str, bytes]]:
    """Yield the name, path, Content-Type and text of each body."""
    names = [name for name, _, _ in table]
    rows = [list(row) for row in zip(*(cells for _, _, cells in table), strict=True)]
    records = [dict(zip(names, row, strict=True)) for row in rows]
    kind, v1, invoke = "application/json", f"/v1/models/{model}:predict", f"/models/{model}/invocations"
    yield "V1 instances", v1, kind, json.dumps({"instances": records}).encode()
    yield "V1 instances, UTF-8", v1, kind, json.dumps({"instances": rows}, ensure_ascii=False).encode()
    yield "V1 inputs", v1, kind, json.dumps({"inputs": {name: cells for name, _, cells in table}}).encode()
    yield "dataframe_split", invoke, kind, json.dumps({"dataframe_split": {"columns": names, "data": rows}}).encode()
    text = io.StringIO()
    csv.writer(text).writerows([names, *rows])
    yield "CSV", invoke, "text/csv", text.getvalue().encode()


def predictions(answer: bytes) -> list[float]:
    """The numbers of a JSON answer of V1 or `/invocations`."""
    content = json.loads(answer)
    return [float(each) for each in content.get("predictions", content.get("outputs"))]
