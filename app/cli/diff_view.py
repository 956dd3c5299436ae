"""Prints the comparison of two versions as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from tableside.cli import render

if TYPE_CHECKING:
    from tableside.comparison.answers import OutputComparison
    from tableside.comparison.report import AnswerComparison, Comparison
    from tableside.comparison.row_sources import Refused
    from tableside.contracts.schema import Cell

_MOST_CELLS = 6


def show(found: Comparison) -> None:
    """Print what changes for clients, what else differs, and the answers."""
    from tableside.repository import compatibility

    broken = len(compatibility.breaking(found.differences))
    if not found.differences:
        click.echo(f"clients of {found.old} see no difference in {found.new}")
    else:
        verdict = f"{broken or 'none'} {'break' if broken > 1 else 'breaks'} them"
        count = f"{len(found.differences)} difference{'s' if len(found.differences) > 1 else ''}"
        click.echo(f"clients of {found.old} see {count} in {found.new}; {verdict}")
        rows = [("breaks" if each.breaking else "", each.part, each.text) for each in found.differences]
        render.table(("clients", "of", "difference"), rows)
    if found.facts:
        render.table(("what", found.old, found.new), [(fact.name, fact.old, fact.new) for fact in found.facts])
    if found.answers is not None:
        _show_answers(found, found.answers)


def _show_answers(found: Comparison, answers: AnswerComparison) -> None:
    if answers.rows:
        click.echo(f"answers to {answers.compared} of {answers.rows} rows ({answers.source})")
    for name, refused in ((found.old, answers.refused_by_old), (found.new, answers.refused_by_new)):
        if refused.rows:
            click.echo(_refused(name, refused))
    if answers.problem:
        click.echo(f"the answers are not compared: {answers.problem}")
    if not answers.outputs:
        return
    render.table(
        ("output", "rows", "equal", "flips", "share", "|delta| p50", "p90", "p99", "max", "remark"),
        [_output_cells(each) for each in answers.outputs],
    )
    for output in answers.outputs:
        _show_worst(found, output)
    if answers.latency:
        click.echo("milliseconds of one call, without HTTP")
        render.table(
            ("rows", "calls", f"{found.old} p50", "p99", f"{found.new} p50", "p99", "ratio p50", "p99"),
            [
                (
                    each.rows, each.calls, *(f"{ms:.3g}" for ms in (each.old_p50_ms, each.old_p99_ms)),
                    *(f"{ms:.3g}" for ms in (each.new_p50_ms, each.new_p99_ms)),
                    *(f"{ratio:.2f}" for ratio in (each.ratio_p50, each.ratio_p99)),
                )
                for each in answers.latency
            ],
        )  # fmt: skip


def _refused(name: str, refused: Refused) -> str:
    where = f"; the first is row {refused.first}" if refused.first is not None else ""
    return f"{name} refuses {refused.rows} row{'' if refused.rows == 1 else 's'}{where}: {refused.reason}"


def _output_cells(output: OutputComparison) -> tuple[object, ...]:
    if output.problem:
        return (output.name, *[""] * 8, f"not compared: {output.problem}")
    flips = ("", "") if output.flips is None else (output.flips, f"{output.share:.2%}")
    deltas = [
        f"{output.quantiles[name]:.3g}" if name in output.quantiles else "" for name in ("p50", "p90", "p99", "max")
    ]
    remark = f"{output.not_finite} cells are not finite in one of them" if output.not_finite else ""
    return output.name, output.rows, output.equal_rows, *flips, *deltas, remark


def _show_worst(found: Comparison, output: OutputComparison) -> None:
    if output.changes:
        changes = (
            f"{_cells(each.old)} to {_cells(each.new)} in {each.rows} row{'' if each.rows == 1 else 's'}"
            for each in output.changes
        )
        click.echo(f"{output.name}: {'; '.join(changes)}")
    if output.worst:
        click.echo(f"{output.name}: the rows that lie farthest apart")
        rows = [
            (
                each.row,
                _cells(each.old),
                _cells(each.new),
                "" if each.difference is None else f"{each.difference:.3g}",
                _input(each.input),
            )
            for each in output.worst
        ]
        render.table(("row", found.old, found.new, "difference", "input"), rows)


def _input(cells: Mapping[str, Cell]) -> str:
    shown = [f"{name} {_cells([cell])}" for name, cell in [*cells.items()][:_MOST_CELLS]]
    return render.visible(", ".join(shown) + (", ..." if len(cells) > _MOST_CELLS else ""))


def _cells(cells: Sequence[Cell]) -> str:
    shown = ", ".join(f"{cell:.6g}" if isinstance(cell, float) else str(cell) for cell in cells[:_MOST_CELLS])
    return render.visible(shown + (f", ... ({len(cells)})" if len(cells) > _MOST_CELLS else ""))
