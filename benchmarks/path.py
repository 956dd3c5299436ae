"""Measures the time per request of one row inside a worker, without a network: `python -m benchmarks.path`.

The worker's connection loop serves 16 fake connections at a time. Many short rounds alternate between an application
that answers a constant and Tableside with a scaled logistic regression of 30 columns. The row is one of the training
data. `--anomalous` takes a row whose cells nearly all lie outside of the sample's range. The smallest time of each is
the one least disturbed by other processes. `--spin 20` keeps the worker busy for 20 s more, for a profiler:

    py-spy record -d 10 -r 1000 -f raw -o spy.txt -p PID
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import os  # noqa: E402
import statistics  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterable, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import orjson  # noqa: E402
from gunicorn.config import Config  # noqa: E402
from sklearn.datasets import load_breast_cancer  # noqa: E402

from benchmarks.models import train  # noqa: E402
from tableside.factory import create_app  # noqa: E402
from tableside.server import json_errors, one_send_response  # noqa: E402
from tableside.server.gunicorn_log import GunicornLog  # noqa: E402
from tableside.server.worker import TablesideWorker  # noqa: E402
from tableside.serving.registry import Registry  # noqa: E402
from tableside.settings import load  # noqa: E402
from tableside.telemetry import metrics  # noqa: E402

CONNECTIONS, REQUESTS, ROUNDS = 16, 640, 60
PATH = "/v1/models/logistic:predict"
CONSTANT = b'{"predictions":[0]}'


def constant(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A WSGI application that reads the body and answers a constant."""
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(CONSTANT)))])
    return [CONSTANT]


class FakeConnection:
    """A connection on which the same request arrives `times` times; it remembers the last answer."""

    def __init__(self, request: bytes, times: int, readable_fd: int) -> None:
        self.request, self.times, self.readable_fd = request, times, readable_fd
        self.sent = b""

    def recv(self, size: int) -> bytes:
        self.times -= 1
        return self.request if self.times >= 0 else b""

    def send(self, content: bytes) -> int:
        self.sent = content
        return len(content)

    def fileno(self) -> int:
        return self.readable_fd

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 8080)

    def setblocking(self, flag: int) -> None:
        """Accept the call; a fake connection has no state to change."""

    shutdown = setblocking

    def close(self) -> None:
        """Accept the call; a fake connection has no state to change."""


class Bench:
    """A Tableside worker in this process, without a gunicorn master."""

    def __init__(self, row: Sequence[float]) -> None:
        config = Config()
        config.set("workers", 2)
        config.set("worker_class", "gevent")
        self.worker = TablesideWorker(1, os.getppid(), [], None, 30, config, GunicornLog(config))
        self.worker.alive, self.worker.nr, self.worker.max_requests = True, 0, 10**12
        body = orjson.dumps({"instances": [row]})
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        self.request = head.encode() + b"\r\n\r\n" + body
        self.readable_fd, writable = os.pipe()
        os.write(writable, b"x")

    def run(self, application: Any) -> float:
        """Serve REQUESTS requests and return the microseconds per request."""
        self.worker.wsgi = application
        times = REQUESTS // CONNECTIONS
        connections = [FakeConnection(self.request, times, self.readable_fd) for _ in range(CONNECTIONS)]
        began_s = time.perf_counter()
        address = ("127.0.0.1", 1)
        gevent.joinall(
            [gevent.spawn(self.worker.handle, connections[0], connection, address) for connection in connections]
        )
        spent_s = time.perf_counter() - began_s
        for connection in connections:
            assert connection.sent.startswith(b"HTTP/1.1 200 OK"), connection.sent
        return spent_s / REQUESTS * 1e6


def tableside(folder: Path) -> Any:
    """Return Tableside's application, with a worker slot for its metrics as in a worker."""
    os.environ["TABLESIDE__REPOSITORY__PATH"] = str(train(folder, ["logistic"])[0].repository)
    os.environ["TABLESIDE__SERVER__RUN_DIR"] = str(folder / "run")
    os.environ["TABLESIDE__LOG__FORMAT"] = "json"
    metrics.use_worker_slot(0, folder / "metrics")
    settings = load()
    application = create_app(settings)
    registry: Registry = application.extensions["tableside"].registry
    registry.reload(1)
    registry.hand.attach(settings.run_dir, 0, settings.server.quarantine_s)
    return application


def main() -> None:
    """Print the time per request of both applications and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spin", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--anomalous", action="store_true")
    chosen = parser.parse_args()
    row = [round(0.1 * at, 3) for at in range(30)] if chosen.anomalous else load_breast_cancer().data[0].tolist()
    terminal = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # discards the access log
    with tempfile.TemporaryDirectory() as folder:
        bench, application = Bench(row), tableside(Path(folder))
        for _ in range(3):
            bench.run(constant), bench.run(application)
        bare, ours = [], []
        for _ in range(ROUNDS):
            bare.append(bench.run(constant))
            ours.append(bench.run(application))
        result = f"constant {min(bare):.1f} us, Tableside {min(ours):.1f} us, ratio {min(bare) / min(ours):.2f}; "
        result += f"medians {statistics.median(bare):.1f} and {statistics.median(ours):.1f} us\n"
        os.write(terminal, result.encode())
        until_s = time.monotonic() + chosen.spin
        while time.monotonic() < until_s:
            bench.run(application)
        os._exit(0)


if __name__ == "__main__":
    one_send_response.install()
    json_errors.install(Config())
    main()
