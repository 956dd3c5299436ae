"""Reads a CSV file as text, cell by cell. A quoted empty cell is the empty text, one without quotes is None (missing).

Python's `csv` tells the two apart only from 3.12 on. Compatible with Python 3.8.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from tableside_contract.csv_types import Texts
from tableside_contract.errors import RecordFailed

_CELL = re.compile(r'(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n|\n|\r|\Z)')


def read(path: Path) -> dict[str, Texts]:
    """Return the columns of a CSV file (RFC 4180, UTF-8, with a header line).

    Raises RecordFailed, which names the line. A blank line is no row, except where the table has one column.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise RecordFailed(f"{path}: {problem}") from problem
    lines = _lines(text, path)
    if not lines or lines[0] == [None]:
        raise RecordFailed(f"{path}: the file is empty; a header line with the names of the columns was expected")
    names = [name or "" for name in lines[0]]
    for name, count in Counter(names).items():
        if count > 1:
            raise RecordFailed(f"{path}: the sample has more than one column {name!r}. Give each column its own name")
    rows = [line for line in lines[1:] if len(names) == 1 or line != [None]]
    for number, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise RecordFailed(f"{path}: row {number} has {len(row)} cells, expected {len(names)}")
    return {name: [row[at] for row in rows] for at, name in enumerate(names)}


def _lines(text: str, path: Path) -> list[Texts]:
    lines: list[Texts] = []
    line: Texts = []
    at = 0
    while at < len(text) or line:
        found = _CELL.match(text, at)
        if found is None:
            raise RecordFailed(f"{path}: line {text.count(chr(10), 0, at) + 1} has a quote where none can be")
        quoted, plain, end = found.groups()
        line.append(quoted.replace('""', '"') if quoted is not None else plain or None)
        at = found.end()
        if end != ",":
            lines.append(line)
            line = []
    return lines
