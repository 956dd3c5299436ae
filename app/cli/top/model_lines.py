"""The lines of the models in a frame of `tableside top`: one for each, more for what is tried or has a problem."""

from __future__ import annotations

from rich.text import Text

from tableside.cli.top import figures, rows
from tableside.cli.top.view import ModelView, Numbers, VersionView

SORTED = {"rate": "REQ/S", "errors": "5xx %", "p99": "p99 ms", "queue": "QUEUE", "model": "MODEL"}
"""The heading of the column by which models are sorted, by the name of the order."""
_REASON_LINES = 2


def total(numbers: Numbers, table: rows.Rows) -> Text:
    """Return the line of all models together."""
    line = _line("all models", numbers, table)
    line.stylize("bold")
    return line


def block(model: ModelView, table: rows.Rows) -> list[Text]:
    """Return the lines of a model.

    Its versions have lines of their own if one is tried, or if several have answered something.
    """
    is_divided = any(each.tried for each in model.versions)
    of_interest = [
        each for each in model.versions if each.tried or each.numbers.requests or (is_divided and _is_default(each))
    ]
    if is_divided or len(of_interest) > 1:
        lines = [_line(model.name, model.numbers, table)]
        for each in of_interest:
            lines += _version(each, table)
    else:
        lines = [_line(f"{model.name}{_single(model, of_interest)}", model.numbers, table)]
    if model.reason:
        lines += table.note(model.reason, "red", _REASON_LINES)
    for each in model.versions:
        lines += _problem(each, table)
    return lines


def _version(version: VersionView, table: rows.Rows) -> list[Text]:
    mark, _, judgement = version.tried.partition(": ")
    names = ", ".join([*version.aliases, *([mark] if mark else [])])
    line = _line(f"  {version.version} {names}", version.numbers, table, "cyan" if mark else "")
    return [line, *(table.note(judgement, "dim", 1) if judgement else [])]


def _problem(version: VersionView, table: rows.Rows) -> list[Text]:
    if version.has_problem:
        style = "red" if version.state != "READY" else "yellow"
        return table.note(f"{version.version} is {version.state}: {version.reason}", style, _REASON_LINES)
    if version.state in ("LOADING", "UNLOADING"):
        return table.note(f"{version.version} is {version.state}", "yellow", 1)
    return []


def _line(name: str, numbers: Numbers, table: rows.Rows, name_style: str = "") -> Text:
    cells = (
        figures.rate(numbers.requests_per_s), figures.percent(numbers.client_error_share),
        figures.percent(numbers.server_error_share), figures.milliseconds(numbers.p50_s),
        figures.milliseconds(numbers.p95_s), figures.milliseconds(numbers.p99_s), str(numbers.queue_rows),
        figures.whole(numbers.in_flight),
    )  # fmt: skip
    return table.line(name, cells, rows.error_styles(numbers.client_errors, numbers.server_errors), name_style)


def _is_default(version: VersionView) -> bool:
    return "default" in version.aliases


def _single(model: ModelView, of_interest: list[VersionView]) -> str:
    """Return `/N`, the version that stands for the model in its only line; empty if it has none."""
    ready = [each for each in model.versions if each.state == "READY"]
    for chosen in (of_interest, list(filter(_is_default, ready)), ready[-1:], model.versions[-1:]):
        if chosen:
            return f"/{chosen[0].version}"
    return ""
