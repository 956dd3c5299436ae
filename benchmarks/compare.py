"""Compares Tableside with a bare WSGI server, hand-written services and serving products.

`python -m benchmarks.compare` starts one contestant at a time, all of them once per round (A B C, A B C), and writes
NAME.json (every raw number), NAME.md and two plots into the folder --out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import environments, machine, models, report
from benchmarks.contestants import CONTESTANTS, PROJECT, Contestant, own_bin
from benchmarks.environments import DEFAULT_ENVS, PEERS, NotInstalled
from benchmarks.trial import Plan, Trial, run

OUT = PROJECT / "benchmarks" / "results"
LOADS = "c1,c64,open200,half,binary"
OUR_BARE = "bare-tableside"
"""Name of the contestant that runs the constant application under Tableside's worker class."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    found.add_argument(
        "--peers", default=",".join(CONTESTANTS), help="contestants, separated by commas (default: %(default)s)"
    )
    found.add_argument("--models", default=",".join(models.TRAINERS), help="default: %(default)s")
    found.add_argument("--loads", default=LOADS, help="cN, openRATE, half, binary (default: %(default)s)")
    found.add_argument("--rounds", type=int, default=3)
    found.add_argument("--seconds", type=float, default=2, help="duration of each load, in whole seconds, at least 1")
    found.add_argument("--out", type=Path, default=OUT)
    found.add_argument("--name", default="", help="name of the files to write (default: the date)")
    found.add_argument("--envs", type=Path, default=DEFAULT_ENVS, help="folder for the environments of the contestants")
    found.add_argument("--remark", default="", help="a line for the page, for example what else ran on the machine")
    return found


def chosen(text: str, known: dict[str, Any], what: str) -> list[str]:
    """Return the comma-separated names in `text`. Raises SystemExit for a name that is not in `known`."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise SystemExit(f"{name!r} is not a {what}; choose from: {', '.join(known)}")
    return names


def install(names: list[str], envs: Path) -> tuple[dict[str, Path], dict[str, dict[str, str]], dict[str, str]]:
    """Install the contestants' environments. Return three mappings by contestant.

    The first holds its bin folder, the second the versions of its packages, the third the reason if it could not be
    installed.
    """
    own = environments.versions(Path(sys.executable))
    bins: dict[str, Path] = {}
    packages: dict[str, dict[str, str]] = {}
    missing: dict[str, str] = {}
    for name in names:
        peer = CONTESTANTS[name].environment
        if peer is None:
            bins[name], packages[name] = own_bin(), own
            continue
        _print_progress(f"environment of {name}")
        try:
            environment = environments.ensure(peer, PEERS / peer / "requirements.txt", own, envs)
        except NotInstalled as problem:
            missing[name] = str(problem)
            _print_progress(f"{name} cannot be installed: {problem}")
            continue
        bins[name], packages[name] = environment.bin, environment.versions
    return bins, packages, missing


def rounds(
    trials: list[dict[str, Any]],
    names: list[str],
    trained: list[models.Model],
    bins: dict[str, Path],
    plan: Plan,
    count: int,
) -> None:
    """Run every trial of every round and append each to `trials`. Print one progress line per step."""
    turns = [(model, CONTESTANTS[name]) for model in trained for name in names if name in bins]
    turns = [(model, each) for model, each in turns if each.models is None or model.name in each.models]
    began, total = time.monotonic(), count * len(turns)
    for number in range(1, count + 1):
        for model, contestant in turns:
            step = f"[{len(trials) + 1}/{total}, {(time.monotonic() - began) / 60:.0f} min] round {number} {model.name}"
            trial = _one(step, contestant, bins[contestant.name], model, plan)
            trials.append({"round": number, **asdict(trial)})


def _one(step: str, contestant: Contestant, bin_folder: Path, model: models.Model, plan: Plan) -> Trial:
    _print_progress(f"{step} {contestant.name}: start")
    trial = run(contestant, bin_folder, model, plan, lambda load: _print_progress(f"{step} {contestant.name}: {load}"))
    rates = [f"{each['way']} {each['rate']:,.0f}/s" for each in trial.measured if each["load"] == "c64"]
    _print_progress(f"{step} {contestant.name}: {trial.failure or 'c64 ' + ', '.join(rates)}")
    return trial


def write(results: dict[str, Any], out: Path, envs: Path) -> None:
    """Write the JSON file, the page and, if matplotlib can be installed, the plots."""
    out.mkdir(parents=True, exist_ok=True)
    source = out / f"{results['stem']}.json"
    source.write_text(json.dumps(results, indent=1) + "\n")
    source.with_suffix(".md").write_text(report.page(results))
    try:
        python = environments.ensure("plots", PROJECT / "requirements" / "bench.txt", {}, envs).bin / "python"
        subprocess.run([str(python), str(PROJECT / "benchmarks" / "plots.py"), str(source)], check=True)
    except (NotInstalled, subprocess.CalledProcessError) as problem:
        _print_progress(f"no plots: {problem}")
    _print_progress(f"written: {source.with_suffix('.md')}")


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def _print_progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Install the contestants, train the models, run the comparison and write the results."""
    options = parser().parse_args()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM")
    )  # so that the `finally` blocks stop the servers
    names = chosen(options.peers, CONTESTANTS, "contestant")
    model_names = chosen(options.models, models.TRAINERS, "model")
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed; install it (Debian, Ubuntu: sudo apt-get install wrk)")
    described = machine.describe()
    bins, packages, missing = install(names, options.envs)
    folder = Path(tempfile.mkdtemp(prefix="tsbench-"))
    try:
        _print_progress(f"training {', '.join(model_names)}")
        trained = models.train(folder, model_names)
        plan = Plan(options.seconds, tuple(options.loads.split(",")))
        now = datetime.now(UTC)
        results = {
            "date": now.strftime("%Y-%m-%d %H:%M UTC"),
            "stem": options.name or now.strftime("%Y-%m-%d"),
            "commit": _commit(),
            "machine": described,
            "remark": options.remark,
            "plan": {"rounds": options.rounds, "models": model_names, "rows": models.ASKED_ROWS, **asdict(plan)},
            "packages": packages,
            "bare": OUR_BARE,
            "not_installed": missing,
            "trials": [],
        }
        try:
            rounds(results["trials"], names, trained, bins, plan, options.rounds)
        except (KeyboardInterrupt, SystemExit):
            results["remark"] = f"{options.remark} (ended early)".strip()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    write(results, options.out, options.envs)


if __name__ == "__main__":
    main()
