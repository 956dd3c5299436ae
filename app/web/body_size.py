"""How much memory one body may take, and how many bytes of bodies a worker holds at once."""

from __future__ import annotations

from tableside.decoding import inflate
from tableside.errors import InflatesTooMuch, Overloaded, TooLarge
from tableside.settings import Server

RATIO_SETTING = "server.max_inflation"


def limit_bytes(size: int, limits: Server) -> int:
    """Return how many bytes a body of `size` bytes may take once it is inflated, and its table.

    A body of a kilobyte can state or hold gigabytes: compressed, or as one value for many rows. It may therefore take
    16 MiB and `server.max_inflation` times its size, and at most `server.max_inflated_bytes`.
    """
    return min(limits.max_inflated_bytes, inflate.FREE_BYTES + limits.max_inflation * size)


def json_limit_bytes(size: int, limits: Server) -> int:
    """Return how much JSON may count (`decoding.json_size`) in a body of `size` bytes.

    What it takes in memory is up to four times its count, and the interpreter runs nothing else while it is decoded.
    At the default of `server.max_inflation` this is 48 times the size of the body and 24 MiB, or about 40 ms.
    """
    return min(limits.max_inflated_bytes, (inflate.FREE_BYTES + limits.max_inflation * size) * 3 // 8)


def name_setting(error: TooLarge, limits: Server) -> TooLarge:
    """Return the error with the setting that made the limit: the decoders do not know which one it was."""
    if error.setting == inflate.SETTING and error.limit_bytes < limits.max_inflated_bytes:
        return InflatesTooMuch(RATIO_SETTING, error.limit_bytes)
    return error


class BytesInHand:
    """Counts the bytes of the bodies that a worker holds, from before they are read until the request is answered."""

    def __init__(self, limit_bytes: int) -> None:
        """limit_bytes: the most bytes that may be held at once. A single body is never refused."""
        self._limit_bytes = limit_bytes
        self.bytes = 0

    def take(self, size: int) -> None:
        """Count `size` more bytes. Raises Overloaded if bodies are held and they would be too many together."""
        if self.bytes and self.bytes + size > self._limit_bytes:
            raise Overloaded(
                f"the worker holds {self.bytes} bytes of request bodies; with this one it would be more than "
                f"server.max_bytes_in_hand ({self._limit_bytes} bytes)"
            )
        self.bytes += size

    def give_back(self, size: int) -> None:
        """Stop counting `size` bytes."""
        self.bytes -= size
