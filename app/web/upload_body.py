"""Streams the body of a request into a file: an upload may be larger than a worker's memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO
from wsgiref.types import WSGIEnvironment

from werkzeug.exceptions import ClientDisconnected

from tableside.disk_errors import DiskFull
from tableside.errors import RequestRejected, TooLarge
from tableside.process.offload import run_native
from tableside.server import broken_bodies

CHUNK_BYTES = 1 << 20


def receive(environ: WSGIEnvironment, path: Path, setting: str, limit_bytes: int) -> tuple[int, str]:
    """Write the body into a new file, which only this user can read. Return its size in bytes and its SHA-256.

    setting: the dotted name of the setting that makes the limit. Raises TooLarge above `limit_bytes`, before anything
    is read if the request states its length; RequestRejected for an empty body and for chunks that are not valid HTTP;
    ClientDisconnected when the connection ends before the body does; DiskFull when the file cannot be written. The file
    is removed then.
    """
    length = environ.get("CONTENT_LENGTH") or ""
    stated = int(length) if length.isdecimal() and len(length) < 20 else None
    if stated is not None and stated > limit_bytes:
        raise TooLarge(setting, limit_bytes)
    if not stated and not environ.get("wsgi.input_terminated"):
        raise RequestRejected("the body is empty; send a tar file: curl -T FILE.tar")
    try:
        size, digest = _copy(environ["wsgi.input"], path, stated, TooLarge(setting, limit_bytes))
        if not size:
            raise RequestRejected("the body is empty; send a tar file: curl -T FILE.tar")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return size, digest


def _copy(stream: BinaryIO, path: Path, stated: int | None, too_large: TooLarge) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    fd = _open(path, stated or CHUNK_BYTES)
    try:
        while stated is None or size < stated:
            chunk = _read(stream, CHUNK_BYTES if stated is None else min(CHUNK_BYTES, stated - size))
            if not chunk and stated is None:
                break
            if not chunk:
                raise ClientDisconnected
            size += len(chunk)
            if size > too_large.limit_bytes:
                raise too_large
            run_native(partial(_write, fd, chunk, digest.update))
    finally:
        os.close(fd)
    return size, digest.hexdigest()


def _open(path: Path, size: int) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise DiskFull("the upload", size) from problem


def _write(fd: int, chunk: bytes, count: Callable[[bytes], None]) -> None:
    count(chunk)
    left = memoryview(chunk)
    try:
        while left:
            left = left[os.write(fd, left) :]
    except OSError as problem:
        raise DiskFull("the upload", len(chunk)) from problem


def _read(stream: BinaryIO, size: int) -> bytes:
    try:
        return stream.read(size)
    except OSError as problem:  # gunicorn's error for a chunked body that ends within a chunk
        raise ClientDisconnected from problem
    except broken_bodies.BROKEN as problem:
        raise RequestRejected(broken_bodies.describe(problem)) from None
