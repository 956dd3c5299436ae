"""The limits of one request."""

from __future__ import annotations

import msgspec

from tableside.process.worker_hand import Held
from tableside.server.disconnect import HasDescriptor

QUEUED_ABOVE_S = 0.05
"""A request that waited longer before this process read it was in a queue that the batcher cannot see."""


class RequestLimits(msgspec.Struct, frozen=True):
    """The limits of one request; they hold in whatever batch it runs.

    deadline_at_s: on the batcher's clock, which is `time.monotonic`. budget_s: the whole time that the request was
    allowed, for the text of DeadlineExceeded. waited_s: how long it waited before this process read it.
    may_inline: whether its call may run on the event loop if it is cheap. connection: the client's socket, to notice
    that the client has left. held: where the request is recorded as in hand. generation: only requests of the same one
    share a batch.
    """

    deadline_at_s: float
    budget_s: float = 0.0
    waited_s: float = 0.0
    may_inline: bool = True
    connection: HasDescriptor | None = None
    held: Held | None = None
    generation: int = 0

    @property
    def is_queued(self) -> bool:
        """Whether other requests were ahead of this one before this process read it."""
        return self.waited_s > QUEUED_ABOVE_S
