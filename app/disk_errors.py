"""The error of a disk that takes no more."""

from __future__ import annotations

from dataclasses import dataclass

from tableside.errors import TablesideError


@dataclass
class DiskFull(TablesideError):
    """Something could not be written, and so nothing was done or sent. The cause is chained.

    what: what was to be written. size_bytes: its size. retry_after_s: seconds after which a client may try again.
    """

    what: str
    size_bytes: int
    retry_after_s: int = 10

    def __str__(self) -> str:
        return (
            f"the disk of the run folder (server.run_dir) is full or cannot be written: {self.what} needs "
            f"{self.size_bytes} bytes there. Nothing was done; try again later, or ask the operator to make room"
        )
