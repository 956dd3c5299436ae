"""Hypothesis strategies for bodies that are small and hold, or state, as much as they can."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from tests.hostile.models import HASH_MODULUS, MODELS
from tests.spellings import HEADER, INVOKE, V1, V2, Request, npy

Draw = Callable[[st.SearchStrategy[Any]], Any]
MOST_CONTENT = 12 << 20
"""The most bytes before compression."""
MOST_BODY = 300_000
"""The most bytes of a body."""
JSON = {"Content-Type": "application/json"}
CSV = ("text/csv", "text/csv; header=present", "text/csv; header=absent")
STREAM, FILE = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"

sizes = st.sampled_from([0, 1, 3, 64, 1000, 20_000, 300_000, 3_000_000, MOST_CONTENT])
"""Bytes of content to aim at."""
_CONTENT_TYPES = tuple({"content_type": kind} for kind in ("base64", "str", "np", "datetime", "pd", "", None, 1))
_FITTING = {"numbers": "0", "mixed": "null", "level": "1", "wide": "null", "words": '"a"', "texts": '""'}
_CELLS = (
    "0", "null", "[]", "{}", '""', '"a"', "1e308", "true", "-0.0", "1", "[0]", "[[]]", '{"":0}', '{"a":null}',
    '"2020-01-01"', "0.1234567890123456", '"\\u0000"', '"\\ud83d\\ude00"', "[null]", str(2**63), str(-(2**63)),
    "9" * 400, '"' + "x" * 5000 + '"',
)  # fmt: skip


def _fill(pattern: str, size: int, between: str = ",") -> str:
    return between.join([pattern] * max(1, size // (len(pattern) + len(between))))


def _counted(make: Callable[[int], str], size: int) -> str:
    """Different texts, such as keys or multiples of the modulus of Python's hashes."""
    return ",".join(make(at) for at in range(max(1, size // (len(make(10**6)) + 1))))


@st.composite
def json_value(draw: Draw, model: str, size: int) -> str:
    """Text of one JSON value of about `size` bytes: flat, nested, or with many keys."""
    kind = draw(
        st.sampled_from(["cells", "rows", "records", "nest", "nest objects", "keys", "same keys", "equal hashes"])
    )
    cell = draw(st.sampled_from([*_CELLS, *[_FITTING[model]] * 8]))
    width = len(MODELS[model].columns)
    if kind == "cells":
        return f"[{_fill(cell, size)}]"
    if kind == "rows":
        return f"[{_fill('[' + _fill(cell, width * (len(cell) + 1)) + ']', size)}]"
    if kind == "records":
        record = ",".join(f"{json.dumps(column.name)}:{cell}" for column in MODELS[model].columns)
        return f"[{_fill('{' + record + '}', size)}]"
    if kind in ("nest", "nest objects"):
        deep = draw(st.sampled_from([2, 9, 63, 64, 65, 1000, 100_000]))
        opened, closed = ("[", "]") if kind == "nest" else ('{"a":', "}")
        one = opened * deep + (cell if kind == "nest objects" else "") + closed * deep
        return f"[{_fill(one, size)}]" if len(one) < size else one
    if kind == "same keys":
        return "{" + _fill(f'"a":{cell}', size) + "}"
    if kind == "keys":
        return "{" + _counted(lambda at: f'"k{at}":0', size) + "}"
    rows = _counted(lambda at: f"[{at * HASH_MODULUS}]", size)
    return f"[{rows}]" if draw(st.booleans()) else f"[{rows.replace('[', '').replace(']', '')}]"


@st.composite
def json_requests(draw: Draw) -> tuple[str, Request]:
    """JSON of every protocol, with one large member."""
    model, size = draw(st.sampled_from(sorted(MODELS))), draw(sizes)
    value = draw(json_value(model, size))
    name = json.dumps(MODELS[model].columns[0].name)
    template, path = draw(
        st.sampled_from(
            [
                ('{"instances":%s}', V1), ('{"inputs":%s}', V1), ('{"instances":[0],"signature_name":%s}', V1),
                ('{"instances":[[0,0,0,0]],"x":%s}', V1), ('{"inputs":{' + name + ":%s}}", V1), ("%s", INVOKE),
                ('{"dataframe_split":{"data":%s}}', INVOKE), ('{"dataframe_split":{"columns":%s,"data":[]}}', INVOKE),
                ('{"dataframe_records":%s}', INVOKE), ('{"instances":%s}', INVOKE), ('{"inputs":%s}', INVOKE),
                ('{"inputs":[{"name":' + name + ',"shape":[SIZE],"datatype":"KIND","data":%s}]}', V2),
                ('{"inputs":[{"name":"m","shape":[SIZE,WIDTH],"datatype":"KIND","data":%s}]}', V2),
                ('{"inputs":%s}', V2), ('{"inputs":[{"name":"m","shape":%s,"datatype":"FP64","data":[]}]}', V2),
                ('{"inputs":[],"outputs":%s}', V2), ('{"inputs":[],"parameters":{"a":%s}}', V2),
                ('{"inputs":[],"outputs":[OUTPUTS]}', V2),
                ('{"inputs":[{"name":' + name + ',"shape":[SIZE],"datatype":"BYTES","data":%s,'
                 '"parameters":{"content_type":"base64"}}]}', V2),
            ]
        )
    )  # fmt: skip
    width = len(MODELS[model].columns)
    cells = max(1, value.count(",") + 1)
    text = template.replace("%s", value) if "%s" in template else template
    text = text.replace("WIDTH", str(width)).replace("SIZE", str(cells // width if "WIDTH" in template else cells))
    text = text.replace("KIND", draw(st.sampled_from(["FP64", "FP32", "INT64", "INT8", "BOOL", "BYTES"])))
    text = text.replace("OUTPUTS", _fill('{"name":"predict"}', size))
    return model, Request(path, text.encode(), dict(JSON))


@st.composite
def lines_requests(draw: Draw) -> tuple[str, Request]:
    """JSON lines: very many short ones, long ones, empty ones, and lines that are no value by themselves."""
    model, size = draw(st.sampled_from(sorted(MODELS))), draw(sizes)
    kind = draw(st.sampled_from(["cell", "row", "value", "empty", "broken"]))
    cell = draw(st.sampled_from([*_CELLS, _FITTING[model], "NaN", "Infinity"]))
    if kind == "value":
        text = draw(json_value(model, size)).replace("\n", " ")
    else:
        width = len(MODELS[model].columns)
        line = {"cell": cell, "row": f"[{_fill(cell, width * (len(cell) + 1))}]", "empty": "", "broken": "[1,2"}[kind]
        text = _fill(line, size, draw(st.sampled_from(["\n", "\r\n", "\n\n"])))
    names = ("application/jsonlines", "application/x-jsonlines", "application/x-ndjson")
    return model, Request(INVOKE, text.encode(), {"Content-Type": draw(st.sampled_from(names))})


@st.composite
def npy_requests(draw: Draw) -> tuple[str, Request]:
    """npy files whose header states more than there is, another dtype, or a shape of none."""
    model, size = draw(st.sampled_from(sorted(MODELS))), draw(sizes)
    width = len(MODELS[model].columns)
    dtype = np.dtype(draw(st.sampled_from(["f8", "f4", "f2", "i1", "u8", "?", ">i4", "U1", "U40", "U9000"])))
    array = np.zeros((size // width // dtype.itemsize, width), dtype)
    body = npy(draw(st.sampled_from([array, array.reshape(-1), np.asfortranarray(array)])))
    old = draw(st.sampled_from([f"({len(array)}, ", "False", "descr", "<", "}"]))
    new = draw(st.sampled_from([old, "(9999999999999, ", "(-1, ", "(" * 50, " ", "|O", "<U99999999", "'" * 40]))
    begin = body[:128].replace(old.encode(), new.encode(), 1)
    length = draw(st.sampled_from([begin[8:10], begin[8:10], b"\xff\xff", b"\0\0"]))
    return model, Request(INVOKE, begin[:8] + length + begin[10:] + body[128:], {"Content-Type": "application/x-npy"})


@st.composite
def csv_requests(draw: Draw) -> tuple[str, Request]:
    """CSV of many rows, columns, quotes or empty lines."""
    model, size = draw(st.sampled_from(sorted(MODELS))), draw(sizes)
    names = [column.name for column in MODELS[model].columns]
    cell = draw(
        st.sampled_from(
            ["", "0", "a", '""', '"\n"', '"', "\x00", "1e999", "9" * 400, "x" * 5000, "é", "2020-01-01", "true"]
        )
    )
    row = draw(
        st.sampled_from([",".join([cell] * len(names)) + "\n", "\n", "\r\n", ",", cell + ",", '"', cell + "\n", ",\n"])
    )
    head = draw(
        st.sampled_from(["", ",".join(names) + "\n", ",".join(names * 40) + "\n", "\ufeff" + ",".join(names) + "\n"])
    )
    text = head + row * max(1, size // max(1, len(row)))
    return model, Request(INVOKE, text.encode(), {"Content-Type": draw(st.sampled_from(CSV))})


def _coded(rows: int) -> Any:
    values = max(1, rows // 2)
    codes = np.arange(rows, dtype=np.int32) % values
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array([str(at) for at in range(values)]))


_TYPED: dict[str, Callable[[int], Any]] = {
    "null": pa.nulls,
    "typed null": lambda rows: pa.nulls(rows, pa.float64()),
    "dictionary": lambda rows: pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), ["y" * 50_000]),
    "many values": _coded,
    "equal hashes": lambda rows: pa.array(np.arange(rows, dtype=np.float64) * HASH_MODULUS),
    "text": lambda rows: pa.array(["a"] * rows),
    "view": lambda rows: pa.array(["long enough to be outside"] * rows, pa.string_view()),
    "ends": lambda rows: pa.RunEndEncodedArray.from_arrays(pa.array([max(1, rows)], pa.int32()), pa.array([1.0])),
    "lists": lambda rows: pa.array([[0.0]] * rows),
    "date": lambda rows: pa.array(np.zeros(rows, np.int64), pa.timestamp("ns")),
    "zeros": lambda rows: pa.array(np.zeros(rows)),
    "float16": lambda rows: pa.array(np.zeros(rows, np.float16)),
}
"""Makers of an Arrow array of a number of cells, by what is in them."""


@st.composite
def columnar_tables(draw: Draw, kinds: tuple[str, ...] = tuple(_TYPED)) -> tuple[str, Any]:
    """A table of one kind of cells for the columns of a model, for some of them, or for many unknown ones."""
    model = draw(st.sampled_from(sorted(MODELS)))
    names = [column.name for column in MODELS[model].columns]
    names = draw(st.sampled_from([names, names[:1], names * 2, [f"u{at}" for at in range(3000)], []]))
    most = 2_000_000 if len(names) < 10 else 20_000 if len(names) < 1000 else 20
    rows = min(draw(st.sampled_from([0, 1, 100, 5000, 70_000, 1_000_001, 2_000_000])), most)
    kind = draw(st.sampled_from(kinds))
    if kind in ("many values", "equal hashes", "lists", "text", "view"):
        rows = min(rows, 70_000)
    array = _TYPED[kind](rows)
    return model, pa.Table.from_arrays([array] * len(names), names=names)


@st.composite
def arrow_requests(draw: Draw) -> tuple[str, Request]:
    """Arrow streams, and files, which are no streams."""
    model, table = draw(columnar_tables())
    options = pa.ipc.IpcWriteOptions(compression=draw(st.sampled_from([None, "lz4", "zstd"])))
    open_ = draw(st.sampled_from([pa.ipc.new_stream, pa.ipc.new_stream, pa.ipc.new_file]))
    rows = draw(st.sampled_from([None, 1, 1000]))
    sink = io.BytesIO()
    with open_(sink, table.schema, options=options) as writer:
        writer.write_table(table if rows is None else table.slice(0, rows * 300), max_chunksize=rows)
    return model, Request(INVOKE, sink.getvalue(), {"Content-Type": STREAM})


@st.composite
def parquet_requests(draw: Draw) -> tuple[str, Request]:
    """Parquet with repeated values, empty pages, and many row groups or columns."""
    kinds = tuple(kind for kind in _TYPED if kind not in ("ends", "view"))
    model, table = draw(columnar_tables(kinds))
    rows = draw(st.sampled_from([1, 100, 100_000, 2_000_000]))
    if rows < 1000:
        table = table.slice(0, rows * (300 if len(table.column_names) < 10 else 3))
    names = list(dict.fromkeys(table.column_names))
    sink = io.BytesIO()
    pq.write_table(
        table.select([table.column_names.index(name) for name in names]), sink, row_group_size=rows,
        compression=draw(st.sampled_from(["none", "snappy", "zstd", "gzip", "brotli"])),
        use_dictionary=draw(st.booleans()), data_page_version=draw(st.sampled_from(["1.0", "2.0"])),
        data_page_size=draw(st.sampled_from([1, 1 << 20])) if len(table) < 10_000 else 1 << 20,
    )  # fmt: skip
    return model, Request(INVOKE, sink.getvalue(), {"Content-Type": FILE})


@st.composite
def binary_requests(draw: Draw) -> tuple[str, Request]:
    """V2 with raw tensors: of zeros, of empty texts, of sizes that are not true, and very many of them."""
    model, size = draw(st.sampled_from(sorted(MODELS))), draw(sizes)
    schema = MODELS[model]
    datatype = draw(st.sampled_from(["FP64", "FP32", "FP16", "INT64", "UINT8", "BOOL", "BYTES"]))
    width = {"FP64": 8, "INT64": 8, "FP32": 4, "BYTES": 4, "FP16": 2}.get(datatype, 1)
    tail = bytes(size)
    shape = draw(
        st.sampled_from(
            [[size // width], [size // width // len(schema.columns), len(schema.columns)], [2**53], [2**31, 2**31], [0]]
        )
    )
    stated = draw(st.sampled_from([size, 0, 2**60, -1]))
    name = draw(st.sampled_from([schema.columns[0].name, "m"]))
    tensor = {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": stated}}
    tensor["parameters"] = {**tensor["parameters"], **draw(st.sampled_from([{}, {}, *_CONTENT_TYPES]))}
    many = draw(st.sampled_from([1, 1, len(schema.columns), 3000]))
    named = [{**tensor, "name": schema.columns[at % len(schema.columns)].name} for at in range(many)]
    head = json.dumps(
        {"inputs": [tensor] if many == 1 else named, "parameters": {"binary_data_output": draw(st.booleans())}}
    ).encode()
    length = draw(st.sampled_from([len(head), len(head), 0, len(head) + size + 1]))
    return model, Request(V2, head + tail, {HEADER: str(length)})


def _encoded(request: Request, encoding: str) -> Request:
    pack = {
        "gzip": lambda body: gzip.compress(body, 6), "deflate": zlib.compress,
        "zstd": lambda body: pa.compress(body, "zstd", asbytes=True),
        "members": lambda body: gzip.compress(body[:1]) * 3 + gzip.compress(body),
    }  # fmt: skip
    if not encoding:
        return request
    name = "gzip" if encoding == "members" else encoding
    return Request(request.path, pack[encoding](request.body), {**request.headers, "Content-Encoding": name})


@st.composite
def hostile_requests(draw: Draw) -> tuple[str, Request]:
    """The model and the request, of at most MOST_BODY bytes: a longer body is compressed, or else cut."""
    model, request = draw(
        st.one_of(
            json_requests(),
            json_requests(),
            csv_requests(),
            arrow_requests(),
            parquet_requests(),
            binary_requests(),
            lines_requests(),
            npy_requests(),
        )
    )
    encoding = draw(st.sampled_from(["", "", "gzip", "deflate", "zstd", "members"]))
    if len(request.body) > MOST_BODY:
        encoding = encoding or "gzip"
    request = _encoded(request, encoding)
    return model, Request(request.path, request.body[:MOST_BODY], request.headers)
