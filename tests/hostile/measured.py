"""A process with the application under gevent, as in a worker, that says what each request took.

Usage: python -m tests.hostile.measured RUN_FOLDER. Each request on stdin is a line of JSON (path, headers, length of
the body) and the body; each answer on stdout is a line: the status, the start of the body, and what it took (`Taken`).

Time is CPU time, because other processes may hold the machine up. The longest stall of the event loop is the CPU time
that this process used between two turns of a greenlet that wants to run each millisecond: work on the loop's own
thread, and work in native threads that holds the interpreter's lock.
"""

from gevent import monkey

monkey.patch_all()

import ctypes
import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import gevent

from tableside import settings as app_settings
from tableside.factory import create_app
from tableside.process.offload import make_offload
from tableside.serving.registry import Registry
from tableside.serving.reloading import THREADS
from tableside.telemetry import metrics
from tests.conftest import serve
from tests.hostile.models import MODELS, ZeroRuntime


def application(run_dir: Path) -> Any:
    """The application with the settings of a new installation, and the models of MODELS."""
    repository = run_dir / "models"
    repository.mkdir(parents=True, exist_ok=True)
    environ = {"repository__path": str(repository), "server__run_dir": str(run_dir), "log__level": "error"}
    settings = app_settings.load({f"TABLESIDE__{key.upper()}": value for key, value in environ.items()})
    registry = Registry(settings, metrics.make(), make_offload(THREADS), None, None)
    app = create_app(settings, registry)
    registry.reload(1)
    serve(app, {name: (schema, ZeroRuntime()) for name, schema in MODELS.items()})
    return app


class Stalls:
    """Notes the longest stall of the event loop while it is entered."""

    longest_s = 0.0

    def __enter__(self) -> "Stalls":
        self._turn_s = time.process_time()
        self._ticker = gevent.spawn(self._tick)
        gevent.sleep(0)
        return self

    def __exit__(self, *_: object) -> None:
        self._note()
        self._ticker.kill()

    def _tick(self) -> None:
        while True:
            self._note()
            gevent.sleep(0.001)

    def _note(self) -> None:
        now_s = time.process_time()
        self.longest_s = max(self.longest_s, now_s - self._turn_s)
        self._turn_s = now_s


def memory(field: str) -> int:
    """A line of /proc/self/status in bytes: VmRSS is the memory in use, VmHWM the most since `forget_peak`."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def forget_peak() -> int:
    """Give free memory back and begin a new VmHWM. Return the memory in use."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return memory("VmRSS")


def main() -> None:
    """Answer requests until stdin ends."""
    requests, answers = os.fdopen(0, "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # for log lines
    client = application(Path(sys.argv[1])).test_client()
    gc.collect()
    gc.freeze()  # as gunicorn.conf.py does
    answers.write(b"ready\n")
    answers.flush()
    while line := requests.readline():
        head = json.loads(line)
        body = requests.read(head["length"])
        before = forget_peak()
        began_s = time.process_time()
        with Stalls() as stalls:
            answer = client.post(head["path"], data=body, headers=head["headers"])
        took_s = time.process_time() - began_s
        said = {
            "status": answer.status_code, "start": answer.get_data()[:400].decode(errors="replace"), "cpu_s": took_s,
            "stall_s": stalls.longest_s, "peak_bytes": max(0, memory("VmHWM") - before),
        }  # fmt: skip
        answers.write(json.dumps(said).encode() + b"\n")
        answers.flush()
        del answer, body


if __name__ == "__main__":
    main()
