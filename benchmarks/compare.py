"""Tableside against the bare server, services written by hand and serving products: `python -m benchmarks.compare`.

Contestants take turns within each round (A B C, A B C), one at a time, each started afresh. Writes NAME.json (every raw
number), NAME.md and two plots into --out.
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
"""The bare application under Tableside's own worker class."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    found.add_argument("--peers", default=",".join(CONTESTANTS), help="contestants, by comma (default: %(default)s)")
    found.add_argument("--models", default=",".join(models.TRAINERS), help="default: %(default)s")
    found.add_argument("--loads", default=LOADS, help="cN, openRATE, half, binary (default: %(default)s)")
    found.add_argument("--rounds", type=int, default=3)
    found.add_argument("--seconds", type=float, default=2, help="of each load (whole seconds, from 1)")
    found.add_argument("--out", type=Path, default=OUT)
    found.add_argument("--name", default="", help="of the files written (default: the date)")
    found.add_argument("--envs", type=Path, default=DEFAULT_ENVS, help="where the peers' environments are kept")
    found.add_argument("--remark", default="", help="a line for the page, such as what else ran on the machine")
    return found


def chosen(text: str, known: dict[str, Any], what: str) -> list[str]:
    """The names in `text`. Raises SystemExit for one that is not known."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise SystemExit(f"{name} is not a {what}; there are {', '.join(known)}")
    return names


def install(names: list[str], envs: Path) -> tuple[dict[str, Path], dict[str, dict[str, str]], dict[str, str]]:
    """Contestant to its bin folder; contestant to all its packages' versions; contestant to why it is not installed."""
    own = environments.versions(Path(sys.executable))
    bins: dict[str, Path] = {}
    packages: dict[str, dict[str, str]] = {}
    missing: dict[str, str] = {}
    for name in names:
        peer = CONTESTANTS[name].environment
        if peer is None:
            bins[name], packages[name] = own_bin(), own
            continue
        _say(f"environment of {name}")
        try:
            environment = environments.ensure(peer, PEERS / peer / "requirements.txt", own, envs)
        except NotInstalled as problem:
            missing[name] = str(problem)
            _say(f"{name} cannot be installed: {problem}")
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
    """Add every trial, with its round, to `trials`; a progress line a step."""
    turns = [(model, CONTESTANTS[name]) for model in trained for name in names if name in bins]
    turns = [(model, each) for model, each in turns if each.models is None or model.name in each.models]
    began, total = time.monotonic(), count * len(turns)
    for number in range(1, count + 1):
        for model, contestant in turns:
            step = f"[{len(trials) + 1}/{total}, {(time.monotonic() - began) / 60:.0f} min] round {number} {model.name}"
            trial = _one(step, contestant, bins[contestant.name], model, plan)
            trials.append({"round": number, **asdict(trial)})


def _one(step: str, contestant: Contestant, bin_folder: Path, model: models.Model, plan: Plan) -> Trial:
    _say(f"{step} {contestant.name}: start")
    trial = run(contestant, bin_folder, model, plan, lambda load: _say(f"{step} {contestant.name}: {load}"))
    rates = [f"{each['way']} {each['rate']:,.0f}/s" for each in trial.measured if each["load"] == "c64"]
    _say(f"{step} {contestant.name}: {trial.failure or 'c64 ' + ', '.join(rates)}")
    return trial


def write(results: dict[str, Any], out: Path, envs: Path) -> None:
    """The JSON file, the page and, when matplotlib can be installed, the plots."""
    out.mkdir(parents=True, exist_ok=True)
    source = out / f"{results['stem']}.json"
    source.write_text(json.dumps(results, indent=1) + "\n")
    source.with_suffix(".md").write_text(report.page(results))
    try:
        python = environments.ensure("plots", PROJECT / "requirements" / "bench.txt", {}, envs).bin / "python"
        subprocess.run([str(python), str(PROJECT / "benchmarks" / "plots.py"), str(source)], check=True)
    except (NotInstalled, subprocess.CalledProcessError) as problem:
        _say(f"no plots: {problem}")
    _say(f"written: {source.with_suffix('.md')}")


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Install, train, compare, write."""
    options = parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that what was started is stopped, too
    names = chosen(options.peers, CONTESTANTS, "contestant")
    model_names = chosen(options.models, models.TRAINERS, "model")
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not there; please install it (Debian, Ubuntu: sudo apt-get install wrk)")
    described = machine.describe()
    bins, packages, missing = install(names, options.envs)
    folder = Path(tempfile.mkdtemp(prefix="tsbench-"))
    try:
        _say(f"training {', '.join(model_names)}")
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
