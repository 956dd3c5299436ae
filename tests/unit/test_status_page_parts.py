"""Words, plots and changes of the status page."""

from __future__ import annotations

from typing import Any

import pytest

from tableside import durations
from tableside.blueprints.admin import page_words
from tableside.blueprints.admin.page_audit import changes
from tableside.blueprints.admin.page_query import PageQuery
from tableside.blueprints.admin.plot import plot


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.001, "<0.01"), (0.254, "0.25"), (0.999, "1"), (3.21, "3.2"), (9.99, "10"), (12.6, "13"),
        (12345.6, "12 346"),
    ],
)  # fmt: skip
def test_numbers(value: float, text: str) -> None:
    """Two or three digits say enough."""
    assert page_words.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (0.4, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (90061, "1 d 1 h")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    """The two largest units."""
    assert durations.in_words(seconds) == text


def test_other_words() -> None:
    """Times, shares and memory; what was not counted is `none`, not 0."""
    assert page_words.milliseconds(None) == page_words.share(0, 0) == "none"
    assert (page_words.milliseconds(0.0123), page_words.milliseconds(12.0)) == ("12 ms", "12 s")
    assert (page_words.share(1, 400), page_words.share(3, 4)) == ("0.25 %", "75 %")
    assert page_words.rate(30, 6) == "0.5/s"


def test_a_plot_has_its_highest_rate_at_the_top() -> None:
    """Zero at the bottom, the last one at the right, and a text."""
    made = plot([0.0, 5.0, 2.5], "Requests", 10, width=100, height=24)
    assert made.line == "0.0,22.0 50.0,2.0 100.0,12.0"
    assert made.area == "0,24 0.0,22.0 50.0,2.0 100.0,12.0 100,24"
    assert (made.top, made.text) == ("5.0/s", "The last 0 minutes: at most 5.0 per second, now 2.5.")


@pytest.mark.parametrize("rates", [[], [0.0], [0.0] * 90, [3.0]])
def test_plots_without_rates(rates: list[float]) -> None:
    """No division by zero; a flat line."""
    made = plot(rates, "Requests", 10)
    assert "nan" not in made.line
    assert len(made.line.split()) == len(rates)
    assert ("No request" in made.text) == (not any(rates))


def line(state: str, request_id: str = "1", **more: Any) -> dict[str, Any]:
    when = {"time": "2026-11-27T10:20:30.5+00:00", "event": "promote", "model": "iris", "key": "anna"}
    return {**when, "state": state, "request_id": request_id, **more}


def test_a_change_is_shown_once_with_its_end() -> None:
    """The newest first; one without an end says so."""
    found = changes(
        [
            line("begun", before="1"), line("done", before="1", after="2"), line("begun", "2"),
            line("failed", "2", reason="no such version"), line("begun", "3"),
        ]
    )  # fmt: skip
    assert [(each.outcome, each.kind) for each in found] == [
        ("begun, no end recorded", "busy"), ("failed", "bad"), ("done", "good"),
    ]  # fmt: skip
    assert [each.details for each in found] == ["", "no such version", "1 → 2"]
    assert {(each.time, each.who, each.what) for each in found} == {("2026-11-27 10:20:30", "anna", "promote iris")}


def test_the_same_change_twice_is_two_changes() -> None:
    """Commands on the host have no request id: lines that look alike belong together in their order."""
    command = {"time": "t", "event": "keys_add", "name": "x", "who": "root"}
    found = changes([{**command, "state": state} for state in ("begun", "done", "begun", "done", "begun")])
    assert [each.outcome for each in found] == ["begun, no end recorded", "done", "done"]


def test_sign_ins_are_no_changes() -> None:
    """They would fill the list."""
    assert (
        changes([{**line(state), "event": event} for event in ("sign_in", "sign_out") for state in ("begun", "done")])
        == []
    )


def test_lines_of_another_form_are_shown_as_far_as_possible() -> None:
    """A line from another release must not break the page."""
    (found,) = changes([{"state": "odd", "version": 2, "model": "iris"}])
    assert (found.who, found.what, found.outcome) == ("not known", "iris/2", "odd")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "?"), ({"q": " a b& "}, "?q=a+b%26"), ({"show": "problems", "page": "3"}, "?show=problems&page=3"),
        ({"page": "-2", "refresh": "7", "show": "x"}, "?"), ({"refresh": "60", "page": "9" * 20}, "?refresh=60"),
        ({"q": "x" * 200}, f"?q={'x' * 100}"), ({"page": "٣"}, "?"),
    ],
)  # fmt: skip
def test_queries(given: dict[str, str], url: str) -> None:
    """What makes no sense counts as none; the URL of the page says the same again."""
    assert PageQuery.of(given).url() == url
