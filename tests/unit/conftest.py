"""A server with one worker, as commands on another machine reach it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from flask import Flask
from werkzeug.serving import make_server


class ControlPlane:
    """An application as it is seen on the control plane."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return self._app({**environ, "tableside.plane": "control"}, start_response)


@pytest.fixture
def server(worker: Flask) -> Iterator[str]:
    """The address of the control plane of `worker`."""
    serving = make_server("127.0.0.1", 0, ControlPlane(worker), threaded=True)
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    thread.join()
    serving.server_close()
