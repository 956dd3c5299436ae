"""Renames modules in a skops file, so that it names a version's own code by the name that only this version has.

A skops file is a zip archive. Its `schema.json` describes each object by `__module__`, `__class__` and `__loader__`.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable

SCHEMA = "schema.json"


def rename_modules(content: bytes, rename: Callable[[str], str]) -> bytes:
    """Return the file with every module name replaced by `rename` of it; the same bytes if that changes none.

    Raises zipfile.BadZipFile, KeyError or ValueError for bytes that are not a skops file.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        schema = json.loads(archive.read(SCHEMA))
        if not _rename(schema, rename):
            return content
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as renamed:
            for member in archive.infolist():
                new = json.dumps(schema, indent=2).encode() if member.filename == SCHEMA else archive.read(member)
                renamed.writestr(member, new, member.compress_type, 6)
    return buffer.getvalue()


def _rename(schema: object, rename: Callable[[str], str]) -> bool:
    """Rename the modules of all objects in place. Returns whether any name has changed."""
    changed, rest = False, [schema]
    while rest:
        node = rest.pop()
        if isinstance(node, list):
            rest.extend(node)
        elif isinstance(node, dict):
            module = node.get("__module__")
            if isinstance(module, str) and rename(module) != module:
                node["__module__"], changed = rename(module), True
            rest.extend(node.values())
    return changed
