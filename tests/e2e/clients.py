"""Clients that send predictions from threads, and count the answers."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from typing import Any

from tests.e2e.conftest import Stack


class Clients:
    """Threads that send requests until they are stopped, and count the answers by status."""

    def __init__(self, stack: Stack) -> None:
        self.answers: Counter[int] = Counter()
        self._stack, self._key, self._stop = stack, stack.key, threading.Event()
        self._threads: list[threading.Thread] = []

    def send(self, model: str, body: Any, timeout_s: float = 30.0, **headers: str) -> int:
        """Send one request. Return its status, 0 if none came within `timeout_s`."""
        address = ("127.0.0.1", self._stack.data)
        connection = (
            http.client.HTTPSConnection(*address, timeout=timeout_s, context=self._stack.tls)
            if self._stack.tls
            else http.client.HTTPConnection(*address, timeout=timeout_s)
        )
        sent = {"Authorization": f"Bearer {self._key}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request("POST", f"/v1/models/{model}:predict", json.dumps(body), sent)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def keep(self, requests: list[tuple[str, Any]], clients: int = 1, pause_s: float = 0.05, **more: Any) -> None:
        """Send these in turn from now on, each client its next one after an answer."""

        def run() -> None:
            at = 0
            while not self._stop.wait(pause_s):
                model, body = requests[at % len(requests)]
                self.answers[self.send(model, body, **more)] += 1
                at += 1

        self._threads += [threading.Thread(target=run, daemon=True) for _ in range(clients)]
        for thread in self._threads[-clients:]:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
