"""Asks skops which types it trusts, without a file that holds objects of them.

The records of a checked artifact name types. The public `skops.io.get_untrusted_types` says which types of a file skops
does not trust, so the types are put into a file of empty nodes. Its answer is kept for the life of the process.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from tableside.runtimes.skops_records import PROTOCOL, SCHEMA, TypeKey

_untrusted: dict[TypeKey, frozenset[str]] = {}


def untrusted(keys: Iterable[TypeKey]) -> set[str]:
    """Return the full names of the types that skops does not trust by itself. Imports none of them."""
    found: set[str] = set()
    for key in keys:
        known = _untrusted.get(key)
        if known is None:
            known = _untrusted[key] = _ask(key)
        found |= known
    return found


def _ask(key: TypeKey) -> frozenset[str]:
    import skops.io

    schema = {**_node(*key), "protocol": PROTOCOL, "_skops_version": version("skops")}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(SCHEMA, json.dumps(schema))
    return frozenset(skops.io.get_untrusted_types(data=buffer.getvalue()))


def _node(loader: str, module: str, name: str) -> dict[str, Any]:
    """An empty node of this type: what skops reads of it says nothing but the type."""
    node: dict[str, Any] = {"__loader__": loader, "__module__": module, "__class__": name}
    if loader in ("ListNode", "SetNode", "TupleNode"):
        return {**node, "content": []}
    if loader == "DictNode":
        return {**node, "content": {}, "key_types": _node("ListNode", "builtins", "list")}
    if loader == "NdArrayNode":
        return {**node, "type": "json", "content": [], "shape": _EMPTY}
    if loader in ("TreeNode", "LossNode"):
        return {**node, "content": _node("DictNode", "builtins", "dict"), "__reduce__": {"args": _EMPTY}}
    return node


_EMPTY: dict[str, Any] = {"__loader__": "TupleNode", "__module__": "builtins", "__class__": "tuple", "content": []}
