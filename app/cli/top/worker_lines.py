"""The lines of a worker in a frame of `tableside top`."""

from __future__ import annotations

from rich.text import Text

from tableside.cli.top import figures, rows
from tableside.cli.top.view import WorkerView


def block(worker: WorkerView, table: rows.Rows) -> list[Text]:
    """Return the line of a worker, and one that says why it does not serve."""
    cells = (
        figures.rate(worker.requests_per_s), figures.percent(worker.client_error_share),
        figures.percent(worker.server_error_share), figures.percent(worker.processor_share),
        figures.size(worker.memory_bytes), figures.milliseconds(worker.hub_lag_s), str(worker.generation),
        figures.whole(worker.in_flight),
    )  # fmt: skip
    styles = rows.error_styles(worker.client_error_share, worker.server_error_share)
    name = f"{figures.whole(worker.slot):2} pid {figures.whole(worker.pid):7} {figures.clock(worker.age_s)}"
    return [table.line(name, cells, styles), *(table.note(worker.problem, "yellow", 1) if worker.problem else [])]
