"""The list of undocumented names of gunicorn, gevent and prometheus-client that Tableside uses.

A test resolves each name and compares its parameters, so that an upgrade which changes one fails in that test and not
under load. To upgrade a library: raise its bound in requirements/base.in, run the tests, read the library's changes to
the names in this list, and write the new version into CHECKED_ON.
"""

from __future__ import annotations

from typing import NamedTuple

CHECKED_ON = {"gunicorn": "27.0.1", "gevent": "26.9.0", "prometheus-client": "0.26.0"}


class UndocumentedName(NamedTuple):
    """A dotted name and the reason why it is used.

    parameters: the parameter names of a function that is called, replaced or overridden; None for other names.
    """

    dotted: str
    why: str
    parameters: tuple[str, ...] | None = None


_WORKER, _RESPONSE = "gunicorn.workers.ggevent.GeventWorker", "gunicorn.http.wsgi.Response"
_SERVER = "gevent.server.StreamServer"

NAMES = (
    # gunicorn documents that `worker_class` may name any class, but not which methods that class has.
    UndocumentedName(_WORKER, "subclassed by DrainingWorker and TablesideWorker"),
    UndocumentedName(f"{_WORKER}.init_process", "extended: installs OneSendResponse and the JSON errors", ("self",)),
    UndocumentedName(f"{_WORKER}.run", "extended: waits until this worker may accept", ("self",)),
    UndocumentedName(
        f"{_WORKER}.handle", "extended: makes the state of the connection", ("self", "listener", "client", "addr")
    ),
    UndocumentedName(f"{_WORKER}.timeout_ctx", "overridden: scheduling and keepalive", ("self",)),
    UndocumentedName(
        f"{_WORKER}.handle_request",
        "extended: remembers the buffer of received bytes",
        ("self", "listener_name", "req", "sock", "addr"),
    ),
    UndocumentedName(
        f"{_WORKER}.handle_error", "extended: lets the client read the error", ("self", "req", "client", "addr", "exc")
    ),
    UndocumentedName(f"{_WORKER}.notify", "overridden: the original exits when the master has ended", ("self",)),
    UndocumentedName("gunicorn.workers.base.Worker.notify", "called instead of GeventWorker.notify", ("self",)),
    UndocumentedName(f"{_WORKER}.handle_exit", "overridden: SIGTERM drains the worker", ("self", "sig", "frame")),
    UndocumentedName(f"{_WORKER}.server_class", "overridden: makes a BalancedServer"),
    UndocumentedName(
        "gunicorn.workers.gthread.ThreadWorker.check_config", "the same hook: the master calls it", ("cfg", "log")
    ),
    UndocumentedName(_RESPONSE, "subclassed and replaced by OneSendResponse", ("req", "sock", "cfg")),
    UndocumentedName(f"{_RESPONSE}.send_headers", "overridden: holds the head back", ("self",)),
    UndocumentedName(f"{_RESPONSE}.default_headers", "called: the first lines of the head", ("self",)),
    UndocumentedName(f"{_RESPONSE}._emit_body", "overridden: sends head and body in one call", ("self", "data")),
    UndocumentedName(f"{_RESPONSE}.sendfile", "extended: sends the head first", ("self", "respiter")),
    UndocumentedName(f"{_RESPONSE}.close", "extended: sends a head that has no body", ("self",)),
    UndocumentedName(
        f"{_RESPONSE}.force_close", "called: closes a connection from nginx after a slow response", ("self",)
    ),
    UndocumentedName(
        "gunicorn.util.write_error", "replaced by write_json_error", ("sock", "status_int", "reason", "mesg")
    ),
    UndocumentedName("gunicorn.util.write_nonblock", "called to send such an error", ("sock", "data", "chunked")),
    UndocumentedName(
        "gunicorn.http.unreader.Unreader", "its attribute `buf` shows whether a pipelined request has arrived", ()
    ),
    UndocumentedName("gunicorn.http.errors.ParseException", "caught while a chunked body is read"),
    UndocumentedName(
        "gunicorn.glogging.Logger.access",
        "overridden: formats no line that is not written",
        ("self", "resp", "req", "environ", "request_time"),
    ),
    UndocumentedName(
        "gunicorn.glogging.Logger.warning",
        "extended: leaves the text of a request out",
        ("self", "msg", "args", "kwargs"),
    ),
    UndocumentedName(
        "gunicorn.glogging.Logger.info", "extended: how workers have ended", ("self", "msg", "args", "kwargs")
    ),
    UndocumentedName(
        "gunicorn.glogging.Logger.error", "extended: how workers have ended", ("self", "msg", "args", "kwargs")
    ),
    UndocumentedName(f"{_SERVER}.do_read", "extended: leaves connections to other workers", ("self",)),
    UndocumentedName(f"{_SERVER}.stop_accepting", "called: the worker is ahead", ("self",)),
    UndocumentedName(f"{_SERVER}.start_accepting", "called: the worker accepts again", ("self",)),
    # prometheus-client documents only files named after the process id. Files named after slots stay few.
    UndocumentedName("prometheus_client.values.ValueClass", "replaced: metric files are named after the worker's slot"),
    UndocumentedName(
        "prometheus_client.values.MultiProcessValue", "called to make the replacement", ("process_identifier",)
    ),
    UndocumentedName("prometheus_client.values.MutexValue", "a value in memory, where the disk has no space"),
    UndocumentedName(
        "prometheus_client.mmap_dict.mmap_key",
        "called: the length of the key decides how much space an entry needs",
        ("metric_name", "name", "labelnames", "labelvalues", "help_text"),
    ),
    UndocumentedName(
        "prometheus_client.utils.floatToGoString", "called: numbers of a scrape have the library's spelling", ("d",)
    ),
    # The files' names and format are not names of code: `tableside.telemetry.metric_entries` reads them, and
    # tests/unit/test_metric_reader.py compares with the library.
)

ATTRIBUTES = {
    "gunicorn.workers.ggevent.GeventWorker": ("aborted", "age", "alive", "cfg", "log", "max_requests", "nr", "ppid"),
    "gunicorn.http.wsgi.Response": ("chunked", "headers", "headers_sent", "req", "sock"),
    "gunicorn.http.message.Request": ("peer_addr", "unreader"),
    "gunicorn.http.unreader.Unreader": ("buf",),
    "gevent.server.StreamServer": ("loop", "socket", "started"),
}
"""Attributes of instances that are read. A worker's `wsgi` is missing, because it exists only after the application has
loaded.
"""
