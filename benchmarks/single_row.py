"""Measures the time of one row through the whole stack with one client.

`python -m benchmarks.single_row` starts a stack on free ports. For every example model it alternates between requests
over one kept connection through nginx and calls of the estimator in this process. The ratio of the medians is what
serving adds.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.free_ports import free_port
from examples.train import EXAMPLES, publish_all

ROUNDS, CALLS = 5, 200
PROJECT = Path(__file__).resolve().parents[1]


def start(folder: Path, port: int, **more: str) -> subprocess.Popen[bytes]:
    """Start a stack in `folder` and return it when it is ready. Raises SystemExit after about 60 s."""
    environ = {
        **os.environ,
        "TABLESIDE__SERVER__LISTEN": f"127.0.0.1:{port}",
        "TABLESIDE__SERVER__ADMIN_LISTEN": f"127.0.0.1:{free_port()}",
        "TABLESIDE__SERVER__RUN_DIR": str(folder / "run"),
        "TABLESIDE__REPOSITORY__PATH": str(folder / "models"),
        **more,
    }
    command = [str(Path(sys.executable).parent / "tableside"), "run"]
    process = subprocess.Popen(command, cwd=PROJECT, env=environ, stdout=subprocess.DEVNULL)
    for _ in range(600):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == 200:
                return process
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"the stack did not become ready; its logs are in {folder / 'run' / 'log'}")


def over_http(port: int, name: str, row: dict[str, Any]) -> list[float]:
    """Return the seconds of each request, sent over one kept connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body, spent = json.dumps({"instances": [row]}), []
    for _ in range(CALLS):
        began = time.perf_counter()
        connection.request("POST", f"/v1/models/{name}:predict", body)
        answer = connection.getresponse()
        content = answer.read()
        spent.append(time.perf_counter() - began)
        if answer.status != 200:
            raise SystemExit(f"{name}: {answer.status} {content!r}")
    return spent


def in_process(estimator: Any, frame: Any) -> list[float]:
    spent = []
    for _ in range(CALLS):
        began = time.perf_counter()
        estimator.predict(frame)
        spent.append(time.perf_counter() - began)
    return spent


def main() -> None:
    """Print a Markdown table."""
    folder, port = Path(tempfile.mkdtemp(prefix="tsbench-")), free_port()
    publish_all(folder / "models")
    process = start(folder, port)
    try:
        print("| model | predict in process, p50 ms | through nginx, p50 ms | p99 ms | ratio |\n|---|---|---|---|---|")
        for name, train in EXAMPLES.items():
            estimator, sample = train()
            frame = sample.dropna().iloc[:1]
            row = json.loads(frame.to_json(orient="records"))[0]
            http_s: list[float] = []
            own_s: list[float] = []
            for _ in range(ROUNDS):
                http_s += over_http(port, name, row)
                own_s += in_process(estimator, frame)
            ours, theirs = statistics.median(http_s), statistics.median(own_s)
            p99 = sorted(http_s)[int(len(http_s) * 0.99)]
            print(f"| {name} | {theirs * 1e3:.2f} | {ours * 1e3:.2f} | {p99 * 1e3:.2f} | {ours / theirs:.2f} |")
    finally:
        process.terminate()
        process.wait(90)


if __name__ == "__main__":
    main()
