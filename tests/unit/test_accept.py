"""Which media type an answer has, by the Accept header."""

from __future__ import annotations

import pytest

from tableside.errors import NotAcceptable
from tableside.web.accept import DEFAULT, Choice, choose

OFFERED = ("application/json", "text/csv", "application/jsonlines", "application/x-npy")
JSON, CSV, LINES, NPY = OFFERED


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", JSON), ("*/*", JSON), (JSON, JSON), ("application/json; charset=utf-8", JSON), ("*", JSON), (",", JSON),
        ("application/json;q=0.1, text/csv;q=0.9", CSV), ("text/csv;q=.9,application/json;q=0.1", CSV),
        ("application/json;q=0.9, text/csv", CSV), ("text/csv, application/json", JSON), ("text/*", CSV),
        ("application/*", JSON), ("application/*;q=0.5, text/csv;q=0.4", JSON), ("text/csv, */*", CSV),
        ("*/*, application/x-npy", NPY), ("application/x-npy, */*;q=0.8", NPY), ("APPLICATION/JSONLINES", LINES),
        ("application/json;q=0, */*", CSV), ("application/json;q=0, application/*", LINES), ("*/*;q=0.1", JSON),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", JSON), ("application/json, text/plain, */*", JSON),
        ("text/csv;q=high", CSV), ("text/csv; q=5, application/json", JSON), ("application/*+json, text/plain", JSON),
        ("application/problem+json", JSON), ("application/problem+json, text/csv;q=0.9", CSV),
        ("text/html;q=1.0, text/csv;q=0.001", CSV), ('text/csv; a="x,y;q=0"', CSV),
        ("x/y, " * 200 + "text/csv", CSV),
    ],
)  # fmt: skip
def test_the_best_type_is_chosen(accept: str, kind: str) -> None:
    """By quality, then by how exactly it is named, then by the order of what is offered."""
    assert choose(accept, OFFERED).kind == kind


@pytest.mark.parametrize("accept", ["text/html", "image/*", "text/csvx", "application/json;q=0", "*/*;q=0", "*/csv"])
def test_without_a_type_that_is_accepted(accept: str) -> None:
    """The error lists what there is. The second time it comes from no cache."""
    for _ in range(2):
        with pytest.raises(NotAcceptable, match="there are application/json, text/csv, application/jsonlines, "):
            choose(accept, OFFERED)


def test_parameters_of_csv() -> None:
    """A charset is in the answer where it is asked for, and it is UTF-8 or none. The header line is as it is asked."""
    assert choose("text/csv", OFFERED) == Choice(CSV)
    assert choose("text/csv; charset=UTF-8", OFFERED) == Choice(CSV, charset=True)
    assert choose("text/csv; header=present", OFFERED) == Choice(CSV, header=True)
    assert choose("text/csv; header=absent", OFFERED) == Choice(CSV, header=False)
    assert choose("text/csv; charset=latin-1, application/x-npy;q=0.1", OFFERED) == Choice(NPY)
    with pytest.raises(NotAcceptable):
        choose("text/csv; charset=latin-1", OFFERED)


def test_what_nearly_all_clients_send_is_not_parsed() -> None:
    """The same object each time, which callers compare by identity."""
    assert all(choose(accept, OFFERED) is DEFAULT for accept in ("", "*/*", JSON))
