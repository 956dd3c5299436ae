"""The clock of the host: whether something keeps it right, and whether it was set back."""

from __future__ import annotations

from collections.abc import Iterator

from tableside.access_keys import KeysFile
from tableside.deployment.doctor.finding import Finding, Level
from tableside.deployment.doctor.leftovers import newest_file_s
from tableside.deployment.doctor.set_up import SetUp
from tableside.errors import KeysFailed

ABOUT = "clock"
AHEAD_S = 120.0
"""How far the time of a file may be ahead: file servers have clocks of their own."""


def check(set_up: SetUp) -> Iterator[Finding]:
    """Yield what is wrong with the clock."""
    changed_s, file = newest_file_s(set_up)
    ahead_s = changed_s - set_up.now.timestamp()
    if ahead_s > AHEAD_S:
        yield Finding(
            Level.WARNING, ABOUT, "the clock was set back, or a file is from the future",
            f"{file} was changed {ahead_s:.0f} s after now ({set_up.now:%Y-%m-%d %H:%M:%S} UTC)",
            "logs are out of order, and keys and certificates are valid for longer or shorter than meant",
            "Start chrony or systemd-timesyncd, then `touch` the file",
        )  # fmt: skip
    if set_up.clock_is_kept is False:
        depends = bool(set_up.settings.server.tls_certificate) or _has_expiring_key(set_up)
        yield Finding(
            Level.WARNING if depends else Level.NOTE, ABOUT, "nothing keeps the clock of this host right",
            "adjtimex(2): STA_UNSYNC", "certificates and keys expire at a wrong time, and the times in logs are wrong",
            "Install chrony or turn systemd-timesyncd on; in a virtual machine, on its host",
        )  # fmt: skip


def _has_expiring_key(set_up: SetUp) -> bool:
    try:
        keys = KeysFile(set_up.settings.keys_path, set_up.settings.repository_path).read()
    except KeysFailed:
        return False
    return any(key.expires is not None for key in keys)
