"""The models of the status page: one row each, with its versions, its problems and what it has served lately."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tableside.blueprints.admin import page_words
from tableside.blueprints.admin.plot import Plot, plot
from tableside.errors import FailureKind, ModelNotFound
from tableside.repository.model_toml import ModelConfig
from tableside.serving import traffic_report
from tableside.serving.catalog import Catalog, Model
from tableside.serving.lifecycle import State
from tableside.serving.request_history import SAMPLE_S, History
from tableside.serving.version_status import VersionStatus, merge_statuses, read_statuses, status_of_servable

_NOT_SERVED = "docs/guide/operate.md#when-a-version-is-not-served"
HELP = {
    FailureKind.DAMAGED: _NOT_SERVED,
    FailureKind.ENVIRONMENT: "docs/guide/environments.md",
    FailureKind.GOLDEN: _NOT_SERVED,
    FailureKind.UNTRUSTED: _NOT_SERVED,
    FailureKind.CONSENT: "docs/guide/your-own-classes.md",
    FailureKind.SIGNATURE: "docs/guide/sign.md",
    FailureKind.CRASHED: _NOT_SERVED,
    FailureKind.TIMEOUT: _NOT_SERVED,
    FailureKind.MEMORY: _NOT_SERVED,
    FailureKind.CONTRACT: _NOT_SERVED,
    FailureKind.QUARANTINED: "docs/guide/operate.md#requests-that-end-their-worker",
    FailureKind.OTHER: _NOT_SERVED,
}
"""The page of the documentation that helps with each class of problem."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with a version, or of what its users should know. help: a page of the documentation, or nothing."""

    version: str
    text: str
    help: str
    is_bad: bool


@dataclass(frozen=True)
class Summary:
    """A model before its row is made, which takes longer."""

    model: Model
    statuses: Sequence[VersionStatus]
    has_problem: bool

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name


@dataclass(frozen=True)
class VersionRow:
    """A version with its aliases and how it is tried. kind: a class of the style sheet."""

    number: int
    state: str
    kind: str
    aliases: str
    is_default: bool
    traffic: str


@dataclass(frozen=True)
class ModelRow:
    """A model as it is shown. state: that of the version that answers requests without a version."""

    name: str
    state: str
    kind: str
    versions: Sequence[VersionRow]
    problems: Sequence[Problem]
    rate: str
    errors: str
    p50: str
    p99: str
    requests: Plot


def summaries(catalog: Catalog, workers: Iterable[Mapping[str, object]]) -> list[Summary]:
    """Return the models of a catalog, sorted by name, with the state of each version over all workers."""
    merged = merge_statuses(read_statuses(workers))
    found = []
    for _, model in sorted(catalog.models.items()):
        own = [status_of_servable(servable) for servable in model.servables]
        statuses = [merged.get(each.key, each) for each in own]
        found.append(Summary(model, statuses, bool(model.reason) or any(map(_is_bad, statuses))))
    return found


def _is_bad(status: VersionStatus) -> bool:
    """Whether something is wrong. A version that is not to be served, or not yet, has a reason but no failure kind."""
    return status.failure_kind is not FailureKind.NONE


def rows_of(found: Iterable[Summary], run_dir: Path, history: History) -> list[ModelRow]:
    """Return the rows of some models."""
    return [_row(each, run_dir, history) for each in found]


def _row(summary: Summary, run_dir: Path, history: History) -> ModelRow:
    model, name = summary.model, summary.name
    traffic = traffic_report.report(run_dir, name, model.config or ModelConfig())
    answers = 0
    with suppress(ModelNotFound):
        answers = model.pick(None).version
    versions = [
        VersionRow(
            status.version, status.state.value, _kind(status),
            ", ".join(sorted(alias for alias, number in model.aliases.items() if number == status.version)),
            status.version == answers, traffic.of_version(status.version),
        )
        for status in summary.statuses
    ]  # fmt: skip
    state, kind = next(((each.state, each.kind) for each in versions if each.is_default), ("UNAVAILABLE", "bad"))
    lately, since = history.total(name, page_words.LATELY_SAMPLES), history.total(name)
    return ModelRow(
        name, state, kind, versions, _problems(summary),
        page_words.rate(lately.requests, page_words.LATELY_SAMPLES),
        page_words.share(since.errors, since.requests),
        page_words.milliseconds(history.seconds(name, 0.5)), page_words.milliseconds(history.seconds(name, 0.99)),
        plot(history.rates(name), f"Requests per second of {name}", SAMPLE_S),
    )  # fmt: skip


def _kind(status: VersionStatus) -> str:
    if _is_bad(status):
        return "bad"
    return "good" if status.state is State.READY else "busy"


def _problems(summary: Summary) -> list[Problem]:
    found = (
        [Problem("", _sentence(summary.model.reason), HELP[FailureKind.CONTRACT], True)] if summary.model.reason else []
    )
    for status in summary.statuses:
        if status.reason:
            help_page = HELP.get(status.failure_kind, "")
            found.append(Problem(f"version {status.version}", _sentence(status.reason), help_page, _is_bad(status)))
    return found


def _sentence(text: str) -> str:
    """Return a reason with a full stop: more may follow."""
    return text if text.endswith((".", "!", "?")) else f"{text}."
