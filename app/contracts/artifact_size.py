"""What a skops file takes once it is read, counted before it is: a few kilobytes of a zip file can hold gigabytes.

skops reads the array of each node of `schema.json` into memory, also to name the types of the file. Several nodes can
name one array, and a sparse matrix is a zip file within the zip file.

This file also runs in model processes, as tableside.contracts.conversion does: Python 3.8, no import of Tableside.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from typing import Any, Iterator

MAX_INFLATION = 50
"""How many times its own size an artifact may take once it is read, beyond FREE_BYTES. Fitted arrays shrink to a third
when they are compressed, and those of small integers to a tenth."""
FREE_BYTES = 256 << 20
_SCHEMA = "schema.json"
_SCHEMA_WEIGHT = 8
"""A byte of the schema counts this, because it becomes objects of Python."""
_ZIP_MAGIC = b"PK\x03\x04"


def problem(source: str | io.BytesIO) -> str:
    """Return why a skops file takes too much memory; empty if it does not. source: its path or its bytes.

    Raises what zipfile and json raise for a damaged file.
    """
    size = len(source.getbuffer()) if isinstance(source, io.BytesIO) else os.path.getsize(source)
    allowed = FREE_BYTES + MAX_INFLATION * size
    with zipfile.ZipFile(source) as archive:
        taken = _SCHEMA_WEIGHT * archive.getinfo(_SCHEMA).file_size
        if taken <= allowed:
            taken += _arrays(archive, allowed - taken)
    if taken <= allowed:
        return ""
    return (
        f"it has {size / 1e6:.1f} MB and unpacks to {taken / 1e6:.0f} MB or more; "
        f"{allowed / 1e6:.0f} MB are allowed for its size. If you trust it, publish the estimator again"
    )


def _arrays(archive: zipfile.ZipFile, allowed: int) -> int:
    """Return how many bytes the nodes of the schema read in all; counting ends above `allowed`."""
    taken = 0
    for name in _files(json.loads(archive.read(_SCHEMA))):
        taken += archive.getinfo(name).file_size
        if taken > allowed:
            break
        with archive.open(name) as member:
            is_zip = member.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
        if is_zip:
            with zipfile.ZipFile(io.BytesIO(archive.read(name))) as inner:
                taken += sum(each.file_size for each in inner.infolist())
    return taken


def _files(schema: Any) -> Iterator[str]:
    """Iterate over the member of each node that reads one. skops builds nodes with the same `__id__` once."""
    seen, waiting = set(), [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, dict):
            waiting.extend(node.values())
            name, identity = node.get("file"), node.get("__id__")
            if isinstance(name, str) and not (identity and repr(identity) in seen):
                seen.add(repr(identity))
                yield name
