"""Closed-loop load with wrk: each of a fixed number of connections sends its next request after the last answer."""

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
    """The result of one load. faults: count of each kind; a rate with faults does not count."""

    requests: int
    rate: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    faults: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as they are written to the JSON file."""
        return asdict(self)


def closed_loop(port: int, wire: Wire, connections: int, seconds: float) -> Load:
    """Load 127.0.0.1:`port` for `seconds` with the bodies of `wire` in rotation, over kept connections."""
    return parse(_wrk(port, wire, connections, min(connections, 2), seconds))


def starved(port: int, wire: Wire, connections: int, rate: float) -> int:
    """Return how many of `connections` got less than a tenth of the mean number of answers, after a time to settle.

    rate: the server's rate in requests/s. wrk runs one thread per connection, because it counts per thread. The rate of
    this run is not used.
    """
    settle_s, count_s = fairness_times(connections, rate)
    return count_starved(_wrk(port, wire, connections, connections, settle_s + count_s, count_after_s=settle_s))


def fairness_times(connections: int, rate: float) -> tuple[int, int]:
    """Return the whole seconds to settle and to count.

    A server on an event loop may accept one new connection per turn of its loop, in which it answers every connection
    it has. With n connections over 2 workers the last one is accepted after about n * n / 4 answers. This delay is not
    starvation, so the count starts after it. It lasts long enough for six answers per connection, on average.
    """
    settle_s = math.ceil(connections**2 / 4 / max(rate, 1))
    count_s = max(2, math.ceil(6 * connections / max(rate, 1)))
    return min(settle_s, LONGEST_S), min(count_s, LONGEST_S)


def parse(output: str) -> Load:
    """Return the result line that the script printed. Raises ValueError, with wrk's output, if there is none."""
    found = _line(output)
    faults = {kind: found[kind] for kind in _FAULTS if found[kind]}
    rate = found["requests"] / (found["duration_us"] / 1e6)
    return Load(found["requests"], rate, found["p50_us"] / 1e3, found["p99_us"] / 1e3, found["max_us"] / 1e3, faults)


def count_starved(output: str) -> int:
    """Return the number of connections that got less than a tenth of the mean number of answers.

    Return 0 if there are less than 2 answers per connection, which is too few to judge.
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
    """Write the bodies to `folder`. Return the Lua script, which counts requests per thread after `count_after_s`."""
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
