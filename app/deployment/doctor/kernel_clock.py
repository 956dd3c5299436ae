"""Whether the kernel counts its clock as kept right by somebody, as chrony or systemd-timesyncd do."""

from __future__ import annotations

import ctypes

_STA_UNSYNC = 0x0040
_STATUS_AT = 40
"""Where struct timex has `status` on 64-bit Linux (adjtimex(2)): after modes, offset, freq, maxerror and esterror."""
_TIMEX_BYTES = 512
"""More than struct timex has on any platform."""


def is_synchronised() -> bool | None:
    """Return whether the kernel counts its clock as synchronised; None if it does not say."""
    if ctypes.sizeof(ctypes.c_long) != 8:
        return None
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes = 0: only read
    try:
        if ctypes.CDLL(None, use_errno=True).adjtimex(buffer) < 0:
            return None
    except (OSError, AttributeError):
        return None
    status = int.from_bytes(buffer.raw[_STATUS_AT : _STATUS_AT + 4], "little")
    return not status & _STA_UNSYNC
