"""The trace of one request: its id, its model, and how long each stage took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from tableside.telemetry.metrics import NO_MODEL

NO_PROTOCOL = "-"
"""Protocol of a request that is no prediction."""
NO_ANOMALIES: Mapping[tuple[str, str], int] = MappingProxyType({})
_NO_HEADERS: Mapping[str, Any] = MappingProxyType({})


class Watch(Protocol):
    """Who wants to know of a request after its answer has gone."""

    def answered(self, trace: RequestTrace, status: int, seconds: float) -> None:
        """Note an answered request. Called on the event loop's thread; it must return at once."""


class RequestTrace(msgspec.Struct):
    """What is known about one request. Moments are seconds of the monotonic clock.

    started_s: when nginx received the request, or the worker if there is no nginx.
    waited_s: seconds between nginx and the worker.
    deadline_at_s: the moment by which the request must be answered.
    protocol: of a prediction; the metrics count predictions only, under NO_MODEL before a version has taken them.
    counted: whether model and version are known, so that they may be labels of metrics.
    stages: seconds spent in each stage, by the stage's name.
    anomalies: the number of input anomalies, by the metric's labels column and kind.
    error: the name of the error's class, for the log.
    environ: the request (PEP 3333), for the ids in its headers. v2_id: the `id` of a V2 body, once it is decoded.
    row_ids: the ids of the first rows as text, if model.toml has them logged.
    watch: who compares the versions of the model. sample: what it compares after the answer has gone.
    generation: the one that the answer is of; 0 before it is known.
    """

    request_id: str
    started_s: float
    waited_s: float = 0.0
    deadline_at_s: float = math.inf
    model: str = NO_MODEL
    version: str = NO_MODEL
    protocol: str = NO_PROTOCOL
    rows: int = 0
    counted: bool = False
    stages: dict[str, float] = msgspec.field(default_factory=dict)
    anomalies: Mapping[tuple[str, str], int] = NO_ANOMALIES
    error: str = ""
    environ: Mapping[str, Any] = _NO_HEADERS
    v2_id: str | None = None
    row_ids: Sequence[str] = ()
    watch: Watch | None = None
    sample: object = None
    generation: int = 0

    def serves(self, model: str, version: int, protocol: str) -> None:
        """Count this request for a version of the repository.

        Never pass a name that only a client sent: each name becomes a label of the metrics, and they would grow without
        bound.
        """
        self.model, self.version, self.protocol = model, str(version), protocol
        self.counted = True

    def served(self) -> list[tuple[str, str]]:
        """Return the headers that say which version answers, and of which generation; none before that is known."""
        if not self.counted:
            return []
        return [
            ("X-Tableside-Served", f"{self.model}/{self.version}"), ("X-Tableside-Generation", str(self.generation)),
        ]  # fmt: skip
