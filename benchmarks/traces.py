"""Measures what traces add to the time per request of one row inside a worker: `python -m benchmarks.traces`.

As in `benchmarks.path`, the worker's connection loop serves fake connections. Short rounds alternate between one
application without traces and one with them, which gets requests without a `traceparent` (and traces none by chance),
with one that asks for no trace, and with one that asks for a trace. The spans go to a receiver in another process,
which decodes them. The times are this process's own processor time, so those of encoding and sending are in them. The
smallest time of each is the one least disturbed by other processes.
"""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
from gunicorn.config import Config  # noqa: E402
from sklearn.datasets import load_breast_cancer  # noqa: E402

from benchmarks.free_ports import free_port  # noqa: E402
from benchmarks.path import REQUESTS, ROUNDS, Bench, tableside  # noqa: E402
from tableside.server import json_errors, one_send_response  # noqa: E402

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"
RECEIVER = """
import sys, time
from tests.span_receiver import receiving
with receiving(int(sys.argv[1])):
    time.sleep(3600)
"""


def main() -> None:
    """Print the time per request of each kind."""
    terminal = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # discards the access log
    port = free_port()
    receiver = subprocess.Popen([sys.executable, "-c", RECEIVER, str(port)])
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(load_breast_cancer().data[0].tolist())
        plain = tableside(Path(folder))
        os.environ["TABLESIDE__TRACING__ENDPOINT"] = f"http://127.0.0.1:{port}"
        os.environ["TABLESIDE__TRACING__SAMPLE_RATIO"] = "0"
        traced, without = tableside(Path(folder)), bench.request
        kinds = {"off": (plain, without), "on, no header": (traced, without)}
        for name, flags in (("on, not sampled", "00"), ("on, sampled", "01")):
            header = f"\r\ntraceparent: 00-{TRACE}-{flags}\r\nContent-Type:".encode()
            kinds[name] = (traced, without.replace(b"\r\nContent-Type:", header, 1))
        found: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(ROUNDS // 3):
            for name, (application, request) in kinds.items():
                bench.request = request
                began_s = time.process_time()
                bench.run(application)
                found[name].append((time.process_time() - began_s) / REQUESTS * 1e6)
                gevent.sleep(0.01)
        for name, times in found.items():
            line = f"{name:16} {min(times):6.1f} us, median {statistics.median(times):.1f} us\n"
            os.write(terminal, line.encode())
        parts = traced.extensions["tableside"]
        parts.tracing.stop(10)
        sent = [each.value for family in parts.metrics.spans_sent.collect() for each in family.samples]
        os.write(terminal, f"spans sent: {sent[0]:.0f}\n".encode())
    receiver.kill()
    os._exit(0)


if __name__ == "__main__":
    one_send_response.install()
    json_errors.install(Config())
    main()
