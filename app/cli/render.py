"""Prints the results of commands: tables and text for people, JSON for programs.

Results go to stdout and progress goes to stderr, so that the output of a command can be piped.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import orjson

from tableside import sizes
from tableside.contracts.consent_digest import is_pickle
from tableside.contracts.schema import Column, Contract, EquivalenceCheck
from tableside.repository.consent_file import Entry

Row = dict[str, object]
"""One line of a result: JSON object keys to values."""


def as_json(content: object) -> None:
    """Print `content` as one indented JSON document on stdout."""
    click.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table with these headings on stdout."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*(str(cell) for cell in row))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, markup=False, highlight=False).print(grid)


def summary(contract: Contract, aliases: Sequence[str]) -> Row:
    """Return the facts about one version that `list` and `publish --json` print."""
    return {
        "name": contract.name,
        "version": contract.version,
        "aliases": list(aliases),
        "kind": contract.kind,
        "estimator": contract.estimator,
        "columns": len(contract.input.columns),
        "outputs": [output.name for output in contract.outputs],
        "golden_rows": len(contract.golden.rows),
        "size_bytes": contract.size_bytes,
        "artifact": artifact_in_words(contract),
        "sha256": contract.artifact.sha256,
        "created_at": contract.created_at,
    }


def artifact_in_words(contract: Contract) -> str:
    """Return the kind of the artifact, and whether the version brings own code, such as `skops, own code`."""
    kind = "PICKLE" if is_pickle(contract) else contract.artifact.file.rpartition(".")[2]
    return f"{kind}, own code" if contract.code else kind


def published(contract: Contract, root: Path, notes: Sequence[str] = (), served_by: int | None = 0) -> None:
    """Print the result of `publish`.

    notes: remarks on the contract that the user should read. served_by: the number of workers that serve it already;
    None if they were asked to and do not, which another line says.
    """
    click.echo(f"published {contract.name}/{contract.version} in {root / contract.name / str(contract.version)}")
    click.echo(
        f"  {contract.estimator}: {len(contract.input.columns)} columns, {', '.join(o.name for o in contract.outputs)}"
    )
    for check in contract.equivalence_checks:
        if check.outcome == "used":
            click.echo(f"  fast backend {check.backend} answers calls of {row_range(contract, check)}")
            click.echo(f"    equal on {check.rows} compared rows{_speed_up_in_words(check)}")
    click.echo(f"  {len(contract.golden.rows)} golden rows, artifact {sizes.in_words(contract.size_bytes)}")
    if contract.code:
        click.echo(f"  own code: {', '.join(file.file for file in contract.code)}")
    for note in notes:
        click.echo(f"note: {note}")
    if served_by is None:
        return
    if served_by:
        click.echo(f"served by {served_by} workers; next: `tableside show {contract.name} --curl` prints a request")
        return
    click.echo(
        f"next: `tableside reload` makes a running stack serve it; `tableside show {contract.name}` describes it"
    )


def row_range(contract: Contract, check: EquivalenceCheck) -> str:
    """Return in words how many rows a call may have for the check's backend to answer it, as the routes say.

    Return the check's own reason if no route names the backend.
    """
    ranges, low = [], 1
    for route in contract.routes:
        high = route.up_to_rows
        if route.backend == check.backend:
            ranges.append(_range_in_words(low, high))
        low = high + 1
    return ", ".join(ranges) or check.reason


def _range_in_words(low: int, high: int) -> str:
    if not high:
        return "any number of rows" if low == 1 else f"{low} or more rows"
    if low == high:
        return f"{low} row{'' if low == 1 else 's'}"
    return f"{low} to {high} rows"


def _speed_up_in_words(check: EquivalenceCheck) -> str:
    if not check.speed_up:
        return ""
    ratios = [f"{ratio:.3g}x at {rows} row{'' if rows == '1' else 's'}" for rows, ratio in check.speed_up.items()]
    return f"; speed compared with the estimator: {', '.join(ratios)}"


def versions(rows: Sequence[Row], root: Path) -> None:
    """Print the table of `list`."""
    if not rows:
        click.echo(f"no models in {root}; add one with `tableside publish`")
        return
    cells: list[tuple[object, ...]] = [
        (
            row["name"], row["version"], _aliases(row), row.get("kind", "-"), row.get("estimator", "-"),
            row.get("artifact", "-"), sizes.in_words(int(str(row.get("size_bytes", 0)))),
            str(row.get("created_at", "-"))[:16], row["problem"],
        )
        for row in rows
    ]  # fmt: skip
    headings: tuple[str, ...] = (
        "model", "version", "aliases", "kind", "estimator", "artifact", "size", "published", "problem",
    )  # fmt: skip
    if any(row.get("signed_by") for row in rows):
        headings = (*headings[:-1], "signed by", "problem")
        cells = [(*cell[:-1], row.get("signed_by", ""), cell[-1]) for cell, row in zip(cells, rows, strict=True)]
    if any(row.get("traffic") for row in rows):
        headings = (*headings[:-1], "traffic", "problem")
        cells = [(*cell[:-1], row.get("traffic", ""), cell[-1]) for cell, row in zip(cells, rows, strict=True)]
    apart = [float(str(row.get("golden_difference", 0.0))) for row in rows]
    if any(apart):
        headings = (*headings[:-1], "apart", "problem")
        cells = [(*cell[:-1], f"{far:.1e}", cell[-1]) for cell, far in zip(cells, apart, strict=True)]
    table(headings, cells)


def _aliases(row: Row) -> str:
    return _joined(row["aliases"]) or ("(retired)" if row.get("retired") else "")


def _joined(names: object) -> str:
    return ", ".join(map(str, names)) if isinstance(names, list) else "-"


def _categories(column: Column) -> str:
    if column.categories is None:
        return ""
    shown = ", ".join(str(value) for value in column.categories[:6])
    more = f", ... ({len(column.categories)} in all)" if len(column.categories) > 6 else ""
    return f"{shown}{more}" + ("" if column.closed else " or other")


def _check_cells(contract: Contract, check: EquivalenceCheck) -> tuple[str, ...]:
    speed = ", ".join(f"{ratio:.3g}x" for ratio in check.speed_up.values())
    difference = f"{check.largest_difference:.1e}" if check.largest_difference else "none, bit for bit equal"
    reason = f"answers calls of {row_range(contract, check)}" if check.outcome == "used" else check.reason
    return check.backend, check.outcome, reason, str(check.rows or "-"), difference if check.rows else "-", speed or "-"


_CHECK_HEADINGS = (
    "fast backend", "equivalence check", "reason", "rows compared", "largest difference",
    "speed-up at 1, 32, 1000 rows",
)  # fmt: skip


def contract(found: Contract, here: Sequence[str] = (), signed: str = "") -> None:
    """Print a contract.

    here: differences between this machine and that of publish that may change answers. signed: who has signed it.
    """
    click.echo(f"{found.name}/{found.version}  {found.kind}  {found.estimator}  published {found.created_at}")
    ranges = [
        f"{column.minimum:g} to {column.maximum:g}" if column.minimum is not None and column.maximum is not None else ""
        for column in found.input.columns
    ]
    rows = [
        (column.name, column.datatype, "yes" if column.nullable else "no", seen, _categories(column))
        for column, seen in zip(found.input.columns, ranges, strict=True)
    ]
    table(("column", "type", "missing cells", "seen", "categories"), rows)
    outputs = [(o.name, o.datatype, f"[rows, {o.width}]", ", ".join(map(str, o.classes or ()))) for o in found.outputs]
    table(("output", "type", "shape", "classes"), outputs)
    if found.equivalence_checks:
        table(_CHECK_HEADINGS, [_check_cells(found, check) for check in found.equivalence_checks])
    graphs = [found.graph] if found.graph is not None else []
    kept = (("artifact", [found.artifact]), ("booster", found.boosters), ("graph", graphs), ("own code", found.code))
    for what, files in kept:
        for file in files:
            click.echo(f"{what:12} {file.file}, {sizes.in_words(file.size_bytes)}, sha256 {file.sha256}")
    if is_pickle(found):
        click.echo("             a PICKLE: only the model's own process loads it, with consent")
    origin = "the trainer's answers" if found.golden.origin == "trainer" else "answered by publish"
    click.echo(f"golden rows  {len(found.golden.rows)}, {origin}")
    if found.quick:
        click.echo("published    with --quick: fast backends were compared on few rows")
    if found.trained_with:
        rest = "" if "python" in found.trained_with else "; the file does not say the versions of other libraries"
        click.echo(f"trained with {_versions_in_words(found.trained_with)}{rest}")
    click.echo(f"environment  {_versions_in_words(found.environment)}")
    for heading, text in (*(("here", difference) for difference in here), *([("signed", signed)] if signed else [])):
        click.echo(f"{heading:12} {text}")
    if found.source:
        click.echo(f"source       {', '.join(f'{name} {value}' for name, value in found.source.items())}")


def environments(rows: Sequence[Row], folder: Path) -> None:
    """Print the table of `env list`. folder: where `env create` makes environments."""
    if not rows:
        click.echo(f"no environments in the settings or in {folder}; make one with `tableside env create`")
        return
    cells = []
    for row in rows:
        versions = row["versions"] if isinstance(row["versions"], dict) else {}
        shown = (versions.get("python", "-"), versions.get("scikit-learn", "-"), row["processes"], row["python"])
        cells.append((row["name"], *shown, row["problem"]))
    table(("environment", "python", "scikit-learn", "processes", "interpreter", "problem"), cells)


def keys(rows: Sequence[Row], file: Path) -> None:
    """Print the table of `keys list`. file: the keys file."""
    if not rows:
        click.echo(f"no keys in {file}; make one with `tableside keys add NAME --scope predict`")
        return
    cells = [(row["name"], row["scope"], row["created"], row["expires"] or "never", row["state"]) for row in rows]
    table(("name", "scope", "created", "expires", "state"), cells)


def _versions_in_words(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def verified(results: Sequence[Row]) -> None:
    """Print one line per verified version: `ok` with the number of golden rows, or `FAIL` with the reason."""
    for result in results:
        name = f"{result['name']}/{result['version']}"
        click.echo(
            f"ok    {name}: {result['golden_rows']} golden rows answered as at publish"
            if result["ok"]
            else f"FAIL  {name}: {result['reason']}"
        )
    if not results:
        click.echo("nothing to verify: the repository has no models")


def consents(entries: Sequence[Entry], path: Path) -> None:
    """Print the table of `consent --list`."""
    if not entries:
        click.echo(f"{path} holds no consent")
        return
    cells = [
        (f"{e.name}/{e.version}", ", ".join(f.file for f in e.files), e.sha256[:12], e.by, e.at, e.how, e.repository)
        for e in entries
    ]
    table(("version", "files", "sha256", "by", "at", "command", "repository"), cells)


def consent_question(found: Contract, digest: str, code: Mapping[str, bytes]) -> None:
    """Print what a version brings. code: the files whose text is printed, path below `code/` to content."""
    click.echo(f"{found.name}/{found.version}  {found.estimator}  published {found.created_at}")
    table(
        ("file", "size", "sha256"),
        [(f.file, sizes.in_words(f.size_bytes), f.sha256) for f in (found.artifact, *found.boosters, *found.code)],
    )
    if is_pickle(found):
        click.echo("The artifact is a pickle: reading it runs code that nobody can read in it. Ask who made it.")
    for path, content in code.items():
        click.echo(f"--- code/{path}\n{visible(content.decode(errors='replace'))}\n")
    click.echo(f"sha256 of all: {digest}")


def visible(text: str) -> str:
    """Return text that a terminal shows as it is: what would move the cursor or turn the direction is escaped."""
    return "".join(
        each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode() for each in text
    )
