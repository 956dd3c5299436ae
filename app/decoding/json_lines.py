"""Conversion of JSON lines (jsonlines.org, also called NDJSON) to a `Table`: each line is one row.

A row is what it is in an array of rows: an array, an object, or the bare value of the only column. Lines end with LF or
CRLF, and the last one may end without. An empty line between others is refused: the answers could no longer be joined
to the lines.
"""

from __future__ import annotations

import io
from contextlib import suppress

import msgspec

from tableside.contracts.schema import Input
from tableside.contracts.table import Table
from tableside.decoding import json_place, json_size, json_words
from tableside.decoding.json_tables import from_rows
from tableside.decoding.rules import Rules, malformed
from tableside.errors import RequestRejected

_SYNTAX_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_decode = msgspec.json.Decoder().decode


def from_json_lines(body: bytes, schema: Input, rules: Rules, limit_bytes: int) -> Table:
    """Convert JSON lines to a table.

    limit_bytes: how much the text may count (`json_size`). Raises RequestRejected, which names the line that is no JSON
    value, or the bad cells; TooManyRows; or TooLarge.
    """
    text = body.removeprefix(json_words.BOM).rstrip(b" \t\r\n")
    if not text:
        raise RequestRejected("the body is empty; JSON lines were expected, one row in each line")
    lines = text.count(b"\n") + 1
    rules.check_rows(lines)
    json_size.check(text, limit_bytes, lines)
    rows: list[object] = []
    for number, line in enumerate(io.BytesIO(text), 1):
        try:
            rows.append(_decode(line))
        except _SYNTAX_ERRORS:
            rows.append(_other_json(line, number, rules.strict_json))
    return from_rows(rows, schema, rules)


def _other_json(line: bytes, number: int, is_strict: bool) -> object:
    """Decode a line of JSON as Python writes it, with NaN. Raises RequestRejected for what is no JSON either."""
    if not line.strip():
        raise malformed(f"line {number}", "empty; each line must be one row")
    changed = line if is_strict else json_words.as_json(line)
    if changed is not line:
        with suppress(*_SYNTAX_ERRORS):
            return _decode(changed)
    # The lines before it are left out, but for their number.
    before = b"\n" * (number - 1)
    found = json_place.describe(before + (line if is_strict else json_words.of_same_length(line)))
    raise malformed(f"line {number}", f"not one JSON value: {found or 'nested too deeply'}")
