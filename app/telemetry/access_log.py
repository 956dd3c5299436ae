"""The access log: one line for each answered request."""

from __future__ import annotations

from datetime import UTC, datetime

from tableside.telemetry import correlation
from tableside.telemetry.request_trace import RequestTrace

MAX_PATH = 300
"""Longer paths are cut to this many characters, because clients choose them."""


def fields(trace: RequestTrace, method: str, path: str, status: int, seconds: float, level: str) -> dict[str, object]:
    """Return the fields of the line, in its order. Names that end in `ms` are milliseconds.

    seconds: how long the request took. level: the log level of the line. Requests that named no model of the
    repository have no fields of a model. Ids of the caller (tableside.telemetry.correlation) are there if it sent any.
    """
    line: dict[str, object] = {
        "event": "request", "source": "access", "method": method, "path": path[:MAX_PATH], "status": status,
        "ms": round(seconds * 1000, 3),
    }  # fmt: skip
    if trace.counted:
        line["model"], line["version"] = trace.model, trace.version
        line["protocol"], line["rows"] = trace.protocol, trace.rows
        for stage, spent_s in trace.stages.items():
            line[f"{stage}_ms"] = round(spent_s * 1000, 3)
    if trace.error:
        line["error"] = trace.error
    if found := correlation.logged(trace.environ, trace.v2_id):
        line |= found
    if trace.row_ids:
        line["row_ids"] = [correlation.printable(each) for each in trace.row_ids]
    line["request_id"], line["level"], line["time"] = trace.request_id, level, datetime.now(UTC)
    return line
