"""Which requests the access logs of nginx and of the workers have, where they have only a share of them.

Both choose by the request id, in the same way, so that a request has either both lines or none. nginx's `split_clients`
hashes with MurmurHash2; so does this module.
"""

from __future__ import annotations

_MASK = 0xFFFFFFFF
_FACTOR = 0x5BD1E995
ALWAYS_FROM_STATUS = 500
"""Requests with this status or a higher one are always in the logs."""


def percent(one_in: int) -> str:
    """Return the share of one in `one_in` as nginx's `split_clients` takes it: at least 0.01, two decimals."""
    return f"{max(0.01, int(10_000 / one_in) / 100):.2f}"


class Sampling:
    """Chooses one in `one_in` requests; 0: none. Requests with status 500 and above are always chosen."""

    def __init__(self, one_in: int) -> None:
        self.is_complete = one_in == 1
        """Whether every request is chosen. Then `includes` need not be called."""
        self._below = round(float(percent(one_in)) * 100) * _MASK // 10_000 if one_in else 0

    def includes(self, request_id: str, status: int) -> bool:
        """Whether the access logs have this request."""
        if self.is_complete or status >= ALWAYS_FROM_STATUS:
            return True
        return murmur_hash_2(request_id.encode()) < self._below


def murmur_hash_2(data: bytes) -> int:
    """Return MurmurHash2 with the seed 0, 32 bits, as nginx computes it (ngx_murmur_hash2)."""
    mixed, whole = len(data), len(data) // 4 * 4
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _FACTOR & _MASK
        word = (word ^ word >> 24) * _FACTOR & _MASK
        mixed = (mixed * _FACTOR & _MASK) ^ word
    if whole < len(data):
        mixed = (mixed ^ int.from_bytes(data[whole:], "little")) * _FACTOR & _MASK
    mixed = (mixed ^ mixed >> 13) * _FACTOR & _MASK
    return mixed ^ mixed >> 15
