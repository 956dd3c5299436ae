"""Closed-loop load with wrk: a fixed number of connections, each sends its next request when the answer is there."""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.wires import Wire

TIMEOUT_S = 2
STARVED_SHARE = 0.1
LONGEST_S = 15

_SCRIPT = """\
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init(args)
  requests, sent, late, began = {}, 0, 0, os.time()
  for at = 1, @COUNT@ do
    local file = io.open("@FOLDER@/" .. at, "rb")
    requests[at] = wrk.format("POST", "@PATH@", wrk.headers, file:read("*a"))
    file:close()
  end
end
function request()
  sent = sent + 1
  if @AFTER@ and os.time() - began >= @AFTER@ then late = late + 1 end
  return requests[sent % @COUNT@ + 1]
end
function done(summary, latency, _)
  local each = {}
  for at, thread in ipairs(threads) do each[at] = thread:get("late") end
  local e = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "max_us": %d, "connect": %d, "read": %d, '
      .. '"write": %d, "status": %d, "timeout": %d, "late": [%s]}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    e.connect, e.read, e.write, e.status, e.timeout, table.concat(each, ", ")))
end
"""
_FAULTS = ("connect", "read", "write", "status", "timeout")


@dataclass(frozen=True)
class Load:
    """What one load came to. faults: kind to count; a rate with any of them is no rate."""

    requests: int
    rate: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    faults: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For the JSON file."""
        return asdict(self)


def closed_loop(port: int, wire: Wire, connections: int, seconds: float) -> Load:
    """Load 127.0.0.1:`port` for `seconds`; all bodies of `wire` in turn over kept connections."""
    return parse(_wrk(port, wire, connections, min(connections, 2), seconds))


def starved(port: int, wire: Wire, connections: int, rate: float) -> int:
    """How many of `connections` got less than a tenth of the mean number of answers, after a time to settle.

    rate: of the server, requests/s. One wrk thread a connection, so that each is counted; the rate of this run is not
    used.
    """
    settle_s, count_s = fairness_times(connections, rate)
    return count_starved(_wrk(port, wire, connections, connections, settle_s + count_s, count_after_s=settle_s))


def fairness_times(connections: int, rate: float) -> tuple[int, int]:
    """Whole seconds to settle and to count.

    A server on an event loop may accept one connection between two turns of answering those it has: with n connections
    over 2 workers the last waits for about n * n / 4 answers. That starves nobody for long, so it is waited for.
    Counted are at least six answers a connection, on average.
    """
    settle_s = math.ceil(connections**2 / 4 / max(rate, 1))
    count_s = max(2, math.ceil(6 * connections / max(rate, 1)))
    return min(settle_s, LONGEST_S), min(count_s, LONGEST_S)


def parse(output: str) -> Load:
    """The line the script printed, as a Load. Raises ValueError when there is none."""
    found = _line(output)
    faults = {kind: found[kind] for kind in _FAULTS if found[kind]}
    rate = found["requests"] / (found["duration_us"] / 1e6)
    return Load(found["requests"], rate, found["p50_us"] / 1e3, found["p99_us"] / 1e3, found["max_us"] / 1e3, faults)


def count_starved(output: str) -> int:
    """Connections whose next requests (each sent when an answer was there) are below a tenth of the mean.

    0 when there are too few answers (less than 2 a connection) to tell.
    """
    answered = _line(output)["late"]
    mean = sum(answered) / len(answered)
    return sum(count < STARVED_SHARE * mean for count in answered) if mean >= 2 else 0


def _line(output: str) -> dict[str, Any]:
    for line in output.splitlines():
        if line.startswith("{"):
            return dict(json.loads(line))
    raise ValueError(f"wrk printed no result: {output.strip()[-300:]!r}")


def script(wire: Wire, folder: Path, count_after_s: int | None = None) -> str:
    """The Lua script; the bodies are written to `folder`. It counts each thread's requests after `count_after_s`."""
    for at, body in enumerate(wire.bodies, 1):
        (folder / str(at)).write_bytes(body)
    text = _SCRIPT
    after = "false" if count_after_s is None else count_after_s
    for key, value in {"COUNT": len(wire.bodies), "FOLDER": folder, "PATH": wire.path, "AFTER": after}.items():
        text = text.replace(f"@{key}@", str(value))
    return text


def _wrk(
    port: int, wire: Wire, connections: int, threads: int, seconds: float, count_after_s: int | None = None
) -> str:
    with tempfile.TemporaryDirectory(prefix="tsbench-") as folder:
        lua = Path(folder, "load.lua")
        lua.write_text(script(wire, Path(folder), count_after_s))
        command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{max(1, round(seconds))}s", f"--timeout={TIMEOUT_S}s"]
        for key, value in wire.headers.items():
            command += ["-H", f"{key}: {value}"]
        done = subprocess.run(
            [*command, "-s", str(lua), f"http://127.0.0.1:{port}"], capture_output=True, text=True, timeout=seconds + 60
        )
    return done.stdout + done.stderr
