"""HTTP connections of this project's own commands to the stack on the same host, with TLS where the stack has it."""

from __future__ import annotations

import http.client
import ssl

from tableside.errors import StackError
from tableside.settings import Settings, split_address

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - replaced, not listened on


def scheme(settings: Settings) -> str:
    """Return `https` if both ports speak TLS, else `http`."""
    return "https" if settings.server.tls_certificate else "http"


def connect(settings: Settings, address: str, timeout_s: float) -> http.client.HTTPConnection:
    """Return a connection to HOST:PORT, which opens with its first request.

    With TLS the server must have a certificate of server.tls_certificate, whatever name is in it: the address is this
    host's. Raises StackError if that file cannot be read.
    """
    host, port = split_address(address)
    host = _LOOPBACK.get(host, host)
    if not settings.server.tls_certificate:
        return http.client.HTTPConnection(host, port, timeout=timeout_s)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(settings.server.tls_certificate)
    except OSError as problem:  # ssl.SSLError is one
        raise StackError(f"server.tls_certificate ({settings.server.tls_certificate}): {problem}") from problem
    return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
