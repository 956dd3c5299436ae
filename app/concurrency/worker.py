"""gunicorn's gevent worker, made to lose nothing, to take turns, and to speak JSON in its own errors.

Each change is for something that was measured (docs/decisions/0002 and 0005). Head and body leave in one send, so a
SIGKILL cannot cut an answer nginx could no longer retry. A worker whose master died drains instead of leaving
mid-request. A hub that hangs with no master left to notice ends by SIGALRM. A connection's next request waits for its
turn in the hub, so that busy connections do not starve the others; new ones are shared out evenly. What gunicorn looks
up or formats anew for each request is kept.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import time
from functools import partial
from typing import Any

from gevent import GreenletExit, get_hub, spawn
from gunicorn import util
from gunicorn.http.errors import NoMoreData
from gunicorn.workers import ggevent
from gunicorn.workers.base import Worker
from gunicorn.workers.ggevent import GeventWorker

from app.concurrency import wire
from app.concurrency.balance import FairServer, Share
from app.concurrency.heads import Memory
from app.concurrency.waits import Waits

_LEFT = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)


class TablesideWorker(GeventWorker):
    """The worker class of gunicorn.conf.py. Its answers: `app.concurrency.wire`."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._waits = Waits(self.cfg.keepalive)
        self._share = Share(self.age)

    def init_process(self) -> None:
        """Replace and keep what gunicorn would do for each request, then serve."""
        wire.install()
        self.keep_settings()
        ggevent.StreamServer = partial(FairServer, self._share)
        self._share.join()
        super().init_process()

    def keep_settings(self) -> None:
        """What does not change any more is an attribute; gunicorn's own way is a search at each access."""
        for name, setting in self.cfg.settings.items():
            self.cfg.__dict__.setdefault(name, setting.get())
        hook = self.cfg.settings["pre_request"]
        if hook.get() is hook.default and not self.log.error_log.isEnabledFor(logging.DEBUG):
            self.cfg.__dict__["pre_request"] = lambda *_: None  # it would log at debug level
        if not self.cfg.accesslog:  # gunicorn would format a line for nobody
            self.log.access = lambda *_: None
        self._memory = Memory(self.cfg)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """One connection. After an answer it waits in the hub for what comes next, behind all that is ready already."""
        request: Any = None
        client.setblocking(1)
        readable = get_hub().loop.io(client.fileno(), 1)
        try:
            parser = self._memory.parser(client, addr)
            name, is_first = listener.getsockname(), True
            while True:
                request = None
                self._waits.begin(client)
                if not is_first and not parser.unreader.buf.tell():
                    self._await(readable, name, client)
                request = next(parser)
                self._waits.end(client)
                is_first = False
                self.handle_request(name, request, client, addr)
        except (StopIteration, NoMoreData, GreenletExit):
            pass
        except OSError as problem:
            if problem.errno not in _LEFT:
                self.log.exception("Socket error processing request.")
        except BaseException as problem:  # noqa: BLE001 - a request that cannot be read: told to its client
            self.handle_error(request, client, addr, problem)
        finally:
            self._share.closed()
            self._waits.end(client)
            readable.stop()
            readable.close()
            util.close(client)

    def _await(self, readable: Any, listener: Any, client: Any) -> None:
        """Wait for the next request of a kept connection. One of nginx's ends when the worker drains: a request that
        nginx had just sent there it sends to another.
        """
        is_nginx = isinstance(listener, str)
        if is_nginx and not self.alive:
            raise StopIteration
        if is_nginx:
            self._waits.idle.add(client)
        try:
            get_hub().wait(readable)
        finally:
            self._waits.idle.discard(client)

    def notify(self) -> None:
        """Heartbeat, once a second. gunicorn's own exits at once when the master has died; this one drains."""
        Worker.notify(self)
        if self.alive:
            self._share.beat()
        self._waits.end_overdue(time.monotonic())
        signal.alarm(int(self.cfg.timeout) + 15)
        if self.alive and self.ppid != os.getppid():
            self.log.warning("the master is gone, draining")
            self.begin_drain()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: no new connections, finish what is in hand."""
        self.begin_drain()

    def begin_drain(self) -> None:
        """Turn readiness off and let the run loop stop accepting."""
        extensions = getattr(self.wsgi, "extensions", {}) if self.wsgi else {}
        if "tableside" in extensions:
            extensions["tableside"].registry.draining = True
        self.alive = False
        self._share.leave()
        spawn(self._waits.end_idle)
