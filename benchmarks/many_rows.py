"""Measures the time and peak memory of a worker for 100,000 rows x 30 columns in each format, and checks the answers.

`python -m benchmarks.many_rows` starts a stack of one worker for each format and prints a Markdown table. Peak memory
is the kernel's high-water mark (VmHWM in proc(5)), reset before the request, minus the memory before the request.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from sklearn.linear_model import Ridge

from benchmarks.free_ports import free_port
from benchmarks.single_row import start
from tableside.publishing.publish import publish

ROWS, COLUMNS = 100_000, 30
HEADER = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Result:
    """One request: its size, the worker's peak memory above idle, the time and the answers."""

    format: str
    body_bytes: int
    peak_bytes: int
    seconds: float
    answers: Any


def make_table(rows: int = ROWS, columns: int = COLUMNS) -> tuple[Any, Any]:
    """Return a table of random numbers with all digits, and a linear model fitted on it."""
    table = np.random.default_rng(11).normal(size=(rows, columns))
    return table, Ridge().fit(table[:1000], table[:1000] @ np.arange(columns))


def bodies(table: Any) -> Iterator[tuple[str, str, bytes, dict[str, str]]]:
    """Yield (format, path, body, headers) of requests that hold the same rows in different formats."""
    rows, width = table.shape
    listed = table.tolist()
    names = [f"x{at}" for at in range(width)]
    tensor = {"name": "input-0", "shape": [rows, width], "datatype": "FP64"}
    json_type = {"Content-Type": "application/json"}
    yield "JSON, V1 rows", "/v1/models/wide:predict", json.dumps({"instances": listed}).encode(), json_type
    v2 = json.dumps({"inputs": [{**tensor, "data": table.reshape(-1).tolist()}]}).encode()
    yield "JSON, V2 matrix", "/v2/models/wide/infer", v2, json_type
    split = json.dumps({"dataframe_split": {"columns": names, "data": listed}}).encode()
    yield "JSON, dataframe_split", "/models/wide/invocations", split, json_type
    del listed, v2, split
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": table.nbytes}}]}).encode()
    yield "binary tensor", "/v2/models/wide/infer", head + table.tobytes(), {HEADER: str(len(head))}
    arrow = pa.table({name: table[:, at] for at, name in enumerate(names)})
    sink = io.BytesIO()
    pyarrow.csv.write_csv(arrow, sink)
    yield "CSV", "/models/wide/invocations", sink.getvalue(), {"Content-Type": "text/csv"}
    small = gzip.compress(sink.getvalue(), 1)
    yield "CSV, gzip", "/models/wide/invocations", small, {"Content-Type": "text/csv", "Content-Encoding": "gzip"}
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, arrow.schema) as writer:
        writer.write_table(arrow)
    kind = {"Content-Type": "application/vnd.apache.arrow.stream"}
    yield "Arrow stream", "/models/wide/invocations", stream.getvalue(), kind
    file = io.BytesIO()
    pyarrow.parquet.write_table(arrow, file)
    yield "Parquet", "/models/wide/invocations", file.getvalue(), {"Content-Type": "application/vnd.apache.parquet"}


def memory(pid: int, field: str) -> int:
    """Return a field of /proc/PID/status in bytes. Raises KeyError if the field is missing."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def ask(url: str, worker: int, idle_bytes: int, name: str, body: bytes, headers: dict[str, str]) -> Result:
    """Send one request to `url` and return its result. idle_bytes: the memory of the worker before it."""
    Path(f"/proc/{worker}/clear_refs").write_text("5")  # proc(5): resets VmHWM
    began = time.perf_counter()
    request = urllib.request.Request(url, data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        content = json.loads(answer.read())
    seconds = time.perf_counter() - began
    answers = content["predictions"] if "predictions" in content else content["outputs"][0]["data"]
    return Result(name, len(body), memory(worker, "VmHWM") - idle_bytes, seconds, np.array(answers))


def worker_pid(run_dir: Path) -> int:
    """Return the pid of the worker of a stack that has only one."""
    return int(json.loads((run_dir / "worker_slots" / "0.json").read_text())["pid"])


def in_a_fresh_worker(repository: Path, path: str, name: str, body: bytes, headers: dict[str, str]) -> Result:
    """Start a stack of one worker, send it one request, stop it and return the result."""
    folder, port = Path(tempfile.mkdtemp(prefix="tsbench-")), free_port()
    more = {"TABLESIDE__SERVER__WORKERS": "1", "TABLESIDE__REPOSITORY__PATH": str(repository)}
    process = start(folder, port, **more)
    try:
        worker = worker_pid(folder / "run")
        return ask(f"http://127.0.0.1:{port}{path}", worker, memory(worker, "VmRSS"), name, body, headers)
    finally:
        process.terminate()
        process.wait(90)
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Print a Markdown table."""
    repository = Path(tempfile.mkdtemp(prefix="tsbench-"))
    table, model = make_table()
    publish("wide", model, table[:200], repository=repository)
    expected = model.predict(table)
    print("| format | body MB | peak above idle, MB | seconds | answers equal |\n|---|---|---|---|---|")
    for name, path, body, headers in bodies(table):
        found = in_a_fresh_worker(repository, path, name, body, headers)
        sizes = f"{found.body_bytes / 1e6:.0f} | {found.peak_bytes / 1e6:.0f}"
        print(f"| {name} | {sizes} | {found.seconds:.2f} | {bool((found.answers == expected).all())} |", flush=True)
    shutil.rmtree(repository, ignore_errors=True)


if __name__ == "__main__":
    main()
