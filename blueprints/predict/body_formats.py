"""The formats of the bodies of `/invocations`, by Content-Type, and what to change where the type is not read."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from werkzeug.http import parse_options_header

from tableside.contracts.schema import Input
from tableside.contracts.table import Table
from tableside.decoding import arrow, csv_tables
from tableside.decoding.json_lines import from_json_lines
from tableside.decoding.npy import from_npy
from tableside.decoding.rules import Rules
from tableside.errors import UnsupportedBody
from tableside.web import response
from tableside.web.table_types import ARROW, CSV, JSON_LINES, NPY, PARQUET

Read = Callable[[bytes, Input, Rules, int], Table]
"""Decodes a body, given how many bytes its table may take, or how much its JSON may count."""
CONTENT_TYPES = (response.JSON, CSV, JSON_LINES[0], NPY, ARROW, PARQUET[0])
"""What a body may be, as errors list it."""


class BodyFormat(msgspec.Struct, frozen=True):
    """How a body is read.

    read: makes the table. None for JSON, of which more than the table is read. is_json: whether its size is limited as
    that of JSON. is_columnar: whether a few bytes may state any number of cells, so that a native thread decodes it.
    """

    read: Read | None
    is_json: bool = False
    is_columnar: bool = False


JSON = BodyFormat(None, is_json=True)
_FORMATS = {
    "": JSON,
    response.JSON: JSON,
    **dict.fromkeys(JSON_LINES, BodyFormat(from_json_lines, is_json=True)),
    NPY: BodyFormat(from_npy),
    ARROW: BodyFormat(arrow.from_arrow, is_columnar=True),
    **dict.fromkeys(PARQUET, BodyFormat(arrow.from_parquet, is_columnar=True)),
}
_WITH_HEADER: dict[str, csv_tables.Header] = {"": None, "present": "present", "absent": "absent"}

_ADD_BY_PROGRAM = {
    "curl/": "add -H 'Content-Type: application/json'",
    "python-requests/": "write requests.post(URL, json=BODY) in place of data=BODY",
    "python-httpx/": "write json=BODY in place of data=BODY or content=BODY",
    "Python-urllib/": "add headers={'Content-Type': 'application/json'} to the Request",
    "aiohttp/": "write json=BODY in place of data=BODY",
    "Wget/": "add --header='Content-Type: application/json'",
    "axios/": "add { headers: { 'Content-Type': 'application/json' } }",
    "node": "add headers: { 'Content-Type': 'application/json' } to fetch()",
    "Mozilla/": "add headers: { 'Content-Type': 'application/json' } to fetch()",
    "Go-http-client/": 'add req.Header.Set("Content-Type", "application/json")',
    "Java": 'add .header("Content-Type", "application/json")',
    "Apache-HttpClient/": 'add request.setHeader("Content-Type", "application/json")',
    "Boto3/": "add ContentType='application/json' to invoke_endpoint()",
    "PowerShell/": "add -ContentType 'application/json'",
}
"""The change that states JSON, by a part of the User-Agent that a program sends unless it is told otherwise."""
_BY_TYPE = {
    "application/x-www-form-urlencoded": "add -H 'Content-Type: application/json' to curl -d, or write json=BODY in "
    "place of data=BODY in Python",
    "multipart/form-data": "Send the file as the body and not as a form: in curl with --data-binary @FILE "
    "-H 'Content-Type: text/csv' in place of -F, in requests with headers={'Content-Type': 'text/csv'} and "
    "data=open(FILE, 'rb') in place of files=",
    "application/octet-stream": "add the header 'Content-Type: application/json'; with SageMaker's Predictor, "
    "serializer=JSONSerializer()",
    "text/plain": "add headers: { 'Content-Type': 'application/json' } to fetch()",
    "application/x-npz": "Send one array, as numpy.save writes it: 'Content-Type: application/x-npy'",
    "application/vnd.apache.arrow.file": f"Write a stream with pyarrow.ipc.new_stream: 'Content-Type: {ARROW}'",
    "application/vnd.ms-excel": "Save the table as CSV: 'Content-Type: text/csv'",
}
_OF_JSON = ("application/x-www-form-urlencoded", "application/octet-stream", "text/plain")
"""Types that programs send by themselves, whatever the body is."""


def choose(content_type: str, user_agent: str) -> BodyFormat:
    """Return the format of a body. Raises UnsupportedBody, which says what the client has to change."""
    if known := _FORMATS.get(content_type):
        return known
    kind, options = parse_options_header(content_type)
    kind = kind.lower()
    charset = options.get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedBody(f"charset {charset[:40]!r} is not supported; send UTF-8")
    if kind == CSV:
        return _csv(options.get("header", ""))
    if known := _FORMATS.get(kind):
        return known
    raise UnsupportedBody(
        f"Content-Type {kind[:80]!r} is not supported; use {', '.join(CONTENT_TYPES)}{_hint(kind, user_agent)}"
    )


def _csv(header: str) -> BodyFormat:
    if header not in _WITH_HEADER:
        raise UnsupportedBody("the header parameter of text/csv must be 'present' or 'absent' (RFC 4180)")

    def read(body: bytes, schema: Input, rules: Rules, limit_bytes: int) -> Table:
        return csv_tables.from_csv(body, schema, rules, _WITH_HEADER[header], limit_bytes)

    return BodyFormat(read)


def _hint(kind: str, user_agent: str) -> str:
    """Return the change of one line for the client that sent this type; empty if none is known."""
    change = _BY_TYPE.get(kind, "")
    if kind in _OF_JSON:
        change = next((text for name, text in _ADD_BY_PROGRAM.items() if name in user_agent), change)
    return f". To send JSON, {change}" if kind in _OF_JSON else f". {change}" if change else ""
