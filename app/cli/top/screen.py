"""Draws a frame of `tableside top`: lines that fit into the width and the height of a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Group
from rich.text import Text

from tableside.cli.top import figures, model_lines, rows, worker_lines
from tableside.cli.top.differences import ordered
from tableside.cli.top.view import StackView

FEWEST_WORKER_LINES = 3
MOST_BARS = 60


@dataclass
class Frame:
    """What is drawn, and how.

    view: None before the first answer. trouble: why the stack does not answer now. rates: of all requests, the newest
    last. height: None: as many lines as there are. first: how many models are above the first one that is shown.
    keys: whether the last line names the keys.
    """

    view: StackView | None
    width: int
    height: int | None = None
    server: str = ""
    trouble: str = ""
    rates: Sequence[float] = ()
    sort: str = "rate"
    first: int = 0
    keys: bool = False
    shown: tuple[int, int] = field(default=(0, 0), init=False)
    """How many models the last `draw` has shown, and how many there are."""

    def draw(self) -> Group:
        """Return the frame."""
        lines = [*self._head(), *self._trouble()]
        if self.view is not None:
            lines += [Text(), *self._workers(self.view), Text()]
            lines += self._models(self.view, None if self.height is None else self.height - len(lines) - self.keys)
        if self.height is not None:
            room = self.height - self.keys
            lines = lines[:room] + [Text() for _ in range(room - len(lines))]
        if self.keys:
            lines.append(self._footer())
        for line in lines:
            line.no_wrap, line.end = True, "\n"
            line.truncate(self.width, overflow="ellipsis")
        if self.height is not None:
            lines[-1].end = ""  # a line end in the last line of a terminal would scroll it
        return Group(*lines)

    def _head(self) -> list[Text]:
        title = Text.assemble(("tableside top", "bold"), "  ", self.view.server if self.view else self.server)
        if self.view is None:
            return [title]
        view = self.view
        title.append(f"  up {figures.duration(view.uptime_s)}  generation {view.generation}")
        if view.drained:
            title.append("  ").append(" drained ", "bold yellow reverse")
        rows.put_right(title, view.time[11:19], self.width)
        return [title, self._host(view), *self._bars()]

    def _host(self, view: StackView) -> Text:
        style = "bold yellow" if view.workers_ready < view.workers_wanted else ""
        wanted = f" of {view.workers_wanted}" if view.workers_wanted else ""
        return Text.assemble(
            ("workers ", "dim"), (f"{view.workers_ready}{wanted} ready", style),
            f", {figures.percent(view.workers_processor_share)} % CPU, {figures.size(view.workers_memory_bytes)}",
            ("   machine ", "dim"),
            f"{figures.percent(view.processor_share)} % of {figures.whole(view.processors)} CPU, ",
            f"{figures.size(view.memory_used_bytes)} of {figures.size(view.memory_bytes)}",
        )  # fmt: skip

    def _bars(self) -> list[Text]:
        shown = list(self.rates)[-min(MOST_BARS, max(10, self.width - 40)) :]
        if len(shown) < 2:
            return []
        return [
            Text.assemble(
                ("requests ", "dim"), (figures.bars(shown), "cyan"), f" {figures.rate(shown[-1])}/s",
                (f"   highest {figures.rate(max(shown))}/s", "dim"),
            )
        ]  # fmt: skip

    def _trouble(self) -> list[Text]:
        if not self.trouble:
            return [Text("asking the server ...", "dim")] if self.view is None else []
        lines = rows.folded(self.trouble, self.width, most=3)
        return [Text(), *(Text(line, "bold red") for line in lines)]

    def _workers(self, view: StackView) -> list[Text]:
        table = rows.Rows(self.width)
        lines = [table.heading("WORKER", rows.WORKER_HEADINGS)]
        for each in view.workers:
            lines += worker_lines.block(each, table)
        most = len(lines) if self.height is None else 1 + max(FEWEST_WORKER_LINES, self.height // 4)
        if len(lines) > most:
            lines = [*lines[: most - 1], Text(f"... {len(view.workers)} workers in all", "dim")]
        return lines

    def _models(self, view: StackView, room: int | None) -> list[Text]:
        table = rows.Rows(self.width)
        models = ordered(view.models, self.sort)
        self.first = first = min(self.first, max(0, len(models) - 1))
        lines = [table.heading("MODEL", rows.MODEL_HEADINGS, model_lines.SORTED[self.sort])]
        lines.append(model_lines.total(view.total, table))
        shown = 0
        for model in models[first:]:
            block = model_lines.block(model, table)
            if room is not None and shown and len(lines) + len(block) > room:
                break
            lines += block
            shown += 1
        self.shown = (shown, len(models))
        if not models:
            lines.append(Text("no models: publish one with `tableside publish`", "dim"))
        return lines

    def _footer(self) -> Text:
        footer = Text.assemble(
            ("q", "bold"), " quit   ", ("s", "bold"), f" sort by {self.sort}   ", ("up/down", "bold"), " scroll",
        )  # fmt: skip
        shown, count = self.shown
        if count:
            rows.put_right(footer, f"models {self.first + 1} to {self.first + shown} of {count}", self.width)
        footer.stylize("dim")
        return footer
