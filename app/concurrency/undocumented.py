"""Every name of gunicorn, gevent and prometheus-client that is used here although its library does not document it.

A test resolves each name and compares its parameters, so an upgrade that moves one fails there and not under load. To
upgrade a library: raise its bound in requirements/base.in, run the tests, read what changed below the names listed
here, and write the new version into CHECKED_ON.
"""

from __future__ import annotations

from typing import NamedTuple

CHECKED_ON = {"gunicorn": "27.0.1", "gevent": "26.9.0", "prometheus-client": "0.26.0"}


class Name(NamedTuple):
    """A dotted name and why it is used. parameters: of a function that is called, replaced or overridden."""

    dotted: str
    why: str
    parameters: tuple[str, ...] | None = None


_WORKER, _RESPONSE = "gunicorn.workers.ggevent.GeventWorker", "gunicorn.http.wsgi.Response"
_SERVER = "gevent.server.StreamServer"

NAMES = (
    # gunicorn documents that `worker_class` names a class of one's own, but not which methods that has.
    Name(_WORKER, "subclassed (draining, worker)"),
    Name(f"{_WORKER}.init_process", "extended: install the response and the errors", ("self",)),
    Name(f"{_WORKER}.handle", "extended: state of the connection", ("self", "listener", "client", "addr")),
    Name(f"{_WORKER}.timeout_ctx", "overridden: turns and keepalive", ("self",)),
    Name(
        f"{_WORKER}.handle_request",
        "extended: notes the request's buffer",
        ("self", "listener_name", "req", "sock", "addr"),
    ),
    Name(f"{_WORKER}.notify", "overridden: it exits when the master is gone", ("self",)),
    Name("gunicorn.workers.base.Worker.notify", "called in its place", ("self",)),
    Name(f"{_WORKER}.handle_exit", "overridden: SIGTERM drains", ("self", "sig", "frame")),
    Name(f"{_WORKER}.server_class", "overridden: the accept balancer"),
    Name("gunicorn.workers.gthread.ThreadWorker.check_config", "the same hook, called by the master", ("cfg", "log")),
    Name(_RESPONSE, "subclassed and replaced: the answer in one send", ("req", "sock", "cfg")),
    Name(f"{_RESPONSE}.send_headers", "overridden: holds the head", ("self",)),
    Name(f"{_RESPONSE}.default_headers", "called: the first lines of the head", ("self",)),
    Name(f"{_RESPONSE}._emit_body", "overridden: sends head and body", ("self", "data")),
    Name(f"{_RESPONSE}.sendfile", "extended: sends the head first", ("self", "respiter")),
    Name(f"{_RESPONSE}.close", "extended: sends a head without a body", ("self",)),
    Name(f"{_RESPONSE}.force_close", "called: ends a connection of nginx after a slow answer", ("self",)),
    Name("gunicorn.util.write_error", "replaced: errors in JSON", ("sock", "status_int", "reason", "mesg")),
    Name("gunicorn.util.write_nonblock", "called to send such an error", ("sock", "data", "chunked")),
    Name("gunicorn.http.unreader.Unreader", "its attribute `buf` says whether a request is pipelined", ()),
    Name(
        "gunicorn.glogging.Logger.access",
        "overridden: no line that nobody reads",
        ("self", "resp", "req", "environ", "request_time"),
    ),
    Name(f"{_SERVER}.do_read", "extended: the accept balancer", ("self",)),
    Name(f"{_SERVER}.stop_accepting", "called by the accept balancer", ("self",)),
    Name(f"{_SERVER}.start_accepting", "called by the accept balancer", ("self",)),
    # prometheus-client documents files keyed by the pid only; with slots they stay few and counters never go back.
    Name("prometheus_client.values.ValueClass", "replaced: metric files are keyed by the worker's slot"),
    Name("prometheus_client.values.MultiProcessValue", "called to make that", ("process_identifier",)),
    # How it names the files of live gauges is known to `app.metrics.LIVE_GAUGE_FILES`; tests/unit/test_metrics.py.
)

ATTRIBUTES = {
    "gunicorn.workers.ggevent.GeventWorker": ("age", "alive", "cfg", "log", "ppid"),
    "gunicorn.http.wsgi.Response": ("chunked", "headers", "headers_sent", "req", "sock"),
    "gunicorn.http.message.Request": ("peer_addr", "unreader"),
    "gunicorn.http.unreader.Unreader": ("buf",),
    "gevent.server.StreamServer": ("loop", "socket", "started"),
}
"""Attributes of instances that are read. `wsgi` of a worker is there as soon as it has loaded the application."""
