"""`python -m benchmarks.attacks`: send every attack to a stack of two workers beside a steady client, print a table.

Needs nginx. Exit status 1 if an attack took a worker that it must not, failed another request, or cost too much.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import machine
from benchmarks.attacks import artifacts, floods, fronts, killers, predictions, routes
from benchmarks.attacks.rows import Row, table
from benchmarks.attacks.stage import PROJECT, RATE, WORKERS, Stage, steady_client
from benchmarks.progress import progress
from benchmarks.soak import measured
from benchmarks.soak.stack import Stack

GROUPS: dict[str, Callable[[Stage], None]] = {
    "bodies": predictions.attack, "killers": killers.attack, "artifacts": artifacts.attack, "floods": floods.attack,
    "fronts": fronts.attack,
}  # fmt: skip


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description=__doc__)
    parser.add_argument("--groups", default=",".join(GROUPS), help="names with commas between (default: all)")
    parser.add_argument("--out", type=Path, help="a file for the report, as Markdown, besides the terminal")
    return parser.parse_args()


def main() -> int:
    """Run the attacks. Returns 0 if every promise held, otherwise 1."""
    chosen = arguments()
    groups = chosen.groups.split(",")
    if unknown := sorted(set(groups) - set(GROUPS)):
        sys.stderr.write(f"unknown group {unknown[0]!r}; there are: {', '.join(GROUPS)}\n")
        return 2
    described, files, began_s = {**machine.describe(), "commit": commit()}, floods.raise_limit(), time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="ts-attacks-"))
    try:
        rows = run(folder, groups)
        walked = routes.table(routes.walk(routes.application(folder / "walk")))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = report(rows, walked, chosen, described, files, time.monotonic() - began_s)
    sys.stdout.write(text)
    if chosen.out:
        chosen.out.write_text(text)
    return 1 if problems_of(rows) else 0


def problems_of(rows: list[Row]) -> list[str]:
    """Return a line for each promise that did not hold."""
    return [f"- **{row.name}**: {problem}" for row in rows for problem in row.problems()]


def run(folder: Path, groups: list[str]) -> list[Row]:
    """Start the stack in `folder`, attack it beside the steady client, and stop it."""
    progress("training and publishing")
    models = folder / "models"
    shutil.copytree(PROJECT / "models", models)
    predictions.publish_models(models)
    artifacts.make(folder / "kept")
    more = killers.train(folder)
    consent = {"TABLESIDE__REPOSITORY__CONSENT_FILE": str(folder / "consent.jsonl")}
    stack = Stack(folder, models, WORKERS, **more, **consent, TABLESIDE__SERVER__REQUEST_TIMEOUT_S="20")
    for name in killers.MODELS:
        done = stack.tableside(*killers.publish_words(folder, name))
        if done.returncode:
            raise RuntimeError(done.stderr)
    stage = Stage(stack, folder / "kept", models, tell=progress)
    try:
        progress(f"ready after {stack.start():.0f} s")
        with steady_client(stage, folder / "client.jsonl"):
            stage.rest()
            for group in groups:
                GROUPS[group](stage)
    finally:
        stack.stop()
    sent = measured.read(folder / "client.jsonl")
    for row in stage.rows:
        row.observe(sent)
    return stage.rows


def commit() -> str:
    """Return the commit of the project, as far as git knows it."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def report(
    rows: list[Row], walked: str, chosen: argparse.Namespace, described: dict[str, object], files: int, took_s: float
) -> str:
    """Return the page."""
    problems = problems_of(rows)
    groups = [] if chosen.groups == ",".join(GROUPS) else ["--groups", chosen.groups]
    command = " ".join(["python -m benchmarks.attacks", *groups])
    load = f"{described['load_1min']:.1f} at the start, {machine.describe()['load_1min']:.1f} at the end"
    return "\n".join([
        f"# Attacks of {datetime.now(UTC):%Y-%m-%d}\n",
        f"Commit {described['commit']}, `{command}`, {took_s:.0f} s.",
        f"{WORKERS} workers behind nginx, {RATE:g} requests/s of the steady client, {described['cores']} cores of "
        f"{described['cpu']}, {files} open files. Load average {load}.\n",
        "## Attacks\n", table(rows), "",
        *(["## Promises that did not hold\n", *problems, ""] if problems else ["Every promise held.\n"]),
        "## The URL map\n", walked, "",
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
