"""What `tableside top` shows: the difference between two looks at a stack, as numbers for people and for programs."""

from __future__ import annotations

import msgspec


class Numbers(msgspec.Struct, frozen=True):
    """What was answered between two looks. None: it cannot be known yet, or nothing was answered.

    requests: answered predictions. client_errors, server_errors: those with status 4xx, and 500 and above.
    p50_s, p95_s, p99_s: seconds of a whole request. queue_rows, in_flight: rows that wait, and predictions that are
    being answered, at the second look.
    """

    requests: int | None = None
    requests_per_s: float | None = None
    client_errors: int | None = None
    server_errors: int | None = None
    p50_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    queue_rows: int = 0
    in_flight: int | None = None

    @property
    def client_error_share(self) -> float | None:
        """The share of answers with status 4xx, 0 to 1."""
        return self.client_errors / self.requests if self.requests and self.client_errors is not None else None

    @property
    def server_error_share(self) -> float | None:
        """The share of answers with status 500 and above, 0 to 1."""
        return self.server_errors / self.requests if self.requests and self.server_errors is not None else None


class VersionView(msgspec.Struct, frozen=True):
    """A version of a model. state: the worst of all workers; empty for one that is not served any more.

    tried: as what it is tried, such as `canary 5 %`, with the judgement; empty if it is not.
    """

    version: str
    numbers: Numbers
    state: str = ""
    reason: str = ""
    aliases: list[str] = []
    tried: str = ""
    has_problem: bool = False


class ModelView(msgspec.Struct, frozen=True):
    """A model, with its versions. reason: why its model.toml cannot be used."""

    name: str
    numbers: Numbers
    versions: list[VersionView] = []
    reason: str = ""

    @property
    def has_problem(self) -> bool:
        """Whether a version has a problem, or the model as a whole."""
        return bool(self.reason) or any(each.has_problem for each in self.versions)


class WorkerView(msgspec.Struct, frozen=True):
    """A worker. processor_share: 1 is one processor, kept busy. problem: why it does not serve; empty if it does."""

    slot: int | None
    pid: int | None
    instance: str
    generation: int
    ready: bool
    age_s: float | None = None
    requests_per_s: float | None = None
    client_error_share: float | None = None
    server_error_share: float | None = None
    in_flight: int | None = None
    processor_share: float | None = None
    memory_bytes: int | None = None
    hub_lag_s: float | None = None
    problem: str = ""


class StackView(msgspec.Struct, frozen=True):
    """Everything that one frame shows. seconds: between the two looks; 0 with the first.

    workers_wanted: as many as gunicorn starts. processor_share: of the whole machine, 0 to 1; workers_processor_share:
    of its processes, 1 for each processor that they keep busy.
    """

    server: str
    time: str
    seconds: float
    generation: int
    workers_ready: int
    workers_wanted: int
    total: Numbers
    models: list[ModelView]
    workers: list[WorkerView]
    uptime_s: float | None = None
    drained: bool = False
    processors: int | None = None
    processor_share: float | None = None
    workers_processor_share: float | None = None
    memory_bytes: int | None = None
    memory_used_bytes: int | None = None
    workers_memory_bytes: int = 0
