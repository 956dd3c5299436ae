"""Draws two SVG plots of a results file: `plots.py RESULTS.json`.

Needs matplotlib (requirements/bench.txt) and imports nothing of the project, so it runs in its own environment.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

mpl.rcParams.update({"svg.hashsalt": "tableside", "svg.fonttype": "none"})
OURS, THEIRS, FAULTY = "#2f6f4f", "#8a8f98", "#d9b3b0"


def values(trials: list[dict[str, Any]], model: str, figure: str) -> dict[str, tuple[float, float, float, bool]]:
    """Return (median, low, high, whether a round had faults) at 64 connections, by server and way, over all rounds."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for trial in trials:
        for measured in trial["measured"]:
            if trial["model"] == model and measured["load"] == "c64" and "rate" in measured:
                name = trial["contestant"].removesuffix("-nginx") + (
                    "" if measured["way"] == "direct" else f", {measured['way']}"
                )
                rows.setdefault(name, []).append(measured)
    spread = {}
    for name, each in rows.items():
        numbers = [measured[figure] for measured in each]
        faulty = any(measured["faults"] for measured in each)
        spread[name] = (statistics.median(numbers), min(numbers), max(numbers), faulty)
    return spread


def draw(results: dict[str, Any], figure: str, label: str, target: Path) -> None:
    """Draw one panel per model with one bar per server; whiskers span the smallest to the largest round."""
    models = results["plan"]["models"]
    plot, panels = plt.subplots(len(models), 1, figsize=(9, 1 + 4 * len(models)), squeeze=False, layout="constrained")
    for panel, model in zip(panels[:, 0], models, strict=True):
        found = dict(sorted(values(results["trials"], model, figure).items(), key=lambda item: item[1][0]))
        colours = [
            FAULTY if spread[3] else OURS if name.startswith("tableside") else THEIRS for name, spread in found.items()
        ]
        middles = [spread[0] for spread in found.values()]
        whiskers = [
            [spread[0] - spread[1] for spread in found.values()],
            [spread[2] - spread[0] for spread in found.values()],
        ]
        panel.barh(list(found), middles, xerr=whiskers, color=colours, ecolor="#333333", capsize=3)
        panel.set_title(model)
        panel.set_xlabel(label)
        if figure != "rate":
            panel.set_xscale("log")
    plot.suptitle(
        "64 connections; pale bars: a round had errors, timeouts or starved connections, so the figure does not count"
    )
    plot.savefig(target, metadata={"Date": None})
    plt.close(plot)


def main() -> None:
    """Write NAME-rates.svg and NAME-latency.svg into the folder of NAME.json."""
    source = Path(sys.argv[1])
    results = json.loads(source.read_text())
    draw(results, "rate", "requests/s", source.with_name(f"{source.stem}-rates.svg"))
    draw(results, "p99_ms", "p99, ms", source.with_name(f"{source.stem}-latency.svg"))


if __name__ == "__main__":
    main()
