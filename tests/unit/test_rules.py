"""The collector of errors: what is listed, what is counted and what is quoted."""

from __future__ import annotations

import numpy as np
import pytest

from tableside.decoding.rules import Problems, Rules, malformed
from tableside.errors import CellError


def unexpected_path() -> str:
    raise AssertionError("the path of an error that is not listed was built")


def test_errors_past_the_limit_are_counted_only() -> None:
    """The path of an error that is not listed is never built: a table may have millions of them."""
    problems = Problems(Rules(most_errors=1))
    assert not problems
    problems.add("a", "first")
    problems.add(unexpected_path, "second")
    assert (problems.found, problems.extra, problems.count) == ([CellError("a", "first")], 1, 2)


@pytest.mark.parametrize(("show", "message"), [(False, "too large"), (True, "too large: '" + "9" * 40 + "'")])
def test_values_are_quoted_only_if_the_rules_allow_it(show: bool, message: str) -> None:
    """A client's data is not in an error unless the operator allows it, and then at most 40 characters."""
    problems = Problems(Rules(show_values=show))
    problems.add("a", "too large", "9" * 50)
    assert problems.found[0].message == message


def test_rows_are_listed_with_their_own_values() -> None:
    """The value of a row's error is taken from that row."""
    problems = Problems(Rules(most_errors=2, show_values=True))
    problems.add_rows(lambda row: f"c[{row}]", np.array([1, 3, 4]), "bad", np.array([10, 11, 12, 13, 14]))
    assert problems.found == [CellError("c[1]", "bad: '11'"), CellError("c[3]", "bad: '13'")]
    assert problems.extra == 1


def test_rows_after_the_limit_are_counted() -> None:
    """Rows that are added to a full collector change only the count."""
    problems = Problems(Rules(most_errors=1))
    problems.add("a", "first")
    problems.add_rows(str, np.arange(5), "bad")
    assert (len(problems.found), problems.count) == (1, 6)


def test_the_refusal_has_all_listed_errors() -> None:
    """The exception has each error as data, as long as there are not more than may be listed."""
    problems = Problems(Rules(most_errors=3))
    for name in "abc":
        problems.add(name, "bad")
    refusal = problems.refusal()
    assert [error.path for error in refusal.cells] == ["a", "b", "c"]
    assert str(refusal) == "the input does not fit the model's contract: a: bad (and 2 more)"


def test_more_errors_are_grouped_by_message() -> None:
    """More errors than may be listed are one for each message: the first place, the number and the columns."""
    problems = Problems(Rules(most_errors=3))
    for column in "abcd":
        problems.column = column
        problems.add_rows(lambda row, column=column: f"{column}[{row}]", np.arange(5), "no number")
    problems.add("d[7]", "too large")
    refusal = problems.refusal()
    assert refusal.cells == (
        CellError("a[0]", "no number (20 cells of a, b, c and 1 more; this is the first)"),
        CellError("d[7]", "too large"),
    )
    assert refusal.detail.endswith("; 21 errors, those with one message listed as one")
    assert problems.count == 21


def test_a_structure_is_malformed_at_its_place() -> None:
    """The error of a structure has one place."""
    assert str(malformed("inputs", "missing")) == "the request is malformed: inputs: missing"
