"""Who may call: addresses beyond loopback without keys or TLS, keys that have expired, and the certificate's dates."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tableside.access_keys import AccessKey, KeysFile, Scope
from tableside.deployment import exposure
from tableside.deployment.doctor.finding import Finding, Level
from tableside.deployment.doctor.set_up import SetUp
from tableside.deployment.tls import PEM
from tableside.errors import KeysFailed, StackError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

ACCESS, TLS = "access", "TLS"
SOON = timedelta(days=14)
"""A key or certificate that ends within this time is reported. Those who renew by themselves do so 30 days before."""
_CLOCK = timedelta(minutes=5)


def check(set_up: SetUp) -> Iterator[Finding]:
    """Yield what is wrong with exposure, keys and TLS."""
    settings = set_up.settings
    exposed = ", ".join(f"{name} {getattr(settings.server, name.partition('.')[2])}" for name in settings.exposed)
    try:
        exposure.check(settings, set_up.behind_nginx)
    except StackError as problem:
        title, _, change = str(problem).partition(". ")
        yield Finding(
            Level.ERROR, ACCESS, title, exposed or "server.nginx", "the stack does not start",
            change or "Correct the setting",
        )  # fmt: skip
    if exposed and settings.server.open and not settings.server.require_keys:
        yield Finding(
            Level.WARNING, ACCESS, "predictions need no key, and other machines may reach the address",
            f"{exposed}, server.open = true", "whoever reaches the address may call every model",
            "Make sure that a proxy or a network protects it; else set server.require_keys = true",
        )  # fmt: skip
    try:
        yield from _keys(set_up, KeysFile(settings.keys_path, settings.repository_path).read())
    except KeysFailed as problem:
        yield Finding(
            Level.ERROR, ACCESS, str(problem), str(settings.keys_path), "no key of a caller is accepted",
            "Do what the message says",
        )  # fmt: skip
    if settings.server.tls_certificate:
        yield from _certificate(set_up)


def _keys(set_up: SetUp, keys: Sequence[AccessKey]) -> Iterator[Finding]:
    valid = [key for key in keys if not key.has_expired(set_up.now)]
    if set_up.settings.server.require_keys and not any(key.allows(Scope.PREDICT) for key in valid):
        yield Finding(
            Level.ERROR, ACCESS, "predictions need a key and no key is valid",
            f"{len(keys)} keys in {set_up.settings.keys_path}, {len(valid)} valid", "every prediction is 401",
            "Run `tableside keys add NAME --scope predict`",
        )  # fmt: skip
    for key in valid:
        if key.expires is not None and key.expires - set_up.now < SOON:
            yield Finding(
                Level.WARNING, ACCESS, f"the key {key.name} expires soon", f"{key.expires:%Y-%m-%d %H:%M} UTC",
                "its callers get 401 from then on", "Run `tableside keys add` with another name, and pass it on",
            )  # fmt: skip


def _certificate(set_up: SetUp) -> Iterator[Finding]:
    path = Path(set_up.settings.server.tls_certificate)
    figures = str(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, set_up.settings.server.tls_key, password="")
        chain = _read(path)
    except (OSError, ValueError) as problem:  # ssl.SSLError is an OSError
        yield Finding(
            Level.ERROR, TLS, "certificate and key cannot be used", f"{path}: {problem}",
            "the stack does not start; one that runs goes on with those of before",
            "Set server.tls_certificate and server.tls_key to a pair that belongs together",
        )  # fmt: skip
        return
    for certificate in chain:
        yield from _dates(set_up.now, certificate, figures)
    served = set_up.settings.run_dir / PEM
    if set_up.supervisord and served.is_file() and _read(served)[0] != chain[0]:
        yield Finding(
            Level.WARNING, TLS, "nginx serves another certificate than the file has",
            f"{served} until {_read(served)[0].not_valid_after_utc:%Y-%m-%d}, {path} until "
            f"{chain[0].not_valid_after_utc:%Y-%m-%d}",
            "clients see the one of before", f"{set_up.settings.run_dir}/log/nginx.log says why it was not taken",
        )  # fmt: skip


def _dates(now: datetime, certificate: Certificate, figures: str) -> Iterator[Finding]:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    subject = certificate.subject.rfc4514_string() or "without a name"
    figures = f"{figures} ({subject}): {begins:%Y-%m-%d} to {ends:%Y-%m-%d %H:%M} UTC, now {now:%Y-%m-%d %H:%M}"
    change = "Renew the files of server.tls_certificate and server.tls_key; nginx takes them without a restart"
    if ends <= now or begins > now + _CLOCK:
        title = "the certificate has expired" if ends <= now else "the certificate is not valid yet: look at the clock"
        yield Finding(Level.ERROR, TLS, title, figures, "every client refuses the connection", change)
    elif ends - now < SOON:
        yield Finding(
            Level.WARNING,
            TLS,
            "the certificate expires soon",
            figures,
            "every client refuses the connection then",
            change,
        )


def _read(path: Path) -> list[Certificate]:
    from cryptography.x509 import load_pem_x509_certificates  # not needed without TLS

    return load_pem_x509_certificates(path.read_bytes())
