"""Draws the latency of every request around each event of a soak: `plot.py WINDOWS.json TARGET.svg`.

Needs matplotlib (requirements/bench.txt) and imports nothing of the project, so it runs in its own environment.
WINDOWS: a list of {event, round, begin_s, end_s, sent: [[due_s, latency_s, outcome], ...]}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

mpl.rcParams.update({"svg.hashsalt": "tableside", "svg.fonttype": "path"})
GOAL_MS = 250
ANSWERED, FAILED, GOAL = "#2f6f4f", "#c0392b", "#8a8f98"
PANEL_COLUMNS = 3


def draw(windows: list[dict[str, Any]], target: Path) -> None:
    """Draw one panel for each event, with the requests of all its rounds over the time since it began."""
    events = list(dict.fromkeys(window["event"] for window in windows))
    lines = -(-len(events) // PANEL_COLUMNS)
    plot, panels = plt.subplots(
        lines, PANEL_COLUMNS, figsize=(4 * PANEL_COLUMNS, 2.6 * lines), squeeze=False, sharey=True, layout="constrained"
    )
    for at, panel in enumerate(panels.flat):
        if at >= len(events):
            panel.set_axis_off()
            continue
        for window in (window for window in windows if window["event"] == events[at]):
            for failed, colour in ((False, ANSWERED), (True, FAILED)):
                sent = [each for each in window["sent"] if (each[2] != "ok") is failed]
                times = [each[0] - window["begin_s"] for each in sent]
                panel.scatter(times, [each[1] * 1e3 for each in sent], s=3, c=colour, rasterized=True)
        panel.axhline(GOAL_MS, color=GOAL, linewidth=0.8, linestyle="--")
        panel.set_yscale("log")
        panel.set_title(events[at], fontsize=10)
    plot.supxlabel("seconds; the event begins at 1")
    plot.supylabel("latency, ms")
    plot.suptitle("every request; red: failed; dashed: 250 ms")
    plot.savefig(target, metadata={"Date": None}, dpi=110)
    plt.close(plot)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
