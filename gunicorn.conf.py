from gevent import monkey

monkey.patch_all()  # before anything imports socket, ssl or threading

import gc
import importlib
import os
import sys
from contextlib import suppress
from pathlib import Path

LIBRARIES = (
    "numpy", "pandas", "sklearn.pipeline", "sklearn.ensemble", "sklearn.compose", "skops.io", "pyarrow.csv",
)  # fmt: skip
CODE = ("tableside", "wsgi")


def _import_libraries():
    """Import the slow libraries once; every fork shares them. Best effort: a worker imports what is missing.

    They are frozen: a full collection would look at all of them, 70 ms in which a worker answers nobody, and would copy
    the pages that the forks share.
    """
    for library in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(library)
    gc.collect()
    gc.freeze()


def _forget_code():
    """Forget this project's own modules, so that what is imported next is the code that lies on disk."""
    for name in [name for name in sys.modules if name.partition(".")[0] in CODE]:
        del sys.modules[name]
    importlib.invalidate_caches()


# gunicorn executes this file at its start and again at each HUP. Both times the master imports this project's code, and
# the worker class with it. Workers are forked from that and import none of it a second time, so that one that is born
# later runs the same code as the others. Models load after the fork: OpenMP that ran before it hangs in the children.
if not gc.get_freeze_count():
    _import_libraries()
_forget_code()
importlib.import_module("tableside.factory")

# The listeners keep this module of the first start for good: it must keep none of the code, so its hooks import what
# they need.
settings = importlib.import_module("tableside.settings").load()
_run_dir = settings.run_dir
_behind_nginx = os.environ.get("TABLESIDE_NGINX") == "true"

wsgi_app = "wsgi:application"
# No `bind`: the listeners come through LISTEN_FDS from tableside.deployment.gunicorn, and outlive this process.
worker_class = "tableside.server.worker.TablesideWorker"
workers = settings.server.workers
# Every request is let in, so that those for a busy model gather there and those for another pass them (decision 0004).
worker_connections = settings.server.max_requests_in_flight if _behind_nginx else 1000
timeout = 30  # the hub's heartbeat, not a request's time: long work runs in native threads
graceful_timeout = settings.server.graceful_timeout_s
keepalive = 5
preload_app = False
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - gunicorn unlinks it at once
control_socket_disable = True  # on by default in 27, one path for all instances of a user
limit_request_line = 4094
limit_request_fields = 50
limit_request_field_size = 8190
proc_name = "tableside"
accesslog = None  # the application writes one line a request
logger_class = "tableside.server.gunicorn_log.GunicornLog"
errorlog = "-"
loglevel = settings.log.level
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"tableside": {"()": "tableside.telemetry.logs.formatter", "style": settings.log.format}},
    "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "tableside", "stream": "ext://sys.stdout"}},
    "root": {"level": "INFO", "handlers": ["out"]},
    "loggers": {
        "gunicorn.error": {"level": settings.log.level.upper(), "handlers": [], "propagate": True},
        "gunicorn.access": {"level": "INFO", "handlers": [], "propagate": False},
    },
}
del settings


def on_starting(server):
    """Say which libraries each worker will have to import for itself."""
    for library in LIBRARIES:
        if library not in sys.modules:
            server.log.warning("cannot import %s ahead of the workers", library)


def post_fork(server, worker):
    """Let go of the code from before a HUP; take a worker slot."""
    # The master's records of its workers (gunicorn 27.0: Arbiter.WORKERS), which no worker needs. After a HUP those of
    # the old ones are among them, and hold their class and with it the old code. The function that forks keeps the last
    # one in a local variable, so that each is emptied and given the new class.
    for record in server.WORKERS.values():
        vars(record).clear()
        record.__class__ = type(worker)
    server.WORKERS.clear()
    worker_slots, metrics = (
        importlib.import_module("tableside.process.worker_slots"),
        importlib.import_module("tableside.telemetry.metrics"),
    )
    worker.slot = worker_slots.acquire(_run_dir / "worker_slots")
    if not metrics.use_worker_slot(worker.slot.number, _run_dir / "metrics"):
        server.log.error("%s cannot be written: metrics of this worker stay in its memory", _run_dir / "metrics")


def post_worker_init(worker):
    """Load the models, in the background of a hub that already answers health probes."""
    gc.collect()  # the code from before a HUP
    gc.freeze()
    registry = worker.wsgi.extensions["tableside"].registry
    start_worker = importlib.import_module("tableside.serving.registry").start_worker
    start_worker(registry, worker.slot, Path(_run_dir), os.environ.get("SUPERVISOR_PROCESS_NAME", "web"))
