"""One table as a request in every format that Tableside reads, for the property tests."""

from __future__ import annotations

import base64
import gzip
import io
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tableside.contracts.schema import Column, Input

HEADER = "Inference-Header-Content-Length"
PACKED = {"FP64": "<f8", "FP32": "<f4", "BOOL": "?"}
INTEGERS = ("INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64")
ARROW = {"FP64": pa.float64(), "FP32": pa.float32(), "INT64": pa.int64(), "BOOL": pa.bool_(), "BYTES": pa.string()}


@dataclass(frozen=True)
class Request:
    """A request. `path` has MODEL in place of the model's name."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


V1, V2, INVOKE = "/v1/models/MODEL:predict", "/v2/models/MODEL/infer", "/models/MODEL/invocations"


def spellings(schema: Input, rows: list[list[Any]], chance: Any) -> Iterator[tuple[str, Request]]:
    """Yield the name and request of each format that can hold these rows. `chance` shuffles the columns."""
    names = [column.name for column in schema.columns]
    order = chance.sample(names, len(names))
    columns = {name: [row[names.index(name)] for row in rows] for name in order}
    records = [{name: columns[name][at] for name in order} for at in range(len(rows))]
    sparse = [{name: cell for name, cell in record.items() if cell is not None} for record in records]
    split = {"columns": order, "data": [list(record.values()) for record in records]}
    yield from _json_rows(rows, records, sparse, columns, split)
    for kind in ("flat", "column"):
        yield f"V2 tensors, {kind}", _json(V2, {"inputs": [_tensor(c, columns[c.name], kind) for c in schema.columns]})
    yield "V2 binary tensors", _binary([(c, columns[c.name]) for c in chance.sample(schema.columns, len(names))])
    if schema.is_numeric and len({column.datatype for column in schema.columns}) == 1:
        yield from _matrices(schema.columns[0], rows, len(names))
    yield from _csvs(order, names, records, rows)
    yield from _lines(rows, records, sparse)
    yield from _npy(schema, rows)
    if "BYTES" in {column.datatype for column in schema.columns}:
        coded = [_base64(_tensor(c, columns[c.name], "column")) for c in schema.columns]
        yield "V2 tensors, base64", _json(V2, {"inputs": coded, "parameters": {"content_type": "pd"}})
    table = pa.table({c.name: pa.array(columns[c.name], ARROW[c.datatype]) for c in schema.columns}).select(order)
    yield from _arrow(table)


def _json(path: str, content: Any) -> Request:
    return Request(path, json.dumps(content, ensure_ascii=False).encode(), {"Content-Type": "application/json"})


def _json_rows(rows: Any, records: Any, sparse: Any, columns: Any, split: Any) -> Iterator[tuple[str, Request]]:
    yield "V1 rows", _json(V1, {"instances": rows})
    yield "V1 named rows", _json(V1, {"instances": records})
    if all(sparse):  # a row without a cell is refused
        yield "V1 named rows, missing keys", _json(V1, {"instances": sparse})
    yield "V1 columns", _json(V1, {"inputs": columns})
    yield "V1 rows as inputs", _json(V1, {"inputs": rows})
    yield "dataframe_split", _json(INVOKE, {"dataframe_split": split})
    yield "dataframe_split without names", _json(INVOKE, {"dataframe_split": {"data": rows, "index": [7] * len(rows)}})
    yield "dataframe_records", _json(INVOKE, {"dataframe_records": records})
    yield "instances", _json(INVOKE, {"instances": rows, "params": {}})
    yield "inputs of columns", _json(INVOKE, {"inputs": columns})
    yield "inputs of rows", _json(INVOKE, {"inputs": rows})
    yield "bare array", _json(INVOKE, rows)
    whole = json.dumps({"instances": rows}).encode()
    yield "gzip", Request(V1, gzip.compress(whole[:9]) + gzip.compress(whole[9:]), {"Content-Encoding": "gzip"})
    yield "deflate", Request(V1, zlib.compress(whole), {"Content-Encoding": "deflate"})
    raw = zlib.compressobj(wbits=-15)
    yield "raw deflate", Request(V1, raw.compress(whole) + raw.flush(), {"Content-Encoding": "deflate"})
    yield "zstd", Request(V1, pa.compress(whole, "zstd", asbytes=True), {"Content-Encoding": "zstd"})


def datatype_of(column: Column, values: list[Any]) -> str:
    """Return the narrowest integer datatype that holds an integer column's values; else the column's own datatype."""
    if column.datatype != "INT64":
        return column.datatype
    present = [value for value in values if value is not None] or [0]
    limits = {name: np.iinfo(name.lower()) for name in INTEGERS}
    return next(n for n, limit in limits.items() if limit.min <= min(present) and max(present) <= limit.max)


def _tensor(column: Column, values: list[Any], kind: str) -> dict[str, Any]:
    shape = [len(values)] if kind == "flat" else [len(values), 1]
    data = values if kind == "flat" else [[value] for value in values]
    return {"name": column.name, "shape": shape, "datatype": datatype_of(column, values), "data": data}


def _binary(columns: list[tuple[Column, list[Any]]]) -> Request:
    """Each column as raw bytes, except a column with missing values that only JSON can hold."""
    heads, tail = [], b""
    for column, values in columns:
        head = _tensor(column, values, "flat")
        if None not in values or column.datatype in ("FP64", "FP32"):
            raw = pack(head["datatype"], values)
            del head["data"]
            head["parameters"] = {"binary_data_size": len(raw)}
            tail += raw
        heads.append(head)
    text = json.dumps({"inputs": heads}).encode()
    return Request(V2, text + tail, {HEADER: str(len(text))})


def pack(datatype: str, values: list[Any]) -> bytes:
    """Return values in the format of the binary tensor data extension; None becomes NaN."""
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(v.encode())) + v.encode() for v in values)
    dtype = np.dtype(PACKED.get(datatype, datatype.lower())).newbyteorder("<")
    cells = [np.nan if value is None else value for value in values]
    return np.array(cells, dtype=np.float64 if dtype.kind == "f" else dtype).astype(dtype).tobytes()


def _matrices(column: Column, rows: list[list[Any]], width: int) -> Iterator[tuple[str, Request]]:
    flat = [cell for row in rows for cell in row]
    head = {"name": "any", "shape": [len(rows), width], "datatype": datatype_of(column, flat)}
    yield "V2 matrix, nested", _json(V2, {"inputs": [{**head, "data": rows}]})
    yield "V2 matrix, flat", _json(V2, {"inputs": [{**head, "data": flat}]})
    raw = pack(str(head["datatype"]), flat)
    text = json.dumps({"inputs": [{**head, "parameters": {"binary_data_size": len(raw)}}]}).encode()
    yield "V2 binary matrix", Request(V2, text + raw, {HEADER: str(len(text))})


def _base64(tensor: dict[str, Any]) -> dict[str, Any]:
    """The tensor, with its text as Base64Codec of MLServer writes it."""
    if tensor["datatype"] != "BYTES":
        return {**tensor, "parameters": {"content_type": "np"}}
    data = [[None if cell is None else base64.b64encode(cell.encode()).decode()] for (cell,) in tensor["data"]]
    return {**tensor, "data": data, "parameters": {"content_type": "base64"}}


def _lines(rows: Any, records: Any, sparse: Any) -> Iterator[tuple[str, Request]]:
    def lines(values: Any, end: str = "\n") -> bytes:
        return end.join(json.dumps(value, ensure_ascii=False) for value in values).encode()

    yield "JSON lines", Request(INVOKE, lines(rows), {"Content-Type": "application/jsonlines"})
    marked = {"Content-Type": "application/x-ndjson; charset=utf-8"}
    yield "JSON lines, named", Request(INVOKE, b"\xef\xbb\xbf" + lines(records, "\r\n") + b"\r\n", marked)
    if all(sparse):
        kind = {"Content-Type": "application/x-jsonlines", "Content-Encoding": "gzip"}
        yield "JSON lines, missing keys", Request(INVOKE, gzip.compress(lines(sparse) + b"\n\n"), kind)


def _npy(schema: Input, rows: list[list[Any]]) -> Iterator[tuple[str, Request]]:
    kind = {"Content-Type": "application/x-npy"}
    flat = [cell for row in rows for cell in row]
    datatypes = {column.datatype for column in schema.columns}
    is_text = datatypes == {"BYTES"} and not any(column.is_date for column in schema.columns)
    if is_text and not any(cell is None or cell.endswith("\0") for cell in flat):  # what an array of text cannot hold
        yield "npy of text", Request(INVOKE, npy(np.array(rows, dtype=str)), kind)
    if not schema.is_numeric or len(datatypes) > 1:
        return
    datatype = datatype_of(schema.columns[0], flat)
    dtype = np.dtype({"FP64": "f8", "FP32": "f4"}.get(datatype, datatype.lower()))
    array = np.array([[np.nan if cell is None else cell for cell in row] for row in rows]).astype(dtype)
    if datatype not in ("FP64", "FP32"):
        array = np.array(rows, dtype=dtype)  # exactly, and not by way of float64
    yield "npy", Request(INVOKE, npy(array), kind)
    yield "npy, columns first", Request(INVOKE, npy(np.asfortranarray(array)), kind)
    yield (
        "npy, big-endian, gzip",
        Request(
            INVOKE, gzip.compress(npy(array.astype(dtype.newbyteorder(">")))), {**kind, "Content-Encoding": "gzip"}
        ),
    )
    if len(rows) == 1:
        yield "npy of one row", Request(INVOKE, npy(array[0]), kind)


def npy(array: Any) -> bytes:
    """The array as numpy.save writes it, without pickle."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _csvs(order: list[str], names: list[str], records: Any, rows: Any) -> Iterator[tuple[str, Request]]:
    lines = [order, *(list(record.values()) for record in records)]
    headed = _csv(lines)
    if len(order) > 1:  # with one column of text the first line could be either, and is refused
        yield "CSV, header by content", Request(INVOKE, headed, {"Content-Type": "text/csv"})
    marked = {"Content-Type": "text/csv; charset=UTF-8; header=present"}
    yield "CSV, header stated", Request(INVOKE, b"\xef\xbb\xbf" + _csv(lines, "\r\n"), marked)
    bare = {"Content-Type": "text/csv; header=absent"}
    yield "CSV without a header", Request(INVOKE, _csv(rows), bare)


def _csv(rows: list[list[Any]], end: str = "\n") -> bytes:
    return "".join(",".join(_csv_cell(cell) for cell in row) + end for row in rows).encode()


def _csv_cell(cell: Any) -> str:
    if cell is None:
        return ""
    return '"' + cell.replace('"', '""') + '"' if isinstance(cell, str) else str(cell)


def _arrow(table: pa.Table) -> Iterator[tuple[str, Request]]:
    kind = {"Content-Type": "application/vnd.apache.arrow.stream"}
    coded = [column.dictionary_encode() if column.type == pa.string() else column for column in table.columns]
    packed = pa.table(dict(zip(table.column_names, coded, strict=True)))
    for name, one, codec in (("", table, None), (", lz4", table, "lz4"), (", dictionaries, zstd", packed, "zstd")):
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, one.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as stream:
            stream.write_table(one, max_chunksize=2)
        yield f"Arrow stream{name}", Request(INVOKE, sink.getvalue(), kind)
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=3)
    yield "Parquet", Request(INVOKE, sink.getvalue(), {"Content-Type": "application/vnd.apache.parquet"})
