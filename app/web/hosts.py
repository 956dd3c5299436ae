"""Which names a request may call this server by, in its Host header.

A page of another site can let its own name point at this server's address (DNS rebinding). The browser then sends the
page's requests here and lets the page read the answers, but the Host header has the page's name. A host that is an
address in numbers cannot be that of such a page.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from tableside.settings import Server, split_address

ANY = "*"
_HOST = re.compile(r"^(\[[0-9a-f:.]+\]|[^\s\[\]:/@]+)(:[0-9]{0,5})?\Z")
_HOSTS_FILE = Path("/etc/hosts")


class AllowedHosts:
    """The names of one server: loopback, the addresses it listens on, the machine's names, and those of the settings.

    On an address such as 0.0.0.0, which stands for all of the machine's, every address in numbers is allowed.
    """

    def __init__(self, server: Server, machine_names: Iterable[str]) -> None:
        listened = [split_address(address)[0].lower() for address in (server.listen, server.admin_listen)]
        extra = [name.lower().rstrip(".") for name in server.allowed_hosts]
        self._any = ANY in extra
        self._names = {"localhost", *machine_names, *listened, *(name for name in extra if name[:1] not in "*.")}
        self._suffixes = tuple(name.removeprefix("*") for name in extra if name[:1] in "*." and name != ANY)
        addresses = [address for host in [*listened, *extra] if (address := _address(host))]
        self._addresses = frozenset(addresses)
        self._any_address = any(address.is_unspecified for address in addresses)

    def allows(self, header: str) -> bool:
        """Whether a Host header is allowed, whatever port it names.

        An empty one is: browsers always send a name, and probes of old load balancers may send none.
        """
        if self._any or not header:
            return True
        found = _HOST.match(header.lower())
        if found is None:
            return False
        name = found[1].strip("[]").rstrip(".")
        address = _address(name)
        if address is not None:
            return not address.is_unspecified and (
                address.is_loopback or self._any_address or address in self._addresses
            )
        return name in self._names or (bool(self._suffixes) and name.endswith(self._suffixes))


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.strip("[]"))
    except ValueError:
        return None


def machine_names(hosts_file: Path = _HOSTS_FILE) -> set[str]:
    """The names of this machine: its host name, and what /etc/hosts has on the same lines. DNS is not asked."""
    name = socket.gethostname().lower()
    names = {name, name.partition(".")[0]}
    try:
        lines = hosts_file.read_text(encoding="utf-8", errors="replace").lower().splitlines()
    except OSError:
        lines = []
    for line in lines:
        words = line.partition("#")[0].split()[1:]
        if names.intersection(words):
            names.update(words)
    return names - {""}


def without_default_port(host: str) -> str:
    """A host as a browser writes it in the Origin header: in lower case, and without the port of http or https."""
    return re.sub(r":(80|443)?\Z", "", host.lower())
