"""A stack that other machines reach has keys and TLS, or says that something else protects it."""

from __future__ import annotations

from datetime import UTC, datetime

from tableside.access_keys import KeysFile
from tableside.errors import KeysFailed, StackError
from tableside.settings import Settings


def check(settings: Settings, behind_nginx: bool) -> None:
    """Raise StackError, which says what to set, if the stack would be open to other machines by accident.

    It may listen beyond loopback with TLS and a valid key, or with server.open.
    """
    server = settings.server
    if server.tls_certificate and not behind_nginx:
        raise StackError(
            "server.tls_certificate needs nginx, which ends TLS: install it (apt-get install nginx-light) and set "
            "server.nginx to 'on', or remove server.tls_certificate and server.tls_key"
        )
    if server.cors_origins and not behind_nginx:
        raise StackError(
            "server.cors_origins needs nginx, which adds the headers to every answer: install it (apt-get install "
            "nginx-light) and set server.nginx to 'on', or remove server.cors_origins"
        )
    if server.open or not settings.exposed:
        return
    lacking = [] if server.tls_certificate else ["TLS (set server.tls_certificate and server.tls_key)"]
    if "server.listen" in settings.exposed and not _has_key(settings):
        lacking.append("a key for callers (run `tableside keys add NAME --scope predict`)")
    if lacking:
        raise StackError(
            f"{' and '.join(settings.exposed)}: other machines can reach this address, and it lacks "
            f"{' and '.join(lacking)}. If a proxy or a container network protects it, set server.open = true; else "
            "listen on 127.0.0.1"
        )


def _has_key(settings: Settings) -> bool:
    """Whether there is a key that has not expired. Raises StackError if the keys file cannot be used."""
    now = datetime.now(UTC)
    try:
        keys = KeysFile(settings.keys_path, settings.repository_path).read()
    except KeysFailed as problem:
        raise StackError(str(problem)) from problem
    return not all(key.has_expired(now) for key in keys)
