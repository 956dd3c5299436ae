"""The comparison of two versions as one object, for `tableside diff` and for an API: contracts, answers, latency."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

from tableside.comparison import answers, latency, row_sources
from tableside.comparison.answers import OutputComparison
from tableside.comparison.latency import Latency
from tableside.comparison.row_sources import Reading, Refused, RowSource
from tableside.contracts import answers as answering
from tableside.contracts.array_type import Array
from tableside.contracts.consent_digest import is_pickle
from tableside.contracts.schema import Contract
from tableside.contracts.table import Table
from tableside.errors import TablesideError
from tableside.repository import compatibility
from tableside.repository.compatibility import Difference
from tableside.repository.model_toml import ColumnConfig
from tableside.runtimes.base import Runtime

_PROBLEM_CHARS = 500


class Fact(msgspec.Struct, frozen=True):
    """What two versions have of one kind that clients do not see, such as the estimator. old, new: as text."""

    name: str
    old: str
    new: str


class AnswerComparison(msgspec.Struct, frozen=True):
    """The answers of two versions to the same rows.

    source: where the rows are from. rows: how many there are. compared: those that both versions take. problem: why
    nothing is compared; empty if something is.
    """

    source: str
    rows: int = 0
    compared: int = 0
    refused_by_old: Refused = Refused()
    refused_by_new: Refused = Refused()
    outputs: tuple[OutputComparison, ...] = ()
    latency: tuple[Latency, ...] = ()
    problem: str = ""


class Comparison(msgspec.Struct, frozen=True):
    """Two versions compared. old, new: NAME/VERSION. breaking: whether clients of `old` break with `new`.

    differences: what changes for clients, the breaking ones first. facts: what else differs. answers: None if the
    versions were not run.
    """

    old: str
    new: str
    breaking: bool
    differences: tuple[Difference, ...]
    facts: tuple[Fact, ...]
    answers: AnswerComparison | None = None


def compare_contracts(old: Contract, new: Contract, columns: ColumnConfig = ColumnConfig()) -> Comparison:  # noqa: B008 - frozen
    """Return what the contracts say, without a load. columns: how requests of the model are read."""
    found = compatibility.compare(old, new, columns)
    facts = tuple(fact for fact in _facts(old, new) if fact.old != fact.new)
    return Comparison(
        f"{old.name}/{old.version}",
        f"{new.name}/{new.version}",
        bool(compatibility.breaking(found)),
        tuple(found),
        facts,
    )


class Side(NamedTuple):
    """A loaded version. missing_words: those of its model.toml, by column; they count in CSV files."""

    contract: Contract
    runtime: Runtime
    missing_words: Mapping[str, frozenset[str]] = {}


def compare_answers(
    old: Side, new: Side, source: RowSource | None = None, *,
    latency_budget_s: float = latency.BUDGET_S,
) -> AnswerComparison:  # fmt: skip
    """Ask two loaded versions the same rows, by default the golden rows of both, and compare the answers.

    latency_budget_s: how long the latency may be measured; 0.0 leaves it out. All is computed in the calling thread.
    Nothing is raised: a version that raises is a `problem`.
    """
    rows = source if source is not None else row_sources.golden(old.contract, new.contract)
    try:
        both = row_sources.compare_rows(
            rows, *(Reading(each.contract.input, each.missing_words) for each in (old, new))
        )
        found = AnswerComparison(
            rows.name, rows.count, len(both.numbers), both.refused_by_old, both.refused_by_new,
            problem="" if both.numbers else "no row fits both versions",
        )  # fmt: skip
        if both.old is None or both.new is None:
            return found
        was, now = _answers(old, both.old), _answers(new, both.new)
        outputs = answers.compare_outputs(old.contract, new.contract, was, now, answers.Rows(both.numbers, both.old))
        calls, tables = (_Default(old), _Default(new)), (both.old, both.new)
        times = latency.measure(*calls, *tables, latency_budget_s) if latency_budget_s else ()
    except TablesideError as problem:
        return AnswerComparison(rows.name, rows.count, problem=str(problem)[:_PROBLEM_CHARS])
    except Exception as problem:  # noqa: BLE001 - an estimator may raise anything
        reason = f"a version raised {type(problem).__name__} on these rows: {problem}"
        return AnswerComparison(rows.name, rows.count, problem=reason[:_PROBLEM_CHARS])
    return msgspec.structs.replace(found, outputs=outputs, latency=times)


def _answers(side: Side, table: Table) -> dict[str, Array]:
    return answering.collect(side.contract.outputs, side.runtime.run, side.runtime.prepare(table))


class _Default:
    """Computes the default output of a version."""

    def __init__(self, side: Side) -> None:
        self._outputs, self._runtime = (side.contract.default_output,), side.runtime

    def __call__(self, table: Table) -> object:
        return answering.collect(self._outputs, self._runtime.run, self._runtime.prepare(table))


def _facts(old: Contract, new: Contract) -> Iterator[Fact]:
    yield Fact("kind", old.kind, new.kind)
    yield Fact("estimator", old.estimator, new.estimator)
    yield Fact("input", old.input.form, new.input.form)
    yield Fact("columns", str(len(old.input.columns)), str(len(new.input.columns)))
    yield Fact("artifact", *(_artifact(each) for each in (old, new)))
    yield Fact("batch invariance", *(each.batch_invariance or "not measured" for each in (old, new)))
    yield Fact("backends", *(_backends(each) for each in (old, new)))
    for title, was, now in (
        ("trained with", old.trained_with, new.trained_with),
        ("published with", old.environment, new.environment),
    ):
        for package in sorted({*was, *now}):
            yield Fact(f"{title}: {package}", was.get(package, "-"), now.get(package, "-"))


def _artifact(contract: Contract) -> str:
    code = ", own code" if contract.code else ""
    return f"{'pickle' if is_pickle(contract) else contract.artifact.file}, {contract.size_bytes} bytes{code}"


def _backends(contract: Contract) -> str:
    return ", ".join(dict.fromkeys(route.backend for route in contract.routes)) or "estimator"
