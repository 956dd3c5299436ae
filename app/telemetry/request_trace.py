"""What is known of the request in hand: its id, its model, where its time went."""

from __future__ import annotations

import math

import msgspec

from tableside.telemetry.metrics import NO_MODEL


class RequestTrace(msgspec.Struct):
    """One request. started_s: when nginx had it, or else the worker, on the monotonic clock; waited_s: between the two.

    stages: stage name to seconds. error: the class of what went wrong, for the log.
    """

    request_id: str
    started_s: float
    waited_s: float = 0.0
    deadline_at_s: float = math.inf
    model: str = NO_MODEL
    version: str = NO_MODEL
    protocol: str = "-"
    rows: int = 0
    counted: bool = False
    stages: dict[str, float] = msgspec.field(default_factory=dict)
    error: str = ""

    def serves(self, model: str, version: int, protocol: str) -> None:
        """From here on the request counts for this servable. Only names the repository has come this way."""
        self.model, self.version, self.protocol = model, str(version), protocol
        self.counted = True
