"""One connection to a model process: sends a request and receives its answer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from tableside.model_process.child import wire
from tableside.model_process.child.wire import Buffer, Message, WireError
from tableside.process import plain_sockets
from tableside.process.plain_sockets import Arrival, PlainSocket

BRIEF_MS = 1
"""How long the event loop may stand still for an answer: as long as for a prediction in this process, by default."""
_FIRST_READ_BYTES = 16384


_decode = msgspec.json.Decoder(dict[str, Any]).decode


def read_header(text: bytes) -> dict[str, Any]:
    """Parse a header in a fraction of the time of the standard library, which reads cells: NaN, and any integer."""
    if b'"cells"' not in text:
        with suppress(msgspec.DecodeError):
            return _decode(text)
    return wire.read_header(text)


_remembered = wire.HeaderReader(read_header)


class ProcessEnded(Exception):
    """The model process has closed the connection without an answer: it has ended, or is about to.

    has_read: whether it had read the whole request before, so that computing the request may be what ended it. Of a
    Unix socket that closes with unread bytes, or before it was accepted, the kernel resets the other end; otherwise the
    other end just reads the end of the connection (Linux: unix_release_sock in net/unix/af_unix.c).
    """

    def __init__(self, detail: str, has_read: bool) -> None:
        super().__init__(detail)
        self.has_read = has_read


class Connection:
    """A connected socket; one exchange at a time. After an exchange that raises, it must be closed.

    has_answered: whether it has had an exchange before, so that the process may have closed it meanwhile.
    """

    def __init__(self, connected: PlainSocket) -> None:
        self._socket = connected
        self._arrival = Arrival(connected)
        self.has_answered = False

    def exchange(self, request: Sequence[Buffer], give_up_at_s: float, is_brief: bool = False) -> Message:
        """Send a request and return the answer.

        give_up_at_s: on time.monotonic's clock. is_brief: the answer is expected within BRIEF_MS, so that waiting in
        the kernel, which stops the event loop, costs less than letting other greenlets run. Raises TimeoutError at
        `give_up_at_s`, ProcessEnded if the process ends first, and WireError for an answer in another format.
        """
        try:
            for buffer in request:
                self._send(buffer, give_up_at_s)
            if not (is_brief and self._arrival.is_within(BRIEF_MS)):
                self._arrival.wait(give_up_at_s)
            answer = self._receive(give_up_at_s)
        except TimeoutError:
            raise
        except OSError as problem:
            raise ProcessEnded(str(problem), has_read=False) from problem
        self.has_answered = True
        return answer

    def is_closed(self) -> bool:
        """Whether the process has closed an idle connection."""
        return self._arrival.is_within(0)

    def close(self) -> None:
        """Close the connection."""
        self._arrival.close()
        self._socket.close()

    def _send(self, buffer: Buffer, give_up_at_s: float) -> None:
        try:
            sent = self._socket.send(buffer)
        except BlockingIOError:
            sent = 0
        view = memoryview(buffer)[sent:]
        while len(view):
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                plain_sockets.wait_until_ready(self._socket, True, give_up_at_s)

    def _receive(self, give_up_at_s: float) -> Message:
        start = self._some(give_up_at_s)
        found = wire.whole(start, _remembered)
        return found if found is not None else self._receive_rest(start, give_up_at_s)

    def _receive_rest(self, start: bytes, give_up_at_s: float) -> Message:
        while len(start) < wire.PREFIX.size:
            start += self._some(give_up_at_s)
        header_bytes, payload_bytes = wire.sizes(start)
        body = bytearray(header_bytes + payload_bytes)
        arrived = start[wire.PREFIX.size :]
        if len(arrived) > len(body):
            raise WireError("more bytes than one answer")
        body[: len(arrived)] = arrived
        self._fill(memoryview(body)[len(arrived) :], give_up_at_s)
        return Message(wire.read_header(body[:header_bytes]), body[header_bytes:])

    def _some(self, give_up_at_s: float) -> bytes:
        while True:
            try:
                found = self._socket.recv(_FIRST_READ_BYTES)
            except BlockingIOError:
                self._arrival.wait(give_up_at_s)
                continue
            if not found:
                raise ProcessEnded("the connection ended", has_read=True)
            return found

    def _fill(self, view: memoryview, give_up_at_s: float) -> None:
        while len(view):
            try:
                count = self._socket.recv_into(view)
            except BlockingIOError:
                self._arrival.wait(give_up_at_s)
                continue
            if not count:
                raise ProcessEnded("the connection ended within an answer", has_read=True)
            view = view[count:]
