"""CSV: which line is a header, and that no row is ever lost."""

from __future__ import annotations

import pytest

from tableside.contract.schema import Column, Input
from tableside.decoding.csv_tables import Header, from_csv
from tableside.decoding.rules import STRICT
from tableside.errors import RequestRejected, TooLarge

DIGITS = Input("frame", tuple(Column(name, "FP64", "float64") for name in ("0", "1")))
WORDS = Input("frame", tuple(Column(name, "BYTES", "object") for name in ("note", "title")))
MIXED = Input("frame", (Column("1", "FP64", "float64"), Column("note", "BYTES", "object")))
NOTE = Input("texts", (Column("note", "BYTES", "object", nullable=True),))


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (DIGITS, "1,0\n0,0\n1,1\n"),
        (DIGITS, "0,1\n1,1\n"),
        (WORDS, "title,note\nxx,yy\n"),
        (WORDS, "note,other\nxx,yy\n"),
        (MIXED, "1,note\n2,x\n"),
        (NOTE, "note\nhello\n"),
    ],
)
def test_a_first_line_that_could_be_a_row_is_never_dropped(schema: Input, text: str) -> None:
    """It is refused, with how to say what it is; said, it is what was said."""
    with pytest.raises(RequestRejected, match="could be a header or a row"):
        from_csv(text.encode(), schema, STRICT)
    lines = len(text.splitlines())
    said: tuple[tuple[Header, int], ...] = (("present", lines - 1), ("absent", lines))
    for header, rows in said:
        if header == "present" and "other" in text:
            continue
        assert from_csv(text.encode(), schema, STRICT, header).rows == rows


@pytest.mark.parametrize(
    ("schema", "text", "rows"),
    [
        (WORDS, "note,title\nxx,yy\n", 1),
        (WORDS, "xx,yy\nzz,zz", 2),
        (DIGITS, "1.5,0\n", 1),
        (DIGITS, "\n\n1,2.5\n\n3,4\n", 2),
        (NOTE, "\nhello\n\n", 3),
        (WORDS, '"a\nb",c\nd,"e ""f"""\n', 2),
    ],
)
def test_rows_are_counted(schema: Input, text: str, rows: int) -> None:
    """As many rows as the text has, whatever is quoted; blank lines count where there is one column."""
    assert from_csv(text.encode(), schema, STRICT).rows == rows


@pytest.mark.parametrize("text", ['a,"b\nc,d\ne,f\n', 'a,b\nc,"d', 'a,"b"c\nd,e\n'])
def test_an_open_quote_swallows_no_rows(text: str) -> None:
    """A quote that is not closed, or is followed by text, is refused."""
    with pytest.raises(RequestRejected, match="a quote is not closed, or text follows it"):
        from_csv(text.encode(), WORDS, STRICT, "absent")


def test_cells_are_bounded() -> None:
    """Lines of nothing are two bytes each, and cells of eight."""
    with pytest.raises(TooLarge):
        from_csv(b",\n" * 10_000, DIGITS, STRICT, "absent", limit_bytes=100_000)
