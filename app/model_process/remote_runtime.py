"""RemoteRuntime: runs a version in a model process, as if its estimator were loaded here."""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from tableside.contracts.answers import MethodAnswer
from tableside.contracts.consent_digest import PICKLE, package_of
from tableside.contracts.failure_place import FailurePlace, RaisedElsewhere
from tableside.contracts.schema import Column, Contract, Input
from tableside.contracts.table import Table
from tableside.errors import ContractBroken, FailureKind
from tableside.model_process.child import wire
from tableside.model_process.child.wire import Buffer, Message
from tableside.model_process.connection import Connection
from tableside.model_process.small_calls import SmallCalls

_encode = msgspec.json.Encoder().encode
NO_CODE: Mapping[str, bytes] = {}


class EstimatorError(RaisedElsewhere):
    """The estimator raised an exception in its model process."""


class EstimatorValueError(RaisedElsewhere, ValueError):
    """The estimator raised a ValueError in its model process, as it does for values that it does not take."""


class Caller(Protocol):
    """Sends requests to a model process of one environment."""

    def call(
        self, request: Sequence[Buffer], load: Sequence[Buffer], give_up_at_s: float, is_brief: bool = False
    ) -> Message:
        """Send a request, after `load` if the process does not have the version. See `exchange`."""

    @property
    def call_timeout_s(self) -> float:
        """The time limit of one call."""

    @property
    def setbacks(self) -> int:
        """How often a call has waited for a process, or was sent again."""


def load_request(
    key: str, artifact: Path, sha256: str, schema: Input, trusted: Iterable[str], code: Mapping[str, bytes] = NO_CODE,
    libraries: Mapping[str, str] | None = None, in_memory: bool = False,
) -> list[Buffer]:  # fmt: skip
    """Return the message that makes a model process load a version.

    trusted: types that its skops file may hold. libraries: the versions of the environment with which it is checked; a
    process that has others, because packages were changed, refuses it. code: its own code, path below `code/` to
    content, which the caller has verified. There must be consent to own code and to a pickle.
    in_memory: load the bytes that were hashed, so that no other file can take the artifact's place in between.
    """
    columns = [_described(column) for column in schema.columns]
    header = {
        "op": "load", "key": key, "path": str(artifact.absolute()), "sha256": sha256,
        "format": "pickle" if artifact.name == PICKLE else "skops",
        "code": {path: base64.b64encode(content).decode() for path, content in code.items()},
        "libraries": dict(libraries or {}), "form": schema.form, "columns": msgspec.to_builtins(columns),
        "trusted": sorted(trusted), "in_memory": in_memory,
    }  # fmt: skip
    return wire.Writer().message(header)


def _described(column: Column) -> dict[str, object]:
    """Every field and every property of a column, for the conversion in the model process."""
    properties = [name for name, value in vars(type(column)).items() if isinstance(value, property)]
    return {name: getattr(column, name) for name in (*column.__struct_fields__, *properties)}


class RemoteRuntime:
    """A version in a model process. Several native threads, and greenlets, may call its methods at the same time."""

    platform = "scikit-learn_skops"

    def __init__(self, caller: Caller, key: str, load: Sequence[Buffer]) -> None:
        """caller: the processes of the version's environment. key: names the version and its files. load: the message
        of `load_request`, for a process that has started since.
        """
        self.caller = caller
        self.key = key
        self._load = load
        self._small_calls = SmallCalls(key)
        self.warning = ""
        """What differs in its environment from that of publish; empty if nothing does."""
        self.golden_difference = 0.0
        """The largest relative difference of its golden answers there from those of publish."""
        self.is_brief: Callable[[int], bool] = lambda rows: False
        """Whether a call for so many rows is expected to be as cheap as one that may run on the event loop."""

    def prepare(self, table: Table) -> Table:
        """Return the table: the model process converts it to what the estimator takes."""
        return table

    def run(self, method: str, data: Any) -> MethodAnswer:
        """Run `method` on `data`, a Table. Raises what `run_until` raises."""
        return self.run_until(math.inf, method, data)

    def run_until(self, deadline_at_s: float, method: str, data: Any) -> MethodAnswer:
        """Run `method` on `data`, a Table. deadline_at_s: on time.monotonic's clock.

        Raises EstimatorValueError or EstimatorError where the estimator raised, DeadlineExceeded at the deadline or the
        time limit of a call, ModelNotReady if no process of the environment runs, and ContractBroken if a new one
        cannot load the version.
        """
        give_up_at_s = min(deadline_at_s, time.monotonic() + self.caller.call_timeout_s)
        request = self.request(method, data)
        return answer_of(self.caller.call(request, self._load, give_up_at_s, self.is_brief(data.rows)))

    def setbacks(self) -> int:
        """Return how often calls in this environment have waited for a process, or were sent again."""
        return self.caller.setbacks

    def request(self, method: str, table: Table) -> list[Buffer]:
        """Return the message that asks for one method on a table."""
        small = self._small_calls.message(method, table)
        if small is not None:
            return [small]
        writer = wire.Writer()
        header: dict[str, Any] = {
            "op": "run", "key": self.key, "method": method, "rows": table.rows, "matrix": None, "arrays": None,
        }  # fmt: skip
        if table.arrays is None:
            assert table.matrix is not None
            specs = [writer.add(table.matrix)]
            header["matrix"] = specs[0]
        else:
            arrays = table.arrays
            header["arrays"] = specs = [writer.add(arrays[column.name]) for column in table.schema.columns]
        has_cells = any(spec[0] == "cells" for spec in specs)  # of which msgspec would write NaN as null
        return writer.message(header, None if has_cells else _encode(header))


def answer_of(message: Message) -> MethodAnswer:
    """Return the arrays of an answer. Raises the exception that an answer without arrays stands for."""
    header = message.header
    if "array" in header:
        return wire.read_array(header["array"], message.payload)
    if "parts" in header:
        return [wire.read_array(spec, message.payload) for spec in header["parts"]]
    raise error_of(header)


def error_of(header: dict[str, Any]) -> Exception:
    """Return the exception that an answer without arrays stands for."""
    if "refused" in header:
        return ContractBroken(str(header["refused"]), FailureKind(header["kind"]))
    kind = EstimatorValueError if header.get("is_value_error") else EstimatorError
    step, columns, reason = header.get("place") or ((), (), "")
    place = FailurePlace(tuple(step), tuple(columns), reason)
    return kind(str(header.get("raised")), str(header.get("text")), place, str(header.get("traceback")))


def exchange(
    connection: Connection, request: Sequence[Buffer], load: Sequence[Buffer], give_up_at_s: float,
    is_brief: bool = False,
) -> Message:  # fmt: skip
    """Send a request, after loading the version if this process does not have it. Raises what `Connection.exchange`
    raises, and ContractBroken if the version cannot be loaded.
    """
    answer = connection.exchange(request, give_up_at_s, is_brief)
    if "unknown" not in answer.header:
        return answer
    loaded = connection.exchange(load, give_up_at_s)
    if "ok" not in loaded.header:
        raise error_of(loaded.header)
    return connection.exchange(request, give_up_at_s)


def key_of(contract: Contract) -> str:
    """The key of a version in model processes. It changes with the artifact, the own code and the table."""
    schema = msgspec.json.encode((contract.input, package_of(contract)))
    return f"{contract.name}/{contract.version}/{contract.artifact.sha256[:16]}/{hash_of(schema)}"


def hash_of(content: bytes) -> str:
    """Eight hexadecimal digits that stand for some bytes, the same in every process."""
    import zlib

    return f"{zlib.crc32(content):08x}"
