"""Every name of gunicorn, gevent and prometheus-client that is used here although its library does not document it.

A test resolves each name and compares its parameters, so an upgrade that moves one fails there and not under load. To
upgrade a library: raise its bound in requirements/base.in, run the tests, read what changed below the names listed
here, and write the new version into CHECKED_ON.
"""

from __future__ import annotations

from typing import NamedTuple

CHECKED_ON = {"gunicorn": "27.0.1", "gevent": "26.9.0", "prometheus-client": "0.26.0"}


class UndocumentedName(NamedTuple):
    """A dotted name and why it is used. parameters: of a function that is called, replaced or overridden."""

    dotted: str
    why: str
    parameters: tuple[str, ...] | None = None


_WORKER, _RESPONSE = "gunicorn.workers.ggevent.GeventWorker", "gunicorn.http.wsgi.Response"
_SERVER = "gevent.server.StreamServer"

NAMES = (
    # gunicorn documents that `worker_class` names a class of one's own, but not which methods that has.
    UndocumentedName(_WORKER, "subclassed (draining, worker)"),
    UndocumentedName(f"{_WORKER}.init_process", "extended: install the response and the errors", ("self",)),
    UndocumentedName(f"{_WORKER}.handle", "extended: state of the connection", ("self", "listener", "client", "addr")),
    UndocumentedName(f"{_WORKER}.timeout_ctx", "overridden: turns and keepalive", ("self",)),
    UndocumentedName(
        f"{_WORKER}.handle_request",
        "extended: notes the request's buffer",
        ("self", "listener_name", "req", "sock", "addr"),
    ),
    UndocumentedName(f"{_WORKER}.notify", "overridden: it exits when the master is gone", ("self",)),
    UndocumentedName("gunicorn.workers.base.Worker.notify", "called in its place", ("self",)),
    UndocumentedName(f"{_WORKER}.handle_exit", "overridden: SIGTERM drains", ("self", "sig", "frame")),
    UndocumentedName(f"{_WORKER}.server_class", "overridden: the accept balancer"),
    UndocumentedName(
        "gunicorn.workers.gthread.ThreadWorker.check_config", "the same hook, called by the master", ("cfg", "log")
    ),
    UndocumentedName(_RESPONSE, "subclassed and replaced: the answer in one send", ("req", "sock", "cfg")),
    UndocumentedName(f"{_RESPONSE}.send_headers", "overridden: holds the head", ("self",)),
    UndocumentedName(f"{_RESPONSE}.default_headers", "called: the first lines of the head", ("self",)),
    UndocumentedName(f"{_RESPONSE}._emit_body", "overridden: sends head and body", ("self", "data")),
    UndocumentedName(f"{_RESPONSE}.sendfile", "extended: sends the head first", ("self", "respiter")),
    UndocumentedName(f"{_RESPONSE}.close", "extended: sends a head without a body", ("self",)),
    UndocumentedName(f"{_RESPONSE}.force_close", "called: ends a connection of nginx after a slow answer", ("self",)),
    UndocumentedName("gunicorn.util.write_error", "replaced: errors in JSON", ("sock", "status_int", "reason", "mesg")),
    UndocumentedName("gunicorn.util.write_nonblock", "called to send such an error", ("sock", "data", "chunked")),
    UndocumentedName("gunicorn.http.unreader.Unreader", "its attribute `buf` says whether a request is pipelined", ()),
    UndocumentedName(
        "gunicorn.glogging.Logger.access",
        "overridden: no line that nobody reads",
        ("self", "resp", "req", "environ", "request_time"),
    ),
    UndocumentedName(f"{_SERVER}.do_read", "extended: the accept balancer", ("self",)),
    UndocumentedName(f"{_SERVER}.stop_accepting", "called by the accept balancer", ("self",)),
    UndocumentedName(f"{_SERVER}.start_accepting", "called by the accept balancer", ("self",)),
    # prometheus-client documents files keyed by the pid only; with slots they stay few and counters never go back.
    UndocumentedName("prometheus_client.values.ValueClass", "replaced: metric files are keyed by the worker's slot"),
    UndocumentedName("prometheus_client.values.MultiProcessValue", "called to make that", ("process_identifier",)),
    # How it names the files of live gauges is known to `tableside.telemetry.metrics.LIVE_GAUGE_FILES`;
    # tests/unit/test_metrics.py.
)

ATTRIBUTES = {
    "gunicorn.workers.ggevent.GeventWorker": ("age", "alive", "cfg", "log", "ppid"),
    "gunicorn.http.wsgi.Response": ("chunked", "headers", "headers_sent", "req", "sock"),
    "gunicorn.http.message.Request": ("peer_addr", "unreader"),
    "gunicorn.http.unreader.Unreader": ("buf",),
    "gevent.server.StreamServer": ("loop", "socket", "started"),
}
"""Attributes of instances that are read. `wsgi` of a worker is there as soon as it has loaded the application."""
