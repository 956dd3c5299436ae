"""What one row costs in a worker without the network: `python -m benchmarks.path`.

The worker's own connection loop is given sockets that are only pretended, 16 at a time, once with an application that
answers a constant and once with Tableside and a scaled logistic regression of 30 columns; in turn, many short rounds.
The least of each is free of others' noise. `--spin 20` goes on for so many seconds, to be looked at from outside:

    py-spy record -d 10 -r 1000 -f raw -o spy.txt -p PID
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import os  # noqa: E402
import statistics  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import orjson  # noqa: E402
from gunicorn.config import Config  # noqa: E402

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
    """The least a WSGI application can do."""
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(CONSTANT)))])
    return [CONSTANT]


class Pretended:
    """A connection on which the same request arrives `times` times."""

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
        """Nothing to do."""

    shutdown = setblocking

    def close(self) -> None:
        """Nothing to do."""


class Bench:
    """A worker that was never forked."""

    def __init__(self) -> None:
        config = Config()
        config.set("workers", 2)
        config.set("worker_class", "gevent")
        self.worker = TablesideWorker(1, os.getppid(), [], None, 30, config, GunicornLog(config))
        self.worker.alive, self.worker.nr, self.worker.max_requests = True, 0, 10**12
        body = orjson.dumps({"instances": [[round(0.1 * at, 3) for at in range(30)]]})
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        self.request = head.encode() + b"\r\n\r\n" + body
        self.readable_fd, writable = os.pipe()
        os.write(writable, b"x")

    def run(self, application: Any) -> float:
        """Microseconds a request."""
        self.worker.wsgi = application
        each = REQUESTS // CONNECTIONS
        connections = [Pretended(self.request, each, self.readable_fd) for _ in range(CONNECTIONS)]
        began_s = time.perf_counter()
        address = ("127.0.0.1", 1)
        gevent.joinall([gevent.spawn(self.worker.handle, connections[0], one, address) for one in connections])
        spent_s = time.perf_counter() - began_s
        for one in connections:
            assert one.sent.startswith(b"HTTP/1.1 200 OK"), one.sent
        return spent_s / REQUESTS * 1e6


def tableside(folder: Path) -> Any:
    """The application, in a slot of its own as in a worker."""
    os.environ["TABLESIDE__REPOSITORY__PATH"] = str(train(folder, ["logistic"])[0].repository)
    os.environ["TABLESIDE__SERVER__RUN_DIR"] = str(folder / "run")
    os.environ["TABLESIDE__LOG__FORMAT"] = "json"
    metrics.use_worker_slot(0, folder / "metrics")
    settings = load()
    application = create_app(settings)
    registry: Registry = application.extensions["tableside"].registry
    registry.reload(1)
    return application


def main() -> None:
    """Print the two costs and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spin", type=float, default=0.0, metavar="SECONDS")
    spin_s = parser.parse_args().spin
    terminal = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where the access log goes
    with tempfile.TemporaryDirectory() as folder:
        bench, application = Bench(), tableside(Path(folder))
        for _ in range(3):
            bench.run(constant), bench.run(application)
        bare, ours = [], []
        for _ in range(ROUNDS):
            bare.append(bench.run(constant))
            ours.append(bench.run(application))
        said = f"constant {min(bare):.1f} us, Tableside {min(ours):.1f} us, ratio {min(bare) / min(ours):.2f}; "
        said += f"medians {statistics.median(bare):.1f} and {statistics.median(ours):.1f} us\n"
        os.write(terminal, said.encode())
        until_s = time.monotonic() + spin_s
        while time.monotonic() < until_s:
            bench.run(application)
        os._exit(0)


if __name__ == "__main__":
    one_send_response.install()
    json_errors.install()
    main()
