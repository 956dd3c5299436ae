"""Writes the Markdown page of one comparison."""

from __future__ import annotations

from typing import Any

from benchmarks.contestants import BY_HAND, CONTESTANTS, PRODUCTS
from benchmarks.models import DESCRIPTIONS
from benchmarks.results import Key, Ratio, Spread, Summary, ratios, summarise

LOADS = {
    "c1": "closed loop, 1 connection",
    "c64": "closed loop, 64 connections",
    "half": "open loop at half of the contestant's own rate at 64 connections",
}
_SHOWN = ("flask", "gunicorn", "gevent", "scikit-learn", "numpy", "pandas")
PEER_NAMES = (*BY_HAND, *PRODUCTS)
_LIMITS = """\
- Load generator, servers and harness share the machine's cores. Rates are therefore lower than with a client on another
  machine, and the client takes a larger share of the time of a fast server than of a slow one.
- Closed loop: wrk with kept connections and {rows} bodies of one row in rotation. A round does not count as a rate if
  it has errors, answers later than 2 s, or a starved connection: one that got less than a tenth of the mean number of
  answers, counted in a further run with one thread per connection, after the time that an event loop needs to accept
  all of them. Such a round is struck through and shown with its faults.
- Open loop: a client of one thread on epoll that measures from the moment a request was due. It uses 20 to 40 us of
  a core per request. How late it sent (99th percentile) is `late_p99_ms` in the JSON file and part of the latency.
- PSS: of all processes of the server after the load, divided by its 2 workers, with one model loaded. For Tableside it
  includes supervisord and nginx; for others it excludes the harness's nginx. Start-up: from the command to the first
  prediction that is answered with 200.
- Each cell is the median of the rounds (smallest to largest). Each round runs every contestant once. Ratios are
  computed within a round first.
"""


def page(results: dict[str, Any]) -> str:
    """Return the page for `results`, the content of the JSON file that `benchmarks.compare` writes."""
    trials, summaries = results["trials"], summarise(results["trials"])
    parts = [
        f"# Comparison of {results['date']}\n",
        _machine(results),
        "## Ratios\n",
        _ratios(ratios(trials, results["bare"])),
    ]
    for model in results["plan"]["models"]:
        parts.append(f"## {model}: {DESCRIPTIONS[model]}\n")
        for load in _loads(summaries, model):
            parts.append(f"### {LOADS.get(load, _other(load))}\n\n{_table(summaries, model, load)}")
    parts += ["## Start-up and memory\n", _starts(trials), _failures(results)]
    parts += ["## How it was measured\n", _LIMITS.format(rows=results["plan"]["rows"])]
    parts += [f"![requests a second at 64 connections]({results['stem']}-rates.svg)\n"]
    parts += [f"![latency at 64 connections]({results['stem']}-latency.svg)\n"]
    return "\n".join(parts)


def _machine(results: dict[str, Any]) -> str:
    machine, plan = results["machine"], results["plan"]
    shared = f"; the load average at the start was {machine['load_1min']:.1f}"
    lines = [
        f"- {machine['cores']} cores of {machine['cpu']}{' (virtual)' if machine['virtualised'] else ''}, "
        f"{machine['memory_gb']} GB, {machine['distribution']}, {machine['kernel']}{shared}",
        f"- Python {machine['python']}, {machine['nginx']}, {machine['wrk']}; Tableside at commit {results['commit']}",
        f"- {_count(plan['rounds'], 'round')}, {plan['seconds']:g} s a load, 2 workers each, contestants in turn",
        f"- {results['remark']}" if results["remark"] else "",
        f"- {_versions(results['packages'])}",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _versions(packages: dict[str, dict[str, str]]) -> str:
    shown = {
        "tableside": _SHOWN,
        **{name: (name, "uvicorn", "scikit-learn") for name in packages if name in PEER_NAMES},
    }
    found = {
        name: [f"{package} {packages[name][package]}" for package in shown[name] if package in packages[name]]
        for name in shown
        if name in packages
    }
    return "; ".join(f"{name}: {', '.join(each)}" for name, each in found.items())


def _other(load: str) -> str:
    return f"open loop, {load[4:]} requests/s" if load.startswith("open") else f"{load}, closed loop, 4 connections"


def _loads(summaries: dict[Key, Summary], model: str) -> list[str]:
    return list(dict.fromkeys(key[3] for key in summaries if key[2] == model))


def _table(summaries: dict[Key, Summary], model: str, load: str) -> str:
    lines = ["| server | way | requests/s | p50 ms | p99 ms | rounds, faults |", "|---|---|---|---|---|---|"]
    for name in CONTESTANTS:
        for (contestant, way, of_model, of_load), summary in summaries.items():
            if (contestant, of_model, of_load) == (name, model, load):
                lines.append(f"| {name} | {way} | {_cells(summary)} |")
    return "\n".join(lines) + "\n"


def _cells(summary: Summary) -> str:
    figures = [_cell(summary, figure) for figure in ("rate", "p50_ms", "p99_ms")]
    return " | ".join([*figures, _faults(summary)])


def _cell(summary: Summary, figure: str) -> str:
    if summary.figures:
        return str(summary.figures[figure])
    return f"~~{summary.faulty[figure]}~~"


def _faults(summary: Summary) -> str:
    if not summary.faults:
        return f"{summary.rounds}"
    kinds = ", ".join(f"{count} {kind}" for kind, count in summary.faults.items())
    good = "none" if not summary.figures else "some"
    return f"{summary.rounds}, {good} without faults; at most {kinds}"


def _ratios(rows: list[Ratio]) -> str:
    lines = ["| what | measured | bar | note |", "|---|---|---|---|"]
    for row in rows:
        measured = str(row.spread) if row.spread else "no figure: one side has no round without faults, or did not run"
        lines.append(f"| {row.what} | {measured} | {row.bar} | {row.note} |")
    return "\n".join(lines) + "\n"


def _starts(trials: list[dict[str, Any]]) -> str:
    lines = ["| server | model | start-up s | PSS MB a worker | processes |", "|---|---|---|---|---|"]
    keys = dict.fromkeys((trial["contestant"], trial["model"]) for trial in trials)
    for name, model in sorted(keys, key=lambda key: (list(CONTESTANTS).index(key[0]), key[1])):
        of = [each for each in trials if (each["contestant"], each["model"]) == (name, model) and not each["failure"]]
        if of:
            start, memory = (
                Spread.of([each["startup_s"] for each in of]),
                Spread.of([each["pss_mb"] / 2 for each in of]),
            )
            lines.append(f"| {name} | {model} | {start} | {memory} | {of[0]['processes']} |")
    return "\n".join(lines) + "\n"


def _failures(results: dict[str, Any]) -> str:
    found = [f"- {name}: not installed: {why}" for name, why in results["not_installed"].items()]
    for trial in results["trials"]:
        if trial["failure"]:
            found.append(f"- {trial['contestant']}, {trial['model']}, round {trial['round']}: {trial['failure']}")
    return "## What did not run\n\n" + ("\n".join(found) if found else "Nothing: every contestant ran.") + "\n"
