"""Who is at the other end of a request's connection: nginx, a trusted proxy, or any other client."""

from __future__ import annotations

import socket
from ipaddress import IPv6Address, ip_address
from wsgiref.types import WSGIEnvironment

from tableside.setting_front import networks
from tableside.settings import Server


def is_nginx(environ: WSGIEnvironment) -> bool:
    """Whether this server's own nginx sent the request. Only nginx connects to Unix sockets."""
    return getattr(environ.get("gunicorn.socket"), "family", None) == socket.AF_UNIX


def is_trusted(environ: WSGIEnvironment, server: Server) -> bool:
    """Whether headers that proxies set count: nginx has removed those of others, and gunicorn alone has not."""
    return is_nginx(environ) or _is_proxy(str(environ.get("REMOTE_ADDR", "")), server)


def _is_proxy(peer: str, server: Server) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:  # a server other than gunicorn may give none
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks(server.trusted_proxies))
