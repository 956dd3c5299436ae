"""The versions that a model process has loaded, and calls of their estimators.

Runs in other environments: Python 3.8, no import of Tableside (see tableside.model_process.child.wire).
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import threading
import time
import traceback
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from tableside.contracts import conversion, failure_place
    from tableside.model_process.child import sample_tables, wire
    from tableside.model_process.child.artifacts import LoadRefused, read_artifact, runs_code
    from tableside.model_process.child.report import environment, say
    from tableside.model_process.child.wire import Message, Writer
else:
    import conversion
    import failure_place
    import sample_tables
    import wire
    from artifacts import LoadRefused, read_artifact, runs_code
    from report import environment, say
    from wire import Message, Writer

KEEP_S = 60.0
"""How long a version stays that nobody serves: workers load it some time before they say that they serve it."""
LOOK_EVERY_S = 5.0
TRIM_ABOVE_BYTES = 1 << 20
"""Larger artifacts leave enough behind when they are loaded that giving it back pays."""


class Loaded:
    """One version: its estimator and the table that it takes."""

    def __init__(self, estimator: Any, request: dict[str, Any]) -> None:
        self.estimator = conversion.single_threaded(estimator)
        self.asked_s = time.monotonic()
        self.form = request["form"]
        self.columns: Any = [SimpleNamespace(**column) for column in request["columns"]]
        self.names = [column.name for column in self.columns]

    def prepare(self, header: dict[str, Any], payload: bytearray) -> Any:
        """Return what the estimator takes, as Table.to_input makes it in the server."""
        table = self.table(header, payload)
        if self.form == "matrix":
            return conversion.to_matrix(self.columns, header["rows"], table.arrays, table.matrix)
        if self.form == "texts":
            return table.arrays[self.names[0]].tolist()
        return conversion.to_frame(self.columns, table.arrays, table.matrix)

    def table(self, header: dict[str, Any], payload: bytearray) -> Any:
        """Return the table of a request with the attributes of the server's Table that a conversion reads."""
        arrays, matrix = None, None
        if header["matrix"] is not None:
            matrix = wire.read_array(header["matrix"], payload)
        else:
            tail = wire.read_tail(header.get("tail"), payload)
            read = [wire.read_array(spec, payload, tail) for spec in header["arrays"]]
            arrays = dict(zip(self.names, read))
        return SimpleNamespace(schema=SimpleNamespace(columns=self.columns), arrays=arrays, matrix=matrix)


class Versions:
    """The loaded versions by key. Several threads may use it.

    state: the file in which the versions that were loaded are kept, so that a process that starts loads them before it
    listens; empty for none. Versions that run code of their own are not in it: only a worker can check the consent.
    """

    def __init__(self, state: str = "") -> None:
        self._state = state
        self._libraries = environment()  # of the modules that are imported now, whatever is installed over them later
        self._served: dict[int, frozenset[str]] = {}
        self._next_look_s = 0.0
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}
        self._loaded: dict[str, Loaded] = {}
        self._requests: dict[str, dict[str, Any]] = {}

    def answer(self, message: Message, writer: Writer, asker: int = 0) -> dict[str, Any]:
        """Return the header of the answer to a request; arrays go to the writer. Never raises an Exception.

        asker: the connection on which it came.
        """
        header = message.header
        try:
            if header["op"] == "run":
                return self._run(header, message.payload, writer)
            if header["op"] == "ask":
                return self._ask(header, message.payload, writer)
            if header["op"] == "load":
                self.load(header)
                return {"ok": True}
            if header["op"] == "hello":
                return {"ok": True, "pid": os.getpid(), "environment": self._libraries}
            if header["op"] == "serve":
                self._served[asker] = frozenset(header["keys"])
                return {"ok": True}
            return {"refused": "unknown operation {!r}".format(header["op"]), "kind": "other"}
        except LoadRefused as problem:
            return {"refused": str(problem), "kind": problem.kind}
        except Exception as problem:
            return _raised(problem)

    def _run(self, header: dict[str, Any], payload: bytearray, writer: Writer) -> dict[str, Any]:
        loaded = self._loaded.get(header["key"])
        if loaded is None:
            return {"unknown": True}
        loaded.asked_s = time.monotonic()
        try:
            return _answer(loaded.estimator, header["method"], loaded.prepare(header, payload), writer)
        except Exception as problem:
            return {**_raised(problem), "place": failure_place.find(problem, loaded.table(header, payload))}

    def _ask(self, header: dict[str, Any], payload: bytearray, writer: Writer) -> dict[str, Any]:
        """Call a method on exactly the table that publish has, instead of one that a request decodes to."""
        data = sample_tables.read(header["input"], payload)
        return _answer(self._loaded[header["key"]].estimator, header["method"], data, writer)

    def load(self, request: dict[str, Any]) -> None:
        """Load a version unless it is loaded. Raises LoadRefused."""
        key = request["key"]
        with self._lock:
            lock = self._loading.setdefault(key, threading.Lock())
        with lock:
            known = self._loaded.get(key)
            if known is not None:
                known.asked_s = time.monotonic()
                return
            self._check_libraries(request)
            loaded = Loaded(read_artifact(request), request)
            with self._lock:
                self._loaded[key] = loaded
                self._requests[key] = request
                self._write_state()
        gc.collect()
        gc.freeze()  # what a model has loaded is not looked through again and again while it answers
        if _size(request["path"]) > TRIM_ABOVE_BYTES:
            _trim()

    def _check_libraries(self, request: dict[str, Any]) -> None:
        """Refuse a version whose worker has checked it with other libraries: it could answer otherwise."""
        checked = request.get("libraries") or {}
        other = ["{} {} was {}".format(name, self._libraries.get(name, "(none)"), checked[name]) for name in checked
                 if checked[name] != self._libraries.get(name)]  # fmt: skip
        if other:
            raise LoadRefused(
                "the packages of the environment have changed ({}). Run `supervisorctl restart` for its processes, "
                "then `tableside reload`".format(", ".join(other)),
                "environment",
            )

    def forget(self, asker: int) -> None:
        """Forget what the worker on this connection serves: it has closed the connection."""
        self._served.pop(asker, None)

    def drop_unserved(self) -> None:
        """Drop the versions that no connected worker serves and that nobody has asked for in the last KEEP_S.

        While no worker has said what it serves, as when all of them restart, every version is kept. Call it often.
        """
        now_s = time.monotonic()
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + LOOK_EVERY_S
        served = list(self._served.values())
        if not served:
            return
        kept = frozenset().union(*served)
        with self._lock:
            old = [key for key, each in self._loaded.items() if key not in kept and now_s - each.asked_s > KEEP_S]
            for key in old:
                del self._requests[key], self._loaded[key]
            if old:
                self._write_state()
        if old:
            _release_memory()
            say("versions_dropped", keys=old)

    def _write_state(self) -> None:
        if self._state:
            draft = f"{self._state}.{os.getpid()}"
            try:
                with open(draft, "w", encoding="utf-8") as file:
                    json.dump([each for each in self._requests.values() if not runs_code(each)], file)
                os.replace(draft, self._state)
            except OSError as problem:  # a full disk: the next process loads each version at its first request
                say("state_not_written", path=self._state, reason=str(problem))

    def load_state(self) -> int:
        """Load the versions that earlier processes had loaded; those that fail are left out. Return their number."""
        try:
            with open(self._state, encoding="utf-8") as file:
                requests: list[dict[str, Any]] = json.load(file)
        except (OSError, ValueError):
            return 0
        for request in requests:
            try:
                self.load(request)
            except Exception as problem:  # a worker that needs it gets the reason
                say("version_not_loaded", key=request.get("key"), reason=str(problem))
        return len(self._loaded)


def _release_memory() -> None:
    """Give the memory of dropped versions back to the system."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    _trim()


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # it has been removed meanwhile
        return 0


def _trim() -> None:
    """Make the C library give back what it keeps of freed memory: after a load that is twice the model's own size."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # not glibc
        return


def _answer(estimator: Any, method: str, data: Any, writer: Writer) -> dict[str, Any]:
    answer = getattr(estimator, method)(data)
    if isinstance(answer, list):
        return {"parts": [writer.add(conversion.as_array(part)) for part in answer]}
    return {"array": writer.add(conversion.as_array(answer))}


def _raised(problem: Exception) -> dict[str, Any]:
    """The answer for an exception of the estimator: its type, text and traceback without texts of other exceptions."""
    stack = "".join(traceback.format_tb(problem.__traceback__))
    return {
        "raised": type(problem).__name__,
        "text": str(problem),
        "is_value_error": isinstance(problem, ValueError),
        "traceback": stack,
    }
