"""Close listening TCP sockets so that late clients are refused, and nobody who has connected is reset.

When a listening socket is closed, the kernel resets the connections that nothing has accepted yet, although their
clients have connected and perhaps sent a request. Three steps avoid that:

1. A filter on the socket (SO_ATTACH_FILTER, socket(7)) drops the first packet of each new connection. Its client sends
   the packet again after one second. Handshakes that have begun are completed.
2. The servers accept what is queued. Nothing can be added, so the queue becomes empty and stays so.
   Some kernels refuse the filter to an ordinary user (Linux 6.18). Then the queue gets the length of one, and late
   clients are served until step 3; one that connects within the microseconds before it is reset.
3. The socket stops listening for all the processes that have it at once (shutdown(2)). The packet that is sent again is
   answered with a reset: the client's `connect` fails with "connection refused".
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

HANDSHAKE_S = 0.25
"""Seconds for the handshakes that had begun before step 1. They take one round trip to the client."""
_SO_ATTACH_FILTER = 26
_FLAGS_OFFSET, _SYN = 13, 0x02
_DROP_SYN = (
    (0x30, 0, 0, _FLAGS_OFFSET),  # BPF_LD | BPF_B | BPF_ABS: load the flags of the TCP header
    (0x45, 0, 1, _SYN),  # BPF_JMP | BPF_JSET | BPF_K: if SYN is set, continue; else skip one instruction
    (0x06, 0, 0, 0),  # BPF_RET: keep 0 bytes of the packet, which drops it
    (0x06, 0, 0, 0xFFFFFFFF),  # BPF_RET: keep all of it
)
"""A program for the kernel's packet filter (bpf(4), struct sock_filter: code, jump if true, jump if false, operand)."""
_QUEUED = slice(24, 28)
"""Where struct tcp_info (linux/tcp.h) has the number of connections that a listening socket's queue holds."""


def drop_new_connections(listener: socket.socket) -> bool:
    """Make the kernel ignore new connections. Return whether it does; if not, some late clients may be reset."""
    program = b"".join(struct.pack("=HBBI", *instruction) for instruction in _DROP_SYN)
    memory = ctypes.create_string_buffer(program)
    argument = struct.pack("@HP", len(_DROP_SYN), ctypes.addressof(memory))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, argument)
    except OSError:
        return False
    return True


def queue_length(listener: socket.socket) -> int:
    """Return how many connections wait to be accepted; 0 if the kernel does not say."""
    try:
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    except OSError:
        return 0
    return int.from_bytes(info[_QUEUED], sys.byteorder)


def settle(listeners: Iterable[socket.socket], timeout_s: float = 3.0) -> bool:
    """Drop new connections, and wait until the servers have accepted those that are queued. Return whether they have.

    The servers must still run. timeout_s: how long they may take; at least HANDSHAKE_S is always waited.
    """
    listeners = list(listeners)
    for listener in listeners:
        if not drop_new_connections(listener):
            listener.listen(0)
    now_s = time.monotonic()
    earliest_s, give_up_at_s = now_s + HANDSHAKE_S, now_s + max(timeout_s, HANDSHAKE_S)
    while True:
        is_empty = not any(map(queue_length, listeners))
        now_s = time.monotonic()
        if (is_empty and now_s >= earliest_s) or now_s >= give_up_at_s:
            return is_empty
        time.sleep(0.01)


def stop_listening(listeners: Iterable[socket.socket]) -> None:
    """Make these sockets refuse connections, in every process that has them."""
    for listener in listeners:
        with suppress(OSError):  # another process has done the same
            listener.shutdown(socket.SHUT_RDWR)
