"""The certificate and key that nginx uses: one file in the run folder, which is replaced in one step.

The two files of the settings are two, and whoever renews them writes one after the other. nginx would refuse to start,
or to read its configuration, between the two writes and after a mistake. So nginx reads a copy of the last pair that
fits together.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from tableside import private_files
from tableside.errors import StackError
from tableside.settings import Settings

PEM = "tls.pem"
"""In the run folder: the certificate, its intermediates and the key. Mode 0600."""


def stamp(settings: Settings) -> tuple[tuple[int, int, int], ...]:
    """Return what changes when one of the two files does, or a link to it. Empty without TLS."""
    found = []
    for path in filter(None, (settings.server.tls_certificate, settings.server.tls_key)):
        try:
            status = os.stat(path)
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)


def install(settings: Settings) -> None:
    """Copy certificate and key into the run folder, if they fit together. Does nothing without TLS.

    Raises StackError, which names the setting, otherwise; the copy of before stays.
    """
    server = settings.server
    if not server.tls_certificate:
        return
    content = _read("tls_certificate", server.tls_certificate) + b"\n" + _read("tls_key", server.tls_key)
    path = settings.run_dir / PEM
    try:
        private_files.write(path, content, lambda draft: _check(server.tls_certificate, server.tls_key, draft))
    except ssl.SSLError as problem:
        raise StackError(_explain(server.tls_certificate, server.tls_key, problem)) from problem
    except OSError as problem:
        raise StackError(f"server.run_dir: cannot write {path}: {problem.strerror}") from problem


def _read(setting: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as problem:
        raise StackError(f"server.{setting}: cannot read {path}: {problem.strerror}") from problem


def _check(certificate: str, key: str, pair: Path) -> None:
    """Raise SSLError unless the key is that of the first certificate."""

    def refuse() -> str:
        raise StackError(f"server.tls_key ({key}) has a passphrase, which nobody can type. Write it without one")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(pair, password=refuse)
    except UnicodeError as problem:
        raise StackError(f"server.tls_certificate ({certificate}) is no file in PEM form") from problem


def _explain(certificate: str, key: str, problem: ssl.SSLError) -> str:
    if problem.reason == "KEY_VALUES_MISMATCH":
        return (
            f"server.tls_key ({key}) does not belong to the first certificate in server.tls_certificate "
            f"({certificate}); the server's own certificate comes first there, then the intermediates"
        )
    reason = problem.reason or problem.strerror or problem
    return (
        f"server.tls_certificate ({certificate}) and server.tls_key ({key}) are no certificate and key in PEM: {reason}"
    )
