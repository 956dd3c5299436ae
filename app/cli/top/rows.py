"""Lines with a name and columns of numbers, which stay in their place from one frame to the next."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from rich.cells import set_cell_size
from rich.text import Text

from tableside.cli.render import visible

MODEL_HEADINGS = ("REQ/S", "4xx %", "5xx %", "p50 ms", "p95 ms", "p99 ms", "QUEUE", "IN FLIGHT")
WORKER_HEADINGS = ("REQ/S", "4xx %", "5xx %", "CPU %", "MEMORY", "LAG ms", "GEN", "IN FLIGHT")
"""Both lists have the same columns, so that what is the same lies one below the other."""
_WIDTHS = (6, 5, 5, 6, 6, 6, 5, 9)
_WIDE = 100
"""From this width of the terminal on there are two spaces between columns."""
_LONGEST_NAME, _SHORTEST_NAME = 48, 12
_QUIET = frozenset(("0", "-"))


class Rows:
    """Makes the lines for a terminal of this width, in characters."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._gap = "  " if width >= _WIDE else " "
        numbers = sum(_WIDTHS) + len(self._gap) * len(_WIDTHS)
        self._name_width = max(_SHORTEST_NAME, min(_LONGEST_NAME, width - numbers))

    def heading(self, name: str, headings: Sequence[str], marked: str = "") -> Text:
        """Return the line with the headings. marked: the one by which the lines are sorted."""
        line = Text(style="dim").append(name, "underline" if name == marked else "")
        line.append(" " * (self._name_width - len(name)))
        for heading, width in zip(headings, _WIDTHS, strict=True):
            line.append(self._gap + " " * (width - len(heading)))
            line.append(heading, "underline" if heading == marked else "")
        return line

    def line(self, name: str, cells: Sequence[str], styles: Mapping[int, str], name_style: str = "") -> Text:
        """Return a line. styles: of cells, by their index. Cells that say nothing, such as 0, are dim."""
        line = Text().append(_left(name, self._name_width), name_style)
        for index, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True)):
            line.append(self._gap)
            line.append(cell.rjust(width), styles.get(index, "dim" if cell in _QUIET else ""))
        return line

    def note(self, text: str, style: str, most: int) -> list[Text]:
        """Return at most so many lines with a text about the line above them."""
        return [Text(f"    {line}", style) for line in folded(text, self.width - 4, most)]


def _left(text: str, width: int) -> str:
    return set_cell_size(text if len(text) <= width else text[: max(0, width - 1)] + "…", width)


def put_right(line: Text, text: str, width: int) -> None:
    """Put text at the end of a line, if there is room for it."""
    space = width - line.cell_len - len(text)
    if space >= 2:
        line.append(" " * space + text, "dim")


def one_line(text: str) -> str:
    """Return text that a terminal shows on one line, whatever is in it."""
    return visible(" ".join(text.split()))


def folded(text: str, width: int, most: int) -> list[str]:
    """Return text in lines of at most this width. What does not fit into `most` lines is left out."""
    return textwrap.wrap(one_line(text), max(10, width), max_lines=most, placeholder=" ...")


def error_styles(client_errors: float | None, server_errors: float | None) -> dict[int, str]:
    """Return the styles of the two columns of errors: a colour where there are some."""
    return ({1: "yellow"} if client_errors else {}) | ({2: "bold red"} if server_errors else {})
