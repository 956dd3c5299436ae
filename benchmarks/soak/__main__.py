"""`python -m benchmarks.soak`: run the soak, print the table and write the results with a plot of each event.

Needs nginx. The models are trained and published once, and kept in the folder of `--models-in`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import environments, machine
from benchmarks.progress import progress
from benchmarks.soak import measured, models
from benchmarks.soak.events import EVENTS
from benchmarks.soak.run import Plan, Result, soak
from benchmarks.soak.stack import Stack

PROJECT = Path(__file__).resolve().parents[2]
RESULTS = PROJECT / "benchmarks" / "results"
CACHE = Path.home() / ".cache" / "tableside-bench"


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each event happens (default: 3)")
    parser.add_argument("--models", type=int, default=200, help="small models in the repository (default: 200)")
    parser.add_argument("--large-mb", type=int, default=500, help="size of the large forest; 0: none (default: 500)")
    parser.add_argument("--rate", type=float, default=60.0, help="requests a second over all models (default: 60)")
    parser.add_argument("--settle-s", type=float, default=8.0, help="seconds measured after each event (default: 8)")
    parser.add_argument("--events", default=",".join(EVENTS), help="names with commas between (default: all)")
    parser.add_argument("--workers", type=int, default=2, help="gunicorn workers (default: 2)")
    parser.add_argument("--models-in", type=Path, default=CACHE, help="folder that keeps the published models")
    parser.add_argument("--name", default=f"soak-{datetime.now(UTC):%Y-%m-%d}", help="name of the result files")
    return parser.parse_args()


def main() -> int:
    """Run the soak. Returns 0 if no request failed and every event was over in time, otherwise 1."""
    chosen = arguments()
    events = tuple(chosen.events.split(","))
    unknown = sorted(set(events) - set(EVENTS))
    if unknown:
        sys.stderr.write(f"unknown event {unknown[0]!r}; there are: {', '.join(EVENTS)}\n")
        return 2
    kept = chosen.models_in / f"soak-{chosen.models}-{chosen.large_mb}"
    kept.mkdir(parents=True, exist_ok=True)
    described = machine.describe()
    targets = models.make(kept, chosen.models, chosen.large_mb, progress)
    folder = Path(tempfile.mkdtemp(prefix="ts-soak-"))
    try:
        stack = Stack(folder, kept / "models", chosen.workers)
        plan = Plan(chosen.rounds, chosen.rate, chosen.settle_s, events)
        result = soak(stack, targets, plan, folder / "client.jsonl", progress)
        if result.troubles:
            kept_log = Path(tempfile.mkdtemp(prefix="ts-soak-log-"))
            shutil.copytree(stack.run_dir / "log", kept_log, dirs_exist_ok=True)
            progress(f"the stack's log is kept in {kept_log}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _report(result, described, chosen)


def _report(result: Result, described: dict[str, object], chosen: argparse.Namespace) -> int:
    found = measured.rows(result.sent, result.windows)
    failed = measured.failures(result.sent, result.windows)
    lines = [
        f"# Soak of {datetime.now(UTC):%Y-%m-%d}\n",
        f"{chosen.models} small models and a forest of {chosen.large_mb} MB, {chosen.workers} workers behind nginx, "
        f"{chosen.rate:g} requests/s over all models, {chosen.rounds} rounds. Ready {result.start_s:.1f} s after the "
        f"start. {described['cores']} cores of {described['cpu']}; load average at the start "
        f"{described['load_1min']:.1f}. Latency counts from the moment a request was due; `nothing` is the time before "
        "the events of a round. `window` ends when the stack has its full capacity again and has settled.\n",
        measured.table(found) + "\n",
        *(f"- {count} x {event}: {text}" for (event, text), count in failed.most_common(20)),
        f"- {result.switches} changes of the models meanwhile, which all workers made",
        *(f"- not as it should be: {trouble}" for trouble in result.troubles),
        f"\n![latency of every request around each event]({chosen.name}.svg)",
    ]
    page = "\n".join(lines) + "\n"
    sys.stdout.write(page)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{chosen.name}.md").write_text(page)
    _plot(result, chosen.name)
    return 1 if failed or result.troubles else 0


def _plot(result: Result, name: str) -> None:
    """Draw the plot in the benchmarks' own environment, which has matplotlib."""
    windows = [
        {**window._asdict(), "sent": [request[:2] + request[3:] for request in measured.within(result.sent, window)]}
        for window in result.windows
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(windows, file)
        file.flush()
        try:
            plots = environments.ensure("plots", PROJECT / "requirements" / "bench.txt", {}, CACHE)
        except environments.NotInstalled as problem:
            progress(f"no plot: {problem}")
            return
        command = [str(plots.bin / "python"), str(Path(__file__).with_name("plot.py"))]
        subprocess.run([*command, file.name, str(RESULTS / f"{name}.svg")], check=True)


if __name__ == "__main__":
    sys.exit(main())
