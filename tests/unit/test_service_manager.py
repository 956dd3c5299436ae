"""`tableside run` tells the service manager that the stack serves, by the protocol of sd_notify(3)."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tableside.deployment import service_manager

pytestmark = pytest.mark.no_greenlets


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder with a short path: that of a Unix socket has a limit."""
    with tempfile.TemporaryDirectory(prefix="ts-") as folder:
        yield Path(folder)


@contextmanager
def manager(address: str) -> Iterator[list[str]]:
    """A service manager here: it notes what it is told, and closes the descriptors of a barrier, as systemd does."""
    told: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + address[1:] if address.startswith("@") else address)
        listening.settimeout(10)

        def listen() -> None:
            while not told or told[-1] != "BARRIER=1":
                message, descriptors, _, _ = socket.recv_fds(listening, 4096, 4)
                told.append(message.decode())
                for each in descriptors:
                    os.close(each)

        thread = threading.Thread(target=listen)
        thread.start()
        yield told
        thread.join()


@pytest.mark.parametrize("kind", ["a file", "an abstract name"])
def test_a_service_manager_is_told_and_has_read_it_when_the_call_returns(kind: str, tmp_path: Path) -> None:
    """The message has READY=1 and a status of one line, and a barrier follows it, so that the sender may end."""
    address = str(tmp_path / "notify") if kind == "a file" else f"@tableside-{os.getpid()}-{tmp_path.name}"
    with manager(address) as told:
        assert service_manager.ready("serves\nREADY=0", {"NOTIFY_SOCKET": address})
        assert told[0] == "READY=1\nSTATUS=serves READY=0"
    assert told[1:] == ["BARRIER=1"]


def test_a_service_manager_is_asked_for_more_time(tmp_path: Path) -> None:
    """The time is in microseconds, and longer than the stack itself waits."""
    with manager(str(tmp_path / "notify")) as told:
        assert service_manager.wait_longer(600, {"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert told[0] == "EXTEND_TIMEOUT_USEC=630000000"


@pytest.mark.parametrize("address", ["", "relative", "/no/such/socket", "@tableside-nobody-listens"])
def test_without_a_service_manager_nothing_happens(address: str) -> None:
    """A variable that is not set, or names no socket, stops no start."""
    assert not service_manager.ready("serves", {"NOTIFY_SOCKET": address} if address else {})


def test_a_service_manager_without_barriers_delays_nothing_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older one, which keeps the descriptor, is waited for a limited time."""
    monkeypatch.setattr(service_manager, "_BARRIER_WAIT_MS", 50)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        assert service_manager.ready("serves", {"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert listening.recv(4096) == b"READY=1\nSTATUS=serves"
