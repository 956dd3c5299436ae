"""The line of the access log: what is said of each answered request, and how its JSON is made quickly.

Of a prediction's line only numbers, the request's id and the time differ from those before it. The rest is made JSON
once for each kind of request and kept as a pattern.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

import orjson

from app.web.trace import Trace

MOST_PATTERNS = 1024
"""A path is the client's choice, so patterns are forgotten when there are more than these."""
MOST_PATH = 300
"""Characters of a path that are logged."""

# A request's id needs no escapes: it is the client's only when `trace.REQUEST_ID` matches.
_SLOTS = {"status": b"%d", "rows": b"%d", "ms": b"%.3f", "request_id": b'"%b"', "time": b'"%b%06dZ"'}


def fields(trace: Trace, method: str, path: str, status: int, seconds: float, level: str) -> dict[str, object]:
    """Everything a line says, in order."""
    line: dict[str, object] = {
        "event": "request", "source": "access", "method": method, "path": path[:MOST_PATH], "status": status,
        "ms": round(seconds * 1000, 3),
    }  # fmt: skip
    if trace.counted:
        line["model"], line["version"] = trace.model, trace.version
        line["protocol"], line["rows"] = trace.protocol, trace.rows
        for stage, spent_s in trace.stages.items():
            line[f"{stage}_ms"] = round(spent_s * 1000, 3)
    if trace.error:
        line["error"] = trace.error
    line["request_id"], line["level"], line["time"] = trace.request_id, level, datetime.now(UTC)
    return line


class Patterns:
    """Makes the lines of predictions that went well, as JSON."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], bytes] = {}
        self._second: tuple[int, bytes] = (-1, b"")

    def line(self, trace: Trace, method: str, path: str, status: int, seconds: float, level: str) -> bytes:
        """The line of `fields`, for a trace that is counted and has no error."""
        stages = trace.stages
        key = (path[:MOST_PATH], method, level, trace.model, trace.version, trace.protocol, *stages)
        pattern = self._known.get(key)
        if pattern is None:
            if len(self._known) >= MOST_PATTERNS:
                self._known.clear()
            pattern = self._known[key] = _pattern(fields(trace, method, path, status, seconds, level))
        now_s = time.time()
        second, prefix = self._second
        if int(now_s) != second:
            second = int(now_s)
            prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()
            self._second = (second, prefix)
        return pattern % (
            status, seconds * 1000, trace.rows, *[spent_s * 1000 for spent_s in stages.values()],
            trace.request_id.encode(), prefix, (now_s - second) * 1e6,
        )  # fmt: skip


def _pattern(line: dict[str, object]) -> bytes:
    parts = []
    for key, value in line.items():
        slot = _SLOTS["ms"] if key.endswith("_ms") else _SLOTS.get(key)
        parts.append(_json(key) + b":" + (slot or _json(value)))
    return b"{" + b",".join(parts) + b"}\n"


def _json(value: object) -> bytes:
    """A constant of a pattern."""
    return orjson.dumps(value).replace(b"%", b"%%")
