"""Summarises trials: medians with their spread, and ratios, each computed within one round."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from benchmarks.contestants import BY_HAND, DIRECT, NGINX, NGINX_KEPT, PRODUCTS

Key = tuple[str, str, str, str]  # contestant, way, model, load
FIGURES = ("rate", "p50_ms", "p99_ms")


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of one figure over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        digits = 0 if self.median >= 100 else 1 if self.median >= 10 else 2
        middle = f"{self.median:,.{digits}f}"
        return middle if self.low == self.high else f"{middle} ({self.low:,.{digits}f} to {self.high:,.{digits}f})"


@dataclass(frozen=True)
class Summary:
    """All rounds of one contestant, way, model and load.

    figures: of the rounds without faults, empty when there is none. faulty: of the rounds with faults, which do not
    count. faults: kind to the largest count of a round.
    """

    rounds: int
    figures: dict[str, Spread]
    faulty: dict[str, Spread]
    faults: dict[str, int]


def measurements(trials: list[dict[str, Any]]) -> dict[Key, list[tuple[int, dict[str, Any]]]]:
    """Return the (round, measurement) pairs of each key, in the order of the trials."""
    found = defaultdict(list)
    for trial in trials:
        for measured in trial["measured"]:
            if "rate" in measured:
                key = (trial["contestant"], measured["way"], trial["model"], measured["load"])
                found[key].append((trial["round"], measured))
    return dict(found)


def summarise(trials: list[dict[str, Any]]) -> dict[Key, Summary]:
    """Return a summary for each key that was measured."""
    return {key: _summary([measured for _, measured in each]) for key, each in measurements(trials).items()}


def _summary(rounds: list[dict[str, Any]]) -> Summary:
    good = [each for each in rounds if not each["faults"]]
    bad = [each for each in rounds if each["faults"]]
    faults: dict[str, int] = {}
    for each in bad:
        for kind, count in each["faults"].items():
            faults[kind] = max(faults.get(kind, 0), count)
    return Summary(len(rounds), _spreads(good), _spreads(bad), faults)


def _spreads(rounds: list[dict[str, Any]]) -> dict[str, Spread]:
    return {name: Spread.of([each[name] for each in rounds]) for name in FIGURES} if rounds else {}


@dataclass(frozen=True)
class Ratio:
    """A ratio over the rounds and the goal it is compared with.

    what: the two sides. spread: None if no round has both sides. bar: the goal in words, 'at least' or 'at most'.
    note: remarks, such as servers left out because of faults.
    """

    what: str
    spread: Spread | None
    bar: str
    note: str = ""


STOCK = {
    "bare-pywsgi": "gunicorn's gevent_pywsgi: at least 0.55, goal 0.70",
    "bare-gevent": "gunicorn's gevent, to compare",
}
"""The constant application under gunicorn's own worker classes, as a service without Tableside would run it."""


def ratios(trials: list[dict[str, Any]], bare: str) -> list[Ratio]:
    """Return all ratios of Tableside to other contestants. bare: the one that runs Tableside's worker class."""
    found = measurements(trials)
    rows = [
        *_against_bare(found, bare, "at least 0.55, goal 0.70"),
        *(row for stock, bar in STOCK.items() if stock != bare for row in _against_bare(found, stock, bar)),
        _tail(found, "c64", "p99 / p50 at saturation, direct", "at most 5"),
        _tail(found, "half", "p99 / p50 at half load, direct", "at most 3"),
        _many_rows(found),
    ]
    models = list(dict.fromkeys(key[2] for key in found))
    for model in models:
        for way, ours in ((DIRECT, "tableside"), (NGINX, "tableside-nginx")):
            rows += _against_peers(found, (ours, way), way, model)
    return rows


def _against_bare(found: dict[Key, Any], bare: str, bar: str) -> list[Ratio]:
    """Return two ratios: without nginx, and behind nginx with kept connections on both sides."""
    direct = (("tableside", DIRECT), (bare, DIRECT))
    nginx = (("tableside-nginx", NGINX), (bare, NGINX_KEPT))
    return [
        _against(found, *direct, "logistic", bar, f"direct / {bare} direct"),
        _against(found, *nginx, "logistic", bar, f"nginx / {bare} nginx"),
    ]


def _per_round(found: dict[Key, Any], key: Key, figure: str, *, raw: bool = False) -> dict[int, float]:
    """Return the figure of each round without faults, by round. raw: also of the rounds with faults."""
    return {number: each[figure] for number, each in found.get(key, []) if raw or not each["faults"]}


def _divided(above: dict[int, float], below: dict[int, float]) -> Spread | None:
    values = [above[number] / below[number] for number in above if below.get(number)]
    return Spread.of(values) if values else None


def _against(
    found: dict[Key, Any], ours: tuple[str, str], theirs: tuple[str, str], model: str, bar: str, what: str
) -> Ratio:
    """Compare rates at 64 connections. The other side's rounds with faults count too: its rate is then higher."""
    below = (*theirs, model, "c64")
    starved = any(each["faults"] for _, each in found.get(below, []))
    spread = _divided(_per_round(found, (*ours, model, "c64"), "rate"), _per_round(found, below, "rate", raw=True))
    return Ratio(
        f"Tableside {what}",
        spread,
        bar,
        "the bare server had faults; its rate is used all the same" if starved else "",
    )


def _tail(found: dict[Key, Any], load: str, what: str, bar: str) -> Ratio:
    key = ("tableside", DIRECT, "logistic", load)
    return Ratio(what, _divided(_per_round(found, key, "p99_ms"), _per_round(found, key, "p50_ms")), bar)


def _many_rows(found: dict[Key, Any]) -> Ratio:
    rates = [
        _per_round(found, ("tableside", DIRECT, "logistic", f"{form}-1000x30"), "rate") for form in ("binary", "json")
    ]
    return Ratio("binary tensor / JSON, 1000 rows of 30, direct", _divided(rates[0], rates[1]), "at least 4")


def _against_peers(found: dict[Key, Any], ours: tuple[str, str], way: str, model: str) -> list[Ratio]:
    mine = _per_round(found, (*ours, model, "c64"), "rate")
    if model == "logistic":
        groups = [(PRODUCTS, "the best product", "at least 3"), (BY_HAND, "the best by hand", "at least 2")]
    elif model == "forest":
        groups = [(PRODUCTS, "the best product", "at least 5"), (BY_HAND, "the best by hand", "at least 25")]
    else:
        groups = [((*PRODUCTS, *BY_HAND), "the best of all", "at least 5")]
    rows = []
    for peers, who, bar in groups:
        best: dict[int, float] = {}
        dropped = []
        for peer in peers:
            key = (peer, way, model, "c64")
            if any(each["faults"] for _, each in found.get(key, [])):
                dropped.append(peer)
            for number, rate in _per_round(found, key, "rate").items():
                best[number] = max(best.get(number, 0.0), rate)
        note = f"rounds with faults left out: {', '.join(dropped)}" if dropped else ""
        rows.append(Ratio(f"{model}, {way}: Tableside / {who}", _divided(mine, best), bar, note))
    return rows
