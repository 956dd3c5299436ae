"""The application for any WSGI server. The stack's worker starts to load models itself; other servers do not know how.

Other servers import the application before they fork, or never fork. So an application is made in each process, with
its first request, and loads its models from then on. Requests wait for their model as they do in a worker that starts.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from wsgiref.types import StartResponse, WSGIEnvironment

from flask import Flask

from tableside.serving.following import follow
from tableside.web.extensions import EXTENSION_KEY

if TYPE_CHECKING:
    from tableside.web.extensions import Extensions


class ApplicationForAnyServer:
    """A WSGI application (PEP 3333) that makes `make()` in each process, and starts to load its models.

    make: returns a new application; its errors are raised by the first request of a process.
    """

    def __init__(self, make: Callable[[], Flask]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: tuple[int, Flask] | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        made = self._made
        application = made[1] if made is not None and made[0] == os.getpid() else self._of_this_process()
        return application(environ, start_response)

    def _of_this_process(self) -> Flask:
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                application = self._make()
                extensions: Extensions = application.extensions[EXTENSION_KEY]
                follow(extensions.registry, extensions.settings, _nobody_asks, in_slot=False, pid=os.getpid())
                self._made = os.getpid(), application
            return self._made[1]


def _nobody_asks() -> None:
    """Report a change of the catalog: outside of the stack no other process reads what this one serves."""
