"""gunicorn's gevent worker with nine changes, each in a module that begins with the reason for it.

The modules are `scheduling`, `keepalive`, `one_send_response`, `json_errors`, `draining`, `accepting`,
`recycling`, `accept_balancer` and `lingering`.
gunicorn does everything else: parsing, the environ, the request loop.

`tableside.server.undocumented` lists every undocumented name of gunicorn, gevent and prometheus-client that is used,
with the reason and the version on which it was checked.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Protocol

from gevent import Greenlet, getcurrent, spawn
from gevent.pool import Pool

from tableside.process import settling
from tableside.process.settling import Settled
from tableside.server import json_errors, one_send_response, refused_settings
from tableside.server.accept_balancer import BalancedServer, ConnectionShare
from tableside.server.gunicorn_types import Address, Client, Listener, Log, Request, Settings
from tableside.server.keepalive import KeepaliveTimers
from tableside.server.lingering import linger, linger_if_unread
from tableside.server.recycling import RecyclingWorker
from tableside.server.scheduling import Connection


class Hand(Protocol):
    """What is used of the requests in hand."""

    def beat(self) -> None:
        """Note a heartbeat."""

    def blame_hung(self) -> list[Settled]:
        """Blame the requests whose calls do not end."""


class AnswerFiles(Protocol):
    """What is used of the answer files."""

    def collect(self) -> None:
        """Remove those that nginx has opened."""


class TablesideWorker(RecyclingWorker):
    """The worker class that gunicorn.conf.py names."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._keepalive = KeepaliveTimers(self.cfg.keepalive)
        self._connection_share = ConnectionShare(self.age)
        self._connections: dict[Greenlet, Connection] = {}

    @classmethod
    def check_config(cls, cfg: Settings, log: Log) -> None:
        """Exit if a setting is not supported. gunicorn calls this in the master, before it forks a worker."""
        refused_settings.check(cfg, log)

    def init_process(self) -> None:
        """Replace gunicorn's response and error writer in this process, and serve until the worker ends."""
        one_send_response.install()
        json_errors.install(self.cfg)
        self._connection_share.join()
        super().init_process()

    def server_class(self, listener: Listener, *, spawn: Pool, **_: object) -> BalancedServer:
        """Make the server of one listening socket. gunicorn calls this instead of making gevent's StreamServer."""
        return BalancedServer(self._connection_share, listener, partial(self.handle, listener), spawn)

    def handle(self, listener: Listener, client: Client, addr: Address) -> None:
        """Serve one connection to its end. It runs in a greenlet of its own."""
        connection = Connection(client, self, isinstance(listener.getsockname(), str), self._keepalive)
        self._connections[getcurrent()] = connection
        try:
            super().handle(listener, client, addr)
        finally:
            del self._connections[getcurrent()]
            connection.close()
            self._connection_share.closed()

    def timeout_ctx(self) -> Connection:
        """Return the context manager in which gunicorn reads the next request of the current greenlet's connection."""
        return self._connections[getcurrent()]

    def handle_request(self, listener_name: Address, req: Request, sock: Client, addr: Address) -> None:
        """Remember the buffer of received bytes, let gunicorn answer the request, and the client read the answer."""
        self._connections[getcurrent()].unreader = req.unreader
        try:
            super().handle_request(listener_name, req, sock, addr)
        except StopIteration:  # gunicorn closes the connection
            linger_if_unread(sock)
            raise

    def handle_error(self, req: Request | None, client: Client, addr: Address, exc: BaseException) -> None:
        """Let gunicorn answer a request that it cannot read, and wait until the client has the answer."""
        super().handle_error(req, client, addr, exc)
        linger(client)

    def notify(self) -> None:
        """Send the heartbeats and end the overdue connections. gunicorn calls this once a second."""
        if self.alive:
            self._connection_share.beat()
            self._look_for_hung_calls()
            self._collect_answer_files()
        self._keepalive.end_overdue(time.monotonic())
        super().notify()

    def _look_for_hung_calls(self) -> None:
        """Blame the requests of calls that do not end, and ask for a successor: this worker has lost their threads."""
        extensions = getattr(getattr(self, "wsgi", None), "extensions", {})
        if "tableside" not in extensions:
            return
        hand: Hand = extensions["tableside"].hand
        hand.beat()
        for hung in hand.blame_hung():
            self._recycle_after = 0
            for line in settling.lines(hung):
                self.log.error("%s", line)

    def _collect_answer_files(self) -> None:
        """In a greenlet of its own: a slow disk must not hold up the heartbeat."""
        extensions = getattr(getattr(self, "wsgi", None), "extensions", {})
        if "tableside" in extensions:
            files: AnswerFiles = extensions["tableside"].answer_files
            spawn(files.collect)

    def begin_drain(self) -> None:
        """Accept no more connections, and end the idle ones from nginx."""
        super().begin_drain()
        self._connection_share.leave()
        spawn(self._keepalive.end_idle)
