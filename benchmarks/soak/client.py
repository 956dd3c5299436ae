"""An open-loop client: sends requests at a constant rate, whatever the answers do, and records each of them.

Latency counts from the moment a request was due. Half of the requests use kept connections, half a new one each. A
kept connection that the server has closed is not used again, as in urllib3. Nothing is sent twice.

It runs in a process of its own: `python -m benchmarks.soak.client PORT RATE OUT < TARGETS`. It ends at SIGTERM and then
waits for the answers that are due.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import http.client
import json
import select
import signal
import sys
import time
from typing import NamedTuple, TextIO

import gevent
from gevent.event import Event

TIMEOUT_S = 60.0


class Target(NamedTuple):
    """A request, and the predictions that are its right answer."""

    model: str
    body: str
    predictions: list[float]


class Client:
    """Sends to `targets` in turn at `rate` requests a second and writes a line of JSON for each to `out`."""

    def __init__(self, port: int, rate: float, targets: list[Target], out: TextIO) -> None:
        self._port = port
        self._rate = rate
        self._targets = targets
        self._out = out
        self._idle: list[http.client.HTTPConnection] = []
        self._ended = Event()

    def run(self) -> None:
        """Send until `stop` is called, and wait for the last answers."""
        began_s, number, requests = time.time(), 0, []
        while not self._ended.wait(max(0.0, began_s + number / self._rate - time.time())):
            due_s = began_s + number / self._rate
            requests.append(gevent.spawn(self._send, number, due_s))
            number += 1
            if number % 1000 == 0:
                requests = [request for request in requests if not request.dead]
        gevent.joinall(requests, timeout=TIMEOUT_S)
        self._out.flush()

    def stop(self, *_: object) -> None:
        """End `run` after the requests that are due."""
        self._ended.set()

    def _send(self, number: int, due_s: float) -> None:
        target = self._targets[number % len(self._targets)]
        outcome = self._outcome(target, keep=(number // len(self._targets) + number) % 2 == 0)
        line = {"due_s": due_s, "latency_s": time.time() - due_s, "model": target.model, "outcome": outcome}
        self._out.write(json.dumps(line) + "\n")

    def _outcome(self, target: Target, keep: bool) -> str:
        """Send one request. Return `ok`, or what was wrong with its answer."""
        connection = self._connection() if keep else self._new()
        try:
            path = f"/v1/models/{target.model}:predict"
            connection.request("POST", path, target.body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as problem:
            connection.close()
            return f"{type(problem).__name__}: {problem}"
        if keep:
            self._idle.append(connection)
        else:
            connection.close()
        if answer.status != 200:
            return f"{answer.status} {content[:160].decode(errors='replace')}"
        return "ok" if json.loads(content)["predictions"] == target.predictions else "a wrong answer"

    def _new(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)

    def _connection(self) -> http.client.HTTPConnection:
        while self._idle:
            connection = self._idle.pop(0)
            if connection.sock is not None and not select.select([connection.sock], [], [], 0)[0]:
                return connection
            connection.close()
        return self._new()


def main() -> None:
    """Read the targets from standard input and send until SIGTERM."""
    port, rate, out = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    targets = [Target(**target) for target in json.load(sys.stdin)]
    with open(out, "w", buffering=1) as file:
        client = Client(port, rate, targets, file)
        gevent.signal_handler(signal.SIGTERM, client.stop)
        client.run()


if __name__ == "__main__":
    main()
