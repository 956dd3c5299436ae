"""Turns the content of a skops file into records and arrays from which an estimator is built quickly.

A skops file describes each object by a node of `schema.json`, and holds each array in a file of its own. Reading it
takes skops some 50 ms for a small forest, nearly all of it for thousands of nodes and headers. The records say the
same in JSON values: a number, a text, None or a dict stands for itself, and a list is a record whose first entry says
what to build (`tableside.runtimes.skops_builder`). The caller must have had skops audit the file.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tableside.contracts.array_type import Array
from tableside.runtimes import npy_content

SCHEMA = "schema.json"
Node = Mapping[str, Any]
TypeKey = tuple[str, str, str]
"""The node class of skops by which a type is audited, the type's module, and its name."""
PROTOCOL = 2
"""The version of the skops format that is known here. A file of another one is left to skops."""
_BIG = 1 << 63
_PLAIN = ("JsonNode", "TypeNode", "FunctionNode", "TupleNode", "BytesNode")
"""Nodes whose objects cannot change, so that it does not matter whether two places share one."""


class NotRecorded(Exception):
    """The file holds something that records do not have, such as an object that holds itself."""


@dataclass
class Records:
    """The records of one estimator.

    root: its record. types: what records name by index. arrays: what records name by index, without object arrays.
    kept: small skops files of the objects that skops itself builds, such as a generator of random numbers.
    """

    root: Any = None
    types: list[TypeKey] = field(default_factory=list)
    arrays: list[Array] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)


def read(archive: zipfile.ZipFile) -> Records:
    """Return the records of a skops file. Raises NotRecorded, or what a damaged file raises."""
    schema = json.loads(archive.read(SCHEMA))
    if schema.get("protocol") != PROTOCOL:
        raise NotRecorded(f"protocol {schema.get('protocol')}")
    return _Recorder(archive, schema).records


class _Recorder:
    def __init__(self, archive: zipfile.ZipFile, schema: Node) -> None:
        self._archive = archive
        self._schema = schema
        self._uses = Counter(_ids(schema))
        self._slots: dict[int, int] = {}
        self._open: set[int] = set()
        self._type_at: dict[TypeKey, int] = {}
        self._array_at: dict[str, int] = {}
        self._plain: dict[str, tuple[Any, bool]] = {}
        self._by_loader: dict[str, Callable[[Node], Any]] = {
            "JsonNode": self._json,
            "DictNode": self._dict,
            "ListNode": lambda node: ["list", self._type(node), self._all(node["content"])],
            "SetNode": lambda node: ["list", self._type(node), self._all(node["content"])],
            "TupleNode": lambda node: ["tuple", self._type(node), self._all(node["content"])],
            "ObjectNode": self._object,
            "TypeNode": lambda node: ["type", self._type(node)],
            "FunctionNode": lambda node: ["type", self._type(node)],
            "NdArrayNode": self._array,
            "TreeNode": self._reduced,
            "LossNode": self._reduced,
        }
        self.records = Records()
        self.records.root = self._record(schema)

    def _record(self, node: Node) -> Any:
        """The record of a node. An object in several places is built once: `let` gives it a slot, `get` reads it."""
        identity = node.get("__id__")
        if not identity or self._uses[identity] < 2 or _is_immutable(node):
            return self._new(node)
        if identity in self._slots:
            return ["get", self._slots[identity]]
        if identity in self._open:
            raise NotRecorded("an object holds itself")
        self._open.add(identity)
        record = self._new(node)
        slot = self._slots[identity] = len(self._slots)
        return ["let", slot, record]

    def _new(self, node: Node) -> Any:
        make = self._by_loader.get(node["__loader__"])
        return self._keep(node) if make is None else make(node)

    def _all(self, nodes: list[Node]) -> list[Any]:
        return [self._record(node) for node in nodes]

    def _type(self, node: Node) -> int:
        key = (node["__loader__"], node["__module__"], node["__class__"])
        if key not in self._type_at:
            self._type_at[key] = len(self.records.types)
            self.records.types.append(key)
        return self._type_at[key]

    def _json(self, node: Node) -> Any:
        content = node["content"]
        if content not in self._plain:
            value = json.loads(content)
            self._plain[content] = (value, _is_plain(value))
        value, is_plain = self._plain[content]
        return value if is_plain else ["json", content]

    def _dict(self, node: Node) -> Any:
        keys = self._all(node["key_types"]["content"])
        values = {key: self._record(value) for key, value in node["content"].items()}
        at = self._type(node)
        is_plain = self.records.types[at][1:] == ("builtins", "dict")
        if is_plain and all(self._is_str(key) for key in keys):
            return values
        return ["dict", at, keys, list(values), list(values.values())]

    def _is_str(self, record: Any) -> bool:
        return isinstance(record, list) and record[0] == "type" and self.records.types[record[1]][1:] == _STR

    def _object(self, node: Node) -> Any:
        content = node.get("content")
        return ["object", self._type(node), None if content is None else self._record(content)]

    def _reduced(self, node: Node) -> Any:
        arguments, state = self._record(node["__reduce__"]["args"]), self._record(node["content"])
        return ["reduced", self._type(node), arguments, state]

    def _array(self, node: Node) -> Any:
        if node["type"] == "json":
            return ["objects", self._record(node["shape"]), self._all(node["content"])]
        name = node["file"]
        if name not in self._array_at:
            self._array_at[name] = len(self.records.arrays)
            self.records.arrays.append(npy_content.array(self._archive.read(name)))
        at = self._array_at[name]
        is_array = (node["__module__"], node["__class__"]) == ("numpy", "ndarray")
        return ["array", at] if is_array else ["scalar", self._type(node), at]

    def _keep(self, node: Node) -> Any:
        """The record of an object that skops builds, from a skops file that holds only this object."""
        inside = Counter(_ids(node))
        own = node.get("__id__")
        if any(self._uses[identity] != uses for identity, uses in inside.items() if identity != own):
            raise NotRecorded("an object that only skops builds shares a part with another one")
        buffer = io.BytesIO()
        schema = {**node, "protocol": self._schema["protocol"], "_skops_version": self._schema["_skops_version"]}
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(SCHEMA, json.dumps(schema))
            for name in set(_files(node)):
                archive.writestr(name, self._archive.read(name))
        self.records.kept.append(buffer.getvalue())
        return ["kept", len(self.records.kept) - 1]


_STR = ("builtins", "str")


def _is_plain(value: Any) -> bool:
    """Whether a JSON value stands for itself in a record."""
    if value is None or isinstance(value, (str, bool)):
        return True
    return -_BIG <= value < _BIG if type(value) is int else type(value) is float and value - value == 0


def _nodes(part: Any) -> Iterator[Node]:
    stack = [part]
    while stack:
        value = stack.pop()
        inside = value
        if isinstance(value, dict):
            if "__loader__" in value:
                yield value
            inside = value.values()
        stack.extend(each for each in inside if isinstance(each, (dict, list)))


def _ids(part: Any) -> Iterator[int]:
    """The identity of each node that stands for an object that could be shared."""
    found = (node.get("__id__") for node in _nodes(part) if not _is_immutable(node))
    return (identity for identity in found if identity)


def _is_immutable(node: Node) -> bool:
    is_scalar = node["__loader__"] == "NdArrayNode" and node["__class__"] != "ndarray"
    return is_scalar or node["__loader__"] in _PLAIN


def _files(part: Any) -> Iterator[str]:
    return (node["file"] for node in _nodes(part) if "file" in node)
