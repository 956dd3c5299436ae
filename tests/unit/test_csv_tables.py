"""CSV: which line is a header, how cells are read, and that no row is lost."""

from __future__ import annotations

from typing import Any

import pytest

from tableside.contracts.schema import Column, Input
from tableside.decoding.csv_tables import Header, from_csv
from tableside.decoding.rules import STRICT, Rules
from tableside.errors import RequestRejected, TooLarge

DIGITS = Input("frame", tuple(Column(name, "FP64", "float64") for name in ("0", "1")))
WORDS = Input("frame", tuple(Column(name, "BYTES", "object") for name in ("note", "title")))
MIXED = Input("frame", (Column("1", "FP64", "float64"), Column("note", "BYTES", "object")))
NOTE = Input("texts", (Column("note", "BYTES", "object", nullable=True),))


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (DIGITS, "1,0\n0,0\n1,1\n"),
        (WORDS, "title,note\nxx,yy\n"),
        (WORDS, "note,other\nxx,yy\n"),
        (NOTE, "note\nhello\n"),
    ],
)
def test_a_first_line_that_could_be_a_row_is_never_dropped(schema: Input, text: str) -> None:
    """A line that could be a header or a row is refused, unless the Content-Type states which it is."""
    with pytest.raises(RequestRejected, match="could be a header or a row"):
        from_csv(text.encode(), schema, STRICT)
    lines = len(text.splitlines())
    stated: tuple[tuple[Header, int], ...] = (("present", lines - 1), ("absent", lines))
    for header, rows in stated:
        if header == "present" and "other" in text:
            continue
        assert from_csv(text.encode(), schema, STRICT, header).rows == rows


@pytest.mark.parametrize(
    ("schema", "text", "rows"),
    [
        (WORDS, "note,title\nxx,yy\n", 1),
        (DIGITS, "0,1\n1,1\n", 1),
        (MIXED, "1,note\n2,x\n", 1),
        (WORDS, "xx,yy\nzz,zz", 2),
        (DIGITS, "1.5,0\n", 1),
        (DIGITS, "\n\n1,2.5\n\n3,4\n", 2),
        (NOTE, "\nhello\n\n", 3),
        (WORDS, '"a\nb",c\nd,"e ""f"""\n', 2),
    ],
)
def test_rows_are_counted(schema: Input, text: str, rows: int) -> None:
    """Quoted line breaks are no rows. A blank line is a row only in a table of one column."""
    assert from_csv(text.encode(), schema, STRICT).rows == rows


@pytest.mark.parametrize("text", ['a,"b\nc,d\ne,f\n', 'a,b\nc,"d', 'a,"b"c\nd,e\n'])
def test_an_open_quote_swallows_no_rows(text: str) -> None:
    """A quote that is not closed, or is followed by text, is refused, so that it takes no rows with it."""
    with pytest.raises(RequestRejected, match="a quote is not closed, or text follows it"):
        from_csv(text.encode(), WORDS, STRICT, "absent")


def test_cells_are_bounded() -> None:
    """The memory of the cells is limited: a line with two empty cells is two bytes of CSV and 16 of a table."""
    with pytest.raises(TooLarge):
        from_csv(b",\n" * 10_000, DIGITS, STRICT, "absent", limit_bytes=100_000)


@pytest.mark.parametrize(
    ("body", "path", "message"),
    [
        (b"a\nb\xff\n", "line 2", "not UTF-8"),
        (b"x,y,z\n1,2,3\n", "line 1", "neither the names (0, 1) nor a row of their values"),
        (b"1.5,2,3\n", "line 1", "expected the names or 2 values (0, 1), got 3 fields"),
        (b"1.5,2\n3\n", "rows[1]", "expected 2 values, got 1"),
        (b"1.5,2\n3,4\n5,6,7\n", "rows[2]", "expected 2 values, got 3"),
        (b"1.5,x\n", "rows[0].1", "expected a number, got a string"),
        (b"1.5,2\n1e400,2\n", "rows[1].0", "too large for a number of float64"),
        (b"1.5,2\n3," + b"9" * 401 + b"\n", "rows[1].1", "too large for a number of float64"),
        (b"1.5,2\n,2\n", "rows[1].0", "expected a number, got null"),
        (b"1.5,2\nNaN,2\n", "rows[1].0", "expected a number, got null"),
        (b"1.5,2\ninf,2\n", "rows[1].0", "expected a number, got a string"),
        (b"," * 100_001 + b"\n", "line 1", "more than 100000 fields"),
    ],
)
def test_a_bad_line_or_cell_is_named(body: bytes, path: str, message: str) -> None:
    """The error has the line or the row and column, and what was expected there."""
    with pytest.raises(RequestRejected) as refused:
        from_csv(body, DIGITS, STRICT)
    (error, *_) = refused.value.cells
    assert (error.path, error.message) == (path, message)


@pytest.mark.parametrize(
    ("line", "rules", "path", "message"),
    [
        ("note,other", STRICT, "columns[1]", "no such column; expected note, title"),
        ("note,title,note", STRICT, "columns[2]", "note is given twice"),
        ("note,title,x,x", Rules(extra="ignore"), "columns[3]", "this name is given twice"),
    ],
)
def test_a_bad_header_is_named(line: str, rules: Rules, path: str, message: str) -> None:
    """A name that is unknown or repeated is refused by its position in the header."""
    row = ",".join("x" * len(line.split(",")))
    with pytest.raises(RequestRejected) as refused:
        from_csv(f"{line}\n{row}\n".encode(), WORDS, rules, "present")
    assert [(error.path, error.message) for error in refused.value.cells] == [(path, message)]


def test_lenient_rules_read_the_first_of_repeated_columns() -> None:
    """With rules that ignore them, unknown columns are left out and the first column of a name is read."""
    rules = Rules(extra="ignore", duplicate="ignore")
    frame = from_csv(b"title,x,note,note\na,b,c,d\n", WORDS, rules, "present").to_input()
    assert frame.iloc[0].to_dict() == {"note": "c", "title": "a"}


@pytest.mark.parametrize(
    ("datatype", "dtype", "text", "value"),
    [
        ("INT64", "int64", "9223372036854775807", 2**63 - 1), ("INT64", "int64", "+5", 5), ("INT64", "int64", "2.0", 2),
        ("FP64", "float64", " .5 ", 0.5), ("FP64", "float64", "-1E-3", -0.001), ("BOOL", "bool", "TRUE", True),
        ("BOOL", "bool", "1", True), ("BOOL", "bool", " 0.0", False),
        ("BOOL", "bool", "false", False), ("BYTES", "object", " a ", " a "), ("BYTES", "object", "1", "1"),
    ],
)  # fmt: skip
def test_a_cell_has_the_value_of_its_datatype(datatype: Any, dtype: str, text: str, value: object) -> None:
    """Spaces around numbers and booleans are ignored, and text is kept as it is."""
    schema = Input("frame", (Column("a", datatype, dtype), Column("b", "FP64", "float64")))
    cell = from_csv(f"{text},1\n".encode(), schema, STRICT, "absent").to_input()["a"].tolist()[0]
    assert (cell, type(cell)) == (value, type(value))


@pytest.mark.parametrize("text", ["0x1F", "1_000", "1,5", "١", "1e5x", "truee"])
def test_what_python_or_pyarrow_would_accept_is_no_number(text: str) -> None:
    """Hexadecimal numbers, underscores, other digits and decimal commas are refused."""
    schema = Input("frame", (Column("a", "INT64", "int64"), Column("b", "FP64", "float64")))
    for body in (f'"{text}",1\n', f'1,"{text}"\n'):
        with pytest.raises(RequestRejected, match="got a string"):
            from_csv(body.encode(), schema, STRICT, "absent")


@pytest.mark.parametrize("body", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_body_is_refused(body: bytes) -> None:
    """A body without a line is refused; a byte order mark is no line."""
    with pytest.raises(RequestRejected, match="the body is empty; CSV was expected"):
        from_csv(body, DIGITS, STRICT)
