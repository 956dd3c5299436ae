"""Bodies of predictions that are small and ask for much: each with what it did before the limits were there."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from benchmarks.attacks import parquet_bombs

DIABETES = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
PARQUET, STREAM = "application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"
GZIP = {"Content-Encoding": "gzip"}
HASH_MODULUS = 2**61 - 1
"""Python hashes each multiple of it to 0."""
WIDE_COLUMNS = 300
BOMBS = "tests/blueprints/test_decompression_bombs.py"
HOSTILE = "tests/blueprints/test_hostile_bodies.py"
PAGES = "tests/unit/test_parquet_pages.py"


@dataclass(frozen=True)
class Body:
    """A request to the data plane. before: what it did, as the report of the weakness says. expected: its status.

    make: makes its bytes and headers. inflated_bytes: its size when it is inflated, if it is compressed. test: the file
    of the test that sends it. inspect_ms: CPU time that reading what it states may take.
    """

    name: str
    before: str
    path: str
    expected: int
    test: str
    make: Callable[[], tuple[bytes, dict[str, str]]]
    inflated_bytes: int = 0
    inspect_ms: float = 0.0


def nulls() -> bytes:
    """Return an Arrow stream of a million rows without a value: null columns have no bytes."""
    table = pa.table({name: pa.nulls(1_000_000) for name in DIABETES})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def outputs(times: int, rows: int) -> bytes:
    """Return a V2 request for `rows` rows whose one output is requested `times` times."""
    data = ",".join(["1"] * rows * 4)
    asked = ",".join(['{"name":"predict_proba"}'] * times)
    head = f'{{"inputs":[{{"name":"x","shape":[{rows},4],"datatype":"FP64","data":[{data}]}}],"outputs":[{asked}]}}'
    return head.encode()


def nested(size: int, depth: int = 500) -> bytes:
    """Return a V1 request of about `size` bytes of lists in lists."""
    one = "[" * depth + "]" * depth
    return f'{{"instances":[{",".join([one] * (size // len(one)))}]}}'.encode()


def equal_hashes(rows: int) -> bytes:
    """Return integers that no category equals and that have one hash."""
    return json.dumps({"instances": [[at * HASH_MODULUS] for at in range(1, rows + 1)]}).encode()


def raw(datatype: str, width: int, rows: int) -> tuple[bytes, dict[str, str]]:
    """Return a V2 request with a raw tensor of zeros for the model `wide`. width: bytes of a number."""
    size = rows * WIDE_COLUMNS * width
    tensor = {
        "name": "x", "shape": [rows, WIDE_COLUMNS], "datatype": datatype, "parameters": {"binary_data_size": size}
    }  # fmt: skip
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + bytes(size), {"Inference-Header-Content-Length": str(len(head))}


def _packed_raw() -> tuple[bytes, dict[str, str]]:
    body, headers = raw("UINT8", 1, 80_000)
    return gzip.compress(body), {**headers, **GZIP}


_TO_DIABETES, _TO_IRIS = "/models/diabetes/invocations", "/v1/models/iris:predict"
_INFER_IRIS = "/v2/models/iris/infer"

BODIES = (
    Body(
        "Parquet: pages state 1 GB", "1.2 GB", _TO_DIABETES, 413, PAGES,
        lambda: (parquet_bombs.pages(DIABETES[:2], 1 << 29), {"Content-Type": PARQUET}),
    ),
    Body(
        "Parquet: pages state 4 GB", "over 2 GB and a killed worker", _TO_DIABETES, 413, PAGES,
        lambda: (parquet_bombs.pages(DIABETES[:8], 1 << 29), {"Content-Type": PARQUET}),
    ),
    Body(
        "Parquet: 900,000 schema elements", "1.4 GB, 11 s", _TO_DIABETES, 400, PAGES,
        lambda: (parquet_bombs.elements(900_000), {"Content-Type": PARQUET}),
    ),
    Body(
        "Parquet: 2,000 columns share 50 pages, gzip", "not reported: 0.6 s of CPU, calculated", _TO_DIABETES, 400,
        PAGES,
        lambda: (gzip.compress(parquet_bombs.shared_pages(2000, 50)), {"Content-Type": PARQUET, **GZIP}), 80_000, 30.0,
    ),
    Body(
        "Arrow: a million rows of nulls", "25 s frozen, 967 MB kept (3.3 M rows)", _TO_DIABETES, 413, BOMBS,
        lambda: (nulls(), {"Content-Type": STREAM}),
    ),
    Body(
        "V2: one output 4000 times, gzip", "2 GB, worker killed, a neighbour waited 32 s", _INFER_IRIS, 400, BOMBS,
        lambda: (gzip.compress(outputs(4000, 8000)), GZIP), 164_081,
    ),
    Body(
        "V2: one output 1000 times", "200 with 124 MB", _INFER_IRIS, 400, BOMBS,
        lambda: (outputs(1000, 2000), {"Content-Type": "application/json"}),
    ),
    Body(
        "JSON: 16 MB of lists in lists, gzip", "1 GB kept, 9.5 s", _TO_IRIS, 400, "tests/unit/test_json_size.py",
        lambda: (gzip.compress(nested(16_776_000)), GZIP), 16_776_000,
    ),
    Body(
        "JSON: 67 MB of lists in lists, gzip", "2.8 GB, worker killed", _TO_IRIS, 413, "tests/unit/test_json_size.py",
        lambda: (gzip.compress(nested(67_104_000)), GZIP), 67_104_000,
    ),
    Body(
        "JSON: integers of one hash in a category", "18 s frozen", "/v1/models/level:predict", 400, BOMBS,
        lambda: (equal_hashes(20_600), {"Content-Type": "application/json"}),
    ),
    Body(
        "V2: raw bytes, gzip", "no limit on cells", "/v2/models/wide/infer", 413, HOSTILE, _packed_raw, 24_000_000,
    ),
)  # fmt: skip
"""In the order of the report."""
