from gevent import monkey

monkey.patch_all()  # before any other import: socket, ssl and threading must be patched first

import gc
import importlib
import os
import signal
import sys
import time
from contextlib import suppress

LIBRARIES = (
    "numpy", "pandas", "sklearn.pipeline", "sklearn.ensemble", "sklearn.compose", "skops.io", "pyarrow.csv",
)  # fmt: skip
OPTIONAL_LIBRARIES = ("treelite.sklearn",)

# The application, and what the hooks below use. Modules that these import come with them.
OWN_MODULES = (
    "tableside.factory", "tableside.serving.worker_status", "tableside.process.worker_slots",
    "tableside.process.settling", "tableside.process.deaths", "tableside.process.worker_lives",
    "tableside.telemetry.metrics", "tableside.telemetry.metric_reader",
    "tableside.web.any_server",  # wsgi.py, which each worker loads after the fork, imports it
)  # fmt: skip


def _import_all():
    """Import the slow libraries and this project's code in the master, so that all workers share their memory.

    A missing library is skipped. The objects are then excluded from garbage collection. Otherwise each full collection
    would traverse them, which takes 70 ms in which a worker answers no request, and would copy the memory that the
    workers share.
    """
    with importlib.import_module("tableside.process.long_lived").few_collections():
        for library in LIBRARIES:
            with suppress(ImportError):
                importlib.import_module(library)
        for library in OPTIONAL_LIBRARIES:
            with suppress(ImportError, OSError):  # an OSError if its shared library cannot be loaded
                importlib.import_module(library)
        for module in OWN_MODULES:
            importlib.import_module(module)
    gc.collect()
    gc.freeze()


# Workers are forked from the master and do not import the code again, so that a worker that starts later runs the same
# code as the others. New code needs a new master, which the web keeper starts (docs/decisions/0015-the-web-keeper.md).
# Models load after the fork: if OpenMP runs before a fork, it hangs in the child.
if "TABLESIDE_ONLY_SETTINGS" not in os.environ:  # `tableside doctor` reads this file and forks nothing
    _import_all()
settings = importlib.import_module("tableside.settings").load()
_run_dir = settings.run_dir
_head_limits = importlib.import_module("tableside.server.head_limits")
_behind_nginx = _head_limits.is_behind_nginx()

wsgi_app = "wsgi:application"
# No `bind`: tableside.deployment.gunicorn passes the listeners in LISTEN_FDS. They stay open when this process ends.
worker_class = "tableside.server.worker.TablesideWorker"
workers = settings.server.workers
# A worker accepts every request that nginx sends. Requests for a busy model then wait in that model's queue, and do not
# delay requests for other models (docs/decisions/0004-batching-and-overload.md).
_files = importlib.import_module("tableside.machine").open_files()
worker_connections = min(settings.server.max_requests_in_flight if _behind_nginx else 1000, max(16, _files - 128))
# Of the event loop's heartbeat, not of a request: long work runs in native threads. The other requests of a worker that
# is ended are sent again, and need time for that.
timeout = int(min(30.0, max(10.0, settings.server.request_timeout_s / 2)))
_keep_s = settings.server.quarantine_s
max_requests = settings.server.max_requests_per_worker  # the worker class replaces a worker before it ends
max_requests_jitter = max_requests // 10
graceful_timeout = settings.server.graceful_timeout_s
keepalive = 5 if _behind_nginx else settings.server.keepalive_held_s
preload_app = False
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - gunicorn unlinks its file at once
control_socket_disable = True  # gunicorn 27 enables it by default, with the same path for all instances of a user
globals().update(_head_limits.of_gunicorn(settings.server, _behind_nginx))  # limit_request_line and so on
# No header changes the scheme or the path of a request: nothing here uses the scheme, and every path begins at the
# root. No proxy has to be trusted then, and gunicorn does not parse each client's address.
secure_scheme_headers = {}
forwarder_headers = ""
forwarded_allow_ips = "*"
proc_name = "tableside"
accesslog = None  # the application writes its own: tableside.telemetry.access_log
logger_class = "tableside.server.gunicorn_log.GunicornLog"
errorlog = "-"
loglevel = settings.log.level
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"tableside": {"()": "tableside.telemetry.logs.formatter", "style": settings.log.format}},
    "handlers": {"out": {"()": "tableside.telemetry.logs.handler", "formatter": "tableside"}},
    "root": {"level": "INFO", "handlers": ["out"]},
    "loggers": {
        "gunicorn.error": {"level": settings.log.level.upper(), "handlers": [], "propagate": True},
        "gunicorn.access": {"level": "INFO", "handlers": [], "propagate": False},
    },
}
_metric_reader = None  # of the master; each worker goes on with a copy of it
del settings, _head_limits


def on_starting(server):
    """Log the libraries that the master could not import, so that each worker must import them again."""
    for library in LIBRARIES:
        if library not in sys.modules:
            server.log.warning("cannot import %s in the master: each worker will need more memory", library)


def when_ready(server):
    """Ignore HUP if a web keeper runs this master: HUP goes to the keeper, which starts a new one."""
    if "TABLESIDE_INSTANCE_ID" in os.environ:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def pre_fork(server, worker):
    """Find out where the metrics of the other workers are, once for all new workers.

    A worker needs 0.2 s of CPU time for it with 100 models, and would do it while it loads these.
    """
    global _metric_reader
    metric_reader, worker_slots = (
        importlib.import_module("tableside.telemetry.metric_reader"),
        importlib.import_module("tableside.process.worker_slots"),
    )
    try:
        _metric_reader = _metric_reader or metric_reader.MetricReader(_run_dir / "metrics")
        _metric_reader.read_ahead(worker_slots.held(_run_dir / "worker_slots"))
    except Exception:  # an error here would end the master
        server.log.exception("cannot read the metrics of the other workers: the first scrape of a worker will be slow")
        _metric_reader = None


def post_fork(server, worker):
    """Take a worker slot, and count the start."""
    worker_slots, metrics, lives = (
        importlib.import_module("tableside.process.worker_slots"),
        importlib.import_module("tableside.telemetry.metrics"),
        importlib.import_module("tableside.process.worker_lives"),
    )
    try:
        worker.slot = worker_slots.acquire(_run_dir / "worker_slots")
    except OSError as problem:
        worker.slot = worker_slots.unlisted()
        server.log.error("no worker slot: %s. The worker serves, but /metrics and `tableside list` lack it", problem)
        return
    finally:
        lives.began(_run_dir, worker.pid, time.monotonic())
    if not metrics.use_worker_slot(worker.slot.number, _run_dir / "metrics"):
        server.log.error(
            "cannot write %s: /metrics will lack this worker. Check the folder's permissions and free space",
            _run_dir / "metrics",
        )


def child_exit(server, worker):
    """Find out why a worker has ended and which requests it had in hand; count the end, unless the worker did."""
    _settle(server)
    lives = importlib.import_module("tableside.process.worker_lives")
    ending = server.log.take_ending(worker.pid)
    end = lives.ended(_run_dir, worker.pid, ending, worker.aborted)
    if end is None and not ending:
        return  # the worker has logged and counted its end
    cause, in_hand = end or lives.End(lives.cause_of(ending, worker.aborted))
    what = f"exit code {ending}" if isinstance(ending, int) else ending
    had = "not recorded" if in_hand is None else in_hand
    log = server.log.info if cause is lives.Cause.STOPPED else server.log.error
    log("worker (pid %s) has ended: %s, %s. Requests in hand: %s", worker.pid, cause, what, had)


def _settle(server):
    """Settle the requests of the workers that have died, and log what follows."""
    settling, hand_file = (
        importlib.import_module("tableside.process.settling"),
        importlib.import_module("tableside.process.hand_file"),
    )
    if not _keep_s:
        return
    try:
        file = hand_file.HandFile(_run_dir)
    except OSError:  # a full or read-only disk: nothing was recorded
        return
    for settled in settling.settle_ended(file, _keep_s):
        for line in settling.lines(settled):
            server.log.error("%s", line)
    file.close()


def worker_exit(server, worker):
    """Count the end of this worker, write what it has counted of versions that are tried, and send its last spans."""
    if worker.pid != os.getpid():
        return  # gunicorn's master calls this too, for a worker that it finds gone
    if application := getattr(worker, "wsgi", None):
        extensions = application.extensions["tableside"]
        extensions.registry.traffic.stop()
        if extensions.tracing:
            extensions.tracing.stop()
    ended_by = sys.exc_info()[1]  # gunicorn calls this while it raises SystemExit
    code = ended_by.code if isinstance(ended_by, SystemExit) else 0
    lives = importlib.import_module("tableside.process.worker_lives")
    end = lives.ended(
        _run_dir, worker.pid, code if isinstance(code, int) else 0, recycled=getattr(worker, "is_recycled", False)
    )
    if end is not None:
        worker.log.info("worker (pid %s) has ended: %s, after %s requests", worker.pid, end.cause, worker.nr)


def post_worker_init(worker):
    """Load the models in the background, while the event loop already answers health probes."""
    gc.collect()
    gc.freeze()  # the application's objects too
    extensions = worker.wsgi.extensions["tableside"]
    registry = extensions.registry
    try:
        registry.hand.attach(_run_dir, worker.slot.number, _keep_s)
        deaths = importlib.import_module("tableside.process.deaths")
        deaths.record_faults(deaths.fault_file(_run_dir / "in_hand", worker.slot.number))
    except OSError as problem:
        worker.log.error("requests in hand are not recorded: %s. A request that ends its worker is sent again", problem)
    if extensions.tracing:
        extensions.tracing.slot = str(worker.slot.number)
    start_worker = importlib.import_module("tableside.serving.worker_status").start_worker
    instance = os.environ.get("SUPERVISOR_PROCESS_NAME", "web")
    start_worker(registry, worker.slot, extensions.settings, instance, worker.cfg.workers)
    extensions.metrics.reader = _metric_reader
    if worker.slot.is_listed:
        history = importlib.import_module("tableside.serving.request_history")
        history.Recorder(_run_dir, worker.slot.number, extensions.request_metrics.take_activity).start()
