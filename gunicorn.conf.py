from gevent import monkey

monkey.patch_all()  # before anything imports socket, ssl or threading

# The master imports libraries, never this project's models: OpenMP that ran before a fork hangs in the children. A HUP
# makes new workers, which import this project's code afresh (post_fork), and drains the old ones.
import gc
import importlib
import os
import sys
from pathlib import Path

from app.settings import load

settings = load()
_run_dir = settings.run_dir
_behind_nginx = os.environ.get("TABLESIDE_NGINX") == "true"

wsgi_app = "wsgi:application"
# No `bind`: the listeners come through LISTEN_FDS from app.stack.serve, and outlive this process.
worker_class = "app.concurrency.worker.TablesideWorker"
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
logger_class = "app.concurrency.gunicorn_log.GunicornLog"
errorlog = "-"
loglevel = settings.log.level
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"tableside": {"()": "app.logs.formatter", "style": settings.log.format}},
    "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "tableside", "stream": "ext://sys.stdout"}},
    "root": {"level": "INFO", "handlers": ["out"]},
    "loggers": {
        "gunicorn.error": {"level": settings.log.level.upper(), "handlers": [], "propagate": True},
        "gunicorn.access": {"level": "INFO", "handlers": [], "propagate": False},
    },
}


def on_starting(server):
    """Import the slow libraries once; every fork shares them. Best effort: a worker imports what is missing."""
    for library in (
        "numpy",
        "pandas",
        "sklearn.pipeline",
        "sklearn.ensemble",
        "sklearn.compose",
        "skops.io",
        "pyarrow.csv",
    ):
        try:
            importlib.import_module(library)
        except ImportError as missing:
            server.log.warning("cannot import %s ahead of the workers: %s", library, missing)
    _keep_for_good()


def _keep_for_good():
    """What is loaded by now stays: a full collection would look at all of it, 70 ms in which a worker answers nobody,
    and would copy the pages that the forks share.
    """
    gc.collect()
    gc.freeze()


def post_fork(server, worker):
    """Forget this project's own modules, so that a HUP serves the code that lies on disk; take a slot."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("app", "blueprints", "wsgi")]:
        del sys.modules[name]
    slots = importlib.import_module("app.concurrency.slots")
    metrics = importlib.import_module("app.metrics")
    worker.slot = slots.take(_run_dir / "slots")
    if not metrics.use_slot(worker.slot.number, _run_dir / "metrics"):
        server.log.error("%s cannot be written: metrics of this worker stay in its memory", _run_dir / "metrics")


def post_worker_init(worker):
    """Load the models, in the background of a hub that already answers health probes."""
    _keep_for_good()
    registry = worker.wsgi.extensions["tableside"].registry
    start_worker = importlib.import_module("app.serving.registry").start_worker
    start_worker(registry, worker.slot, Path(_run_dir), os.environ.get("SUPERVISOR_PROCESS_NAME", "web"))
