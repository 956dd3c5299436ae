"""How results look: tables and progress for people, JSON for programs. Progress goes to stderr, results to stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import orjson

from tableside.contract.schema import Column, Contract, EquivalenceCheck


def as_json(content: Any) -> None:
    """One JSON document on stdout."""
    click.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2))


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A function that says what is being done now: a spinner on a terminal, a line each otherwise."""
    if not sys.stderr.isatty():
        yield lambda step: click.echo(f"... {step}", err=True)
        return
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield status.update


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, markup=False, highlight=False).print(table)


def size(count: int) -> str:
    """Bytes in words."""
    return (
        f"{count} B" if count < 1024 else f"{count / 1024:.1f} kB" if count < 1 << 20 else f"{count / (1 << 20):.1f} MB"
    )


def summary(contract: Contract, aliases: Sequence[str]) -> dict[str, Any]:
    """A version in a line, for `list` and for programs."""
    return {
        "name": contract.name,
        "version": contract.version,
        "aliases": list(aliases),
        "kind": contract.kind,
        "estimator": contract.estimator,
        "columns": len(contract.input.columns),
        "outputs": [output.name for output in contract.outputs],
        "golden_rows": len(contract.golden.rows),
        "size_bytes": contract.artifact.size_bytes,
        "sha256": contract.artifact.sha256,
        "created_at": contract.created_at,
    }


def published(contract: Contract, root: Path, notes: Sequence[str] = ()) -> None:
    """What `publish` says when it is done; notes are what its user should know of the contract."""
    click.echo(f"published {contract.name}/{contract.version} in {root / contract.name / str(contract.version)}")
    click.echo(
        f"  {contract.estimator}: {len(contract.input.columns)} columns, {', '.join(o.name for o in contract.outputs)}"
    )
    for each in contract.equivalence_checks:
        if each.outcome == "used":
            speed = ", ".join(f"{ratio:.3g}x at {rows}" for rows, ratio in each.speed_up.items())
            click.echo(f"  answered by {each.backend} for {each.reason}: {speed} rows, {each.rows} rows compared")
    click.echo(f"  {len(contract.golden.rows)} golden rows, artifact {size(contract.artifact.size_bytes)}")
    for note in notes:
        click.echo(f"note: {note}")
    click.echo(f"next: tableside show {contract.name}; a running stack serves it after `tableside reload`")


def versions(rows: Sequence[dict[str, Any]], root: Path) -> None:
    """The table of `list`."""
    if not rows:
        click.echo(f"no models in {root}; `tableside publish` adds one")
        return
    cells = [
        (
            row["name"], row["version"], ", ".join(row["aliases"]), row.get("kind", "-"), row.get("estimator", "-"),
            size(row.get("size_bytes", 0)), row.get("created_at", "-")[:16], row["problem"],
        )
        for row in rows
    ]  # fmt: skip
    _table(("model", "version", "aliases", "kind", "estimator", "size", "published", "problem"), cells)


def _categories(column: Column) -> str:
    if column.categories is None:
        return ""
    shown = ", ".join(str(value) for value in column.categories[:6])
    more = f", ... ({len(column.categories)})" if len(column.categories) > 6 else ""
    return f"{shown}{more}" + ("" if column.closed else " or other")


def _candidate(each: EquivalenceCheck) -> tuple[str, ...]:
    speed = ", ".join(f"{ratio:.3g}x" for ratio in each.speed_up.values())
    apart = "equal to the bit" if each.rows and not each.largest_difference else f"{each.largest_difference:.1e}"
    return (each.backend, each.outcome, each.reason, str(each.rows or "-"), apart if each.rows else "-", speed or "-")


def contract(found: Contract, here: Sequence[str] = ()) -> None:
    """The contract for people. here: how this machine differs from that of publish, where it matters."""
    click.echo(f"{found.name}/{found.version}  {found.kind}  {found.estimator}  published {found.created_at}")
    ranges = [
        f"{column.minimum:g} to {column.maximum:g}" if column.minimum is not None and column.maximum is not None else ""
        for column in found.input.columns
    ]
    rows = [
        (column.name, column.datatype, "yes" if column.nullable else "no", seen, _categories(column))
        for column, seen in zip(found.input.columns, ranges, strict=True)
    ]
    _table(("column", "type", "missing cells", "seen", "categories"), rows)
    outputs = [(o.name, o.datatype, f"[rows, {o.width}]", ", ".join(map(str, o.classes or ()))) for o in found.outputs]
    _table(("output", "type", "shape", "classes"), outputs)
    if found.equivalence_checks:
        heads = (
            "fast backend",
            "outcome",
            "reason",
            "rows compared",
            "largest difference",
            "speed-up at 1, 32, 1000 rows",
        )
        _table(heads, [_candidate(each) for each in found.equivalence_checks])
    click.echo(f"artifact     {found.artifact.file}, {size(found.artifact.size_bytes)}, sha256 {found.artifact.sha256}")
    if found.graph is not None:
        click.echo(f"graph        {found.graph.file}, {size(found.graph.size_bytes)}, sha256 {found.graph.sha256}")
    click.echo(f"golden rows  {len(found.golden.rows)}")
    click.echo(f"environment  {', '.join(f'{name} {version}' for name, version in found.environment.items())}")
    for difference in here:
        click.echo(f"here         {difference}")
    if found.source:
        click.echo(f"source       {', '.join(f'{name} {value}' for name, value in found.source.items())}")


def verified(results: Sequence[dict[str, Any]]) -> None:
    """The result of `verify`."""
    for result in results:
        name = f"{result['name']}/{result['version']}"
        click.echo(
            f"ok    {name}: {result['golden_rows']} golden rows answered as at publish"
            if result["ok"]
            else f"FAIL  {name}: {result['reason']}"
        )
    if not results:
        click.echo("nothing to verify")
