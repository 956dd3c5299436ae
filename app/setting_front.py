"""Checks of the settings about what stands in front of the server: proxies, a path prefix, pages of other origins."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from tableside.errors import SettingsError

NETWORK_PATTERN = r"^[0-9a-fA-F.:]+(/[0-9]{1,3})?\Z"
PREFIX_PATTERN = r"^((/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+)?\Z"
ORIGIN_PATTERN = r"^(\*|[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?)\Z"
ANY_ORIGIN = "*"
OWN_SEGMENTS = frozenset(
    ("admin", "docs", "health", "invocations", "metrics", "models", "openapi.json", "ping", "v1", "v2", "version")
)
"""First segments of this server's own paths. As a prefix, such a word would make paths ambiguous."""
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def check(prefix: str, proxies: Iterable[str], origins: Iterable[str]) -> None:
    """Check `server.path_prefix`, `server.trusted_proxies` and `server.cors_origins`, whose form is right.

    Raises SettingsError, which names the setting and what to write instead.
    """
    if (first := prefix[1:].partition("/")[0]) in OWN_SEGMENTS:
        raise SettingsError(
            f"server.path_prefix: {prefix} begins with /{first}, which is a path of this server. Choose another prefix"
        )
    _each("server.trusted_proxies", proxies, _network_problem)
    origins = tuple(origins)
    _each("server.cors_origins", origins, _origin_problem)
    if ANY_ORIGIN in origins and len(origins) > 1:
        raise SettingsError("server.cors_origins: * allows every origin. Write it alone, or remove it")


def networks(proxies: Iterable[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """Return the networks of `server.trusted_proxies`."""
    return tuple(ip_network(entry) for entry in proxies)


def _each(setting: str, entries: Iterable[str], problem: Callable[[str], str]) -> None:
    for at, entry in enumerate(entries):
        if found := problem(entry):
            raise SettingsError(f"{setting}[{at}]: {found}")


def _network_problem(entry: str) -> str:
    address, _, bits = entry.partition("/")
    try:
        network = ip_network(f"{ip_address(address)}/{bits}" if bits else address, strict=False)
    except ValueError:
        return f"{entry} is no address and no network, such as 10.0.0.0/8"
    if network.prefixlen == 0:
        return f"{entry} is every address, so that any client could name another one. Write the proxies' own network"
    if bits and network.network_address != ip_address(address):
        return f"{entry} has bits after the network. Write {network}"
    return ""


def _origin_problem(entry: str) -> str:
    scheme, _, host = entry.partition("://")
    default = _DEFAULT_PORTS.get(scheme, "")
    if default and host.endswith(default):
        return f"browsers leave the default port out. Write {entry.removesuffix(default)}"
    if (port := re.search(r"[^\[]:([0-9]+)\Z", host)) and not 0 < int(port[1]) < 65536:
        return "the port must be between 1 and 65535"
    return ""
