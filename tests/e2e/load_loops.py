"""Clients that load a server: at a constant rate, however slow its answers are, or each after its last answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Load:
    """The result of a load. answers: (status, seconds) of each request; status 0 is a connection that failed."""

    seconds: float
    answers: list[tuple[int, float]] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)

    @property
    def counts(self) -> Counter[int]:
        return Counter(status for status, _ in self.answers)

    def times_s(self, status: int = 200) -> list[float]:
        return sorted(seconds for code, seconds in self.answers if code == status)

    def quantile_s(self, share: float, status: int = 200) -> float:
        times = self.times_s(status)
        return times[min(len(times) - 1, int(len(times) * share))] if times else float("nan")


def request(path: str, body: Any, **headers: str) -> bytes:
    """Return the bytes of one HTTP request that closes its connection."""
    content = json.dumps(body).encode() if body is not None else b""
    lines = [f"{'POST' if content else 'GET'} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode() + content


async def _one(port: int, message: bytes, load: Load, timeout_s: float) -> None:
    began_s, status = time.monotonic(), 0
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(message)
                answer = await reader.read(-1)
            finally:
                writer.close()
            status = int(answer[9:12])
            if status == 429:
                load.headers.append(answer.partition(b"\r\n\r\n")[0].decode())
    except (OSError, ValueError, TimeoutError):
        pass
    load.answers.append((status, time.monotonic() - began_s))


async def _at_rate(port: int, message: bytes, rate: float, seconds: float, timeout_s: float) -> Load:
    load, began_s = Load(seconds), time.monotonic()
    tasks = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began_s + number / rate - time.monotonic()))
        tasks.append(asyncio.create_task(_one(port, message, load, timeout_s)))
    await asyncio.gather(*tasks)
    return load


async def _closed(port: int, message: bytes, clients: int, seconds: float, timeout_s: float) -> Load:
    load, end_s = Load(seconds), time.monotonic() + seconds

    async def client() -> None:
        while time.monotonic() < end_s:
            await _one(port, message, load, timeout_s)

    await asyncio.gather(*(client() for _ in range(clients)))
    return load


async def _kept(port: int, message: bytes, clients: int, seconds: float) -> list[int]:
    counts, end_s = [0] * clients, time.monotonic() + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < end_s:
            writer.write(message)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            counts[number] += 1
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return counts


async def _beside(jobs: Any) -> list[Load]:
    return list(await asyncio.gather(*jobs))


def open_loop(port: int, *streams: tuple[bytes, float], seconds: float, timeout_s: float = 30.0) -> list[Load]:
    """Send each message at its rate in requests per second, all streams at once. Return one load per stream."""
    return asyncio.run(_beside(_at_rate(port, message, rate, seconds, timeout_s) for message, rate in streams))


def kept_loop(port: int, message: bytes, clients: int, seconds: float) -> list[int]:
    """Keep `clients` connections busy, each with its next request after an answer. Return the answers of each."""
    return asyncio.run(_kept(port, message.replace(b"Connection: close", b"Connection: keep-alive"), clients, seconds))


def closed_loop(port: int, message: bytes, clients: int, seconds: float, timeout_s: float = 30.0) -> Load:
    """Let `clients` clients send requests, each its next one after an answer, on a new connection."""
    return asyncio.run(_closed(port, message, clients, seconds, timeout_s))
