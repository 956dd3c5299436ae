"""Which differences between two versions break clients is decided in one place, for each kind of difference."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tableside.contracts.schema import Artifact, Column, Contract, Golden, Input, Output
from tableside.repository import compatibility
from tableside.repository.model_toml import ColumnConfig

AGE = Column("age", "FP64", "float64")
ROOMS = Column("rooms", "INT64", "int64", nullable=True)
SHADE = Column("shade", "BYTES", "object", categories=("dark", "pale"), closed=True)
BORN = Column("born", "BYTES", "datetime64[us]")
PREDICT = Output("predict", "BYTES", 1, True)
PROBABILITY = Output("predict_proba", "FP64", 2, False, ("a", "b"))
ORDER = (
    "the columns have another order: 'age' came before 'rooms'. Rows that are sent without names would be read into "
    "other columns"
)
LENIENT = ColumnConfig(missing="fill", extra="ignore")


def contract(
    columns: tuple[Column, ...] = (AGE, ROOMS, SHADE, BORN), outputs: tuple[Output, ...] = (PREDICT, PROBABILITY),
    form: Any = "frame", kind: Any = "classifier",
) -> Contract:  # fmt: skip
    return Contract(
        format=1, name="m", version=1, created_at="", kind=kind, estimator="E", input=Input(form, columns),
        outputs=outputs, golden=Golden((), {}), artifact=Artifact("model.skops", "", 1), environment={},
    )  # fmt: skip


def but(part: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(part, **changes)


def found(old: Contract, new: Contract, rules: ColumnConfig = ColumnConfig()) -> list[tuple[bool, str]]:  # noqa: B008
    return [(each.breaking, each.text) for each in compatibility.compare(old, new, rules)]


OLD = contract()
RENT = Column("rent", "FP32", "float32", nullable=True)
ARRAY = (AGE, but(ROOMS, nullable=False))

CASES: list[tuple[str, Contract, Contract, list[tuple[bool, str]]]] = [
    ("equal", OLD, contract(), []),
    ("seen range", OLD, contract((but(AGE, minimum=1.0), ROOMS, SHADE, BORN)), []),
    ("gone", OLD, contract((AGE, SHADE, BORN)), [(True, "column 'rooms' is gone")]),
    (
        "new",
        OLD,
        contract((AGE, ROOMS, SHADE, BORN, RENT)),
        [(True, "column 'rent' (a number of 32 bits) is new, and requests must send it")],
    ),
    (
        "renamed",
        OLD,
        contract((but(AGE, name="years"), ROOMS, SHADE, BORN)),
        [(True, "column 'age' is called 'years' now")],
    ),
    (
        "renamed and another type",
        OLD,
        contract((but(AGE, name="years", datatype="BYTES", dtype="object"), ROOMS, SHADE, BORN)),
        [(True, "column 'age' is gone"), (True, "column 'years' (text) is new, and requests must send it")],
    ),
    ("form", contract(ARRAY), contract(ARRAY, form="matrix"), []),
    (
        "order",
        OLD,
        contract((ROOMS, AGE, SHADE, BORN)),
        [(True, ORDER)],
    ),
    (
        "number to text",
        OLD,
        contract((but(AGE, datatype="BYTES", dtype="object"), ROOMS, SHADE, BORN)),
        [(True, "column 'age' was a number and is text")],
    ),
    (
        "fractions refused",
        OLD,
        contract((but(AGE, datatype="INT64", dtype="int64"), ROOMS, SHADE, BORN)),
        [(True, "column 'age' was a number and is a whole number")],
    ),
    (
        "wider number",
        OLD,
        contract((AGE, but(ROOMS, datatype="FP64", dtype="float64"), SHADE, BORN)),
        [(False, "column 'rooms' was a whole number and is a number")],
    ),
    (
        "boolean",
        OLD,
        contract((AGE, but(ROOMS, datatype="BOOL", dtype="object"), SHADE, BORN)),
        [(True, "column 'rooms' was a whole number and is a boolean")],
    ),
    (
        "narrower integer",
        OLD,
        contract((AGE, but(ROOMS, dtype="int8"), SHADE, BORN)),
        [(True, "column 'rooms' was int64 and is int8")],
    ),
    (
        "wider integer",
        contract((AGE, but(ROOMS, dtype="uint8"), SHADE, BORN)),
        OLD,
        [(False, "column 'rooms' was uint8 and is int64")],
    ),
    ("pandas' own dtype", OLD, contract((AGE, but(ROOMS, dtype="Int64"), SHADE, BORN)), []),
    (
        "half precision",
        OLD,
        contract((but(AGE, datatype="FP32", dtype="float16"), ROOMS, SHADE, BORN)),
        [
            (True, "column 'age' was float64 and is float16"),
            (False, "column 'age' was a number and is a number of 32 bits"),
        ],
    ),
    (
        "dates with a zone",
        OLD,
        contract((AGE, ROOMS, SHADE, but(BORN, dtype="datetime64[us, UTC]"))),
        [(True, "column 'born' was datetime64[us] and is datetime64[us, UTC]")],
    ),
    (
        "dates of another zone",
        contract((but(BORN, dtype="datetime64[us, UTC]"),)),
        contract((but(BORN, dtype="datetime64[us, Europe/Vienna]"),)),
        [(False, "column 'born' was datetime64[us, UTC] and is datetime64[us, Europe/Vienna]")],
    ),
    (
        "dates of another unit",
        OLD,
        contract((AGE, ROOMS, SHADE, but(BORN, dtype="datetime64[ns]"))),
        [(True, "column 'born' was datetime64[us] and is datetime64[ns]")],
    ),
    (
        "a date as text",
        OLD,
        contract((AGE, ROOMS, SHADE, but(BORN, dtype="object"))),
        [(True, "column 'born' was a date and is text")],
    ),
    (
        "missing cells",
        OLD,
        contract((but(AGE, nullable=True), but(ROOMS, nullable=False), SHADE, BORN)),
        [(True, "column 'rooms' takes no missing cells any more"), (False, "column 'age' takes missing cells now")],
    ),
    (
        "categories",
        OLD,
        contract((AGE, ROOMS, but(SHADE, categories=("pale", "light")), BORN)),
        [(True, "column 'shade' refuses 'dark' now"), (False, "column 'shade' takes 'light', too, now")],
    ),
    (
        "closed",
        contract((but(SHADE, closed=False),)),
        contract((SHADE,)),
        [(True, "column 'shade' refuses all but 'dark', 'pale' now")],
    ),
    (
        "opened",
        contract((SHADE,)),
        contract((but(SHADE, closed=False),)),
        [(False, "column 'shade' takes other categories, too, now")],
    ),
    ("order of categories", OLD, contract((AGE, ROOMS, but(SHADE, categories=("pale", "dark")), BORN)), []),
    ("output gone", OLD, contract(outputs=(PREDICT,)), [(True, "output 'predict_proba' is gone")]),
    ("output new", contract(outputs=(PREDICT,)), OLD, [(False, "output 'predict_proba' is new")]),
    (
        "another default",
        OLD,
        contract(outputs=(PROBABILITY, PREDICT)),
        [(True, "requests that name no output get 'predict_proba' in place of 'predict'")],
    ),
    (
        "type of an output",
        OLD,
        contract(outputs=(but(PREDICT, datatype="INT64"), PROBABILITY)),
        [(True, "output 'predict' was text and is a whole number")],
    ),
    (
        "shape",
        OLD,
        contract(outputs=(but(PREDICT, flat=False), PROBABILITY)),
        [(True, "output 'predict' had one value for each row and has a list of 1 value")],
    ),
    (
        "classes",
        OLD,
        contract(outputs=(PREDICT, but(PROBABILITY, classes=("b", "a")))),
        [(True, "the classes of 'predict_proba' were 'a', 'b' and are 'b', 'a'")],
    ),
    (
        "meaning",
        contract(outputs=(but(PREDICT, datatype="FP64"),)),
        contract(outputs=(but(PREDICT, datatype="FP64"),), kind="regressor"),
        [(True, "the model was a classifier and is a regressor")],
    ),
    ("unknown kind", OLD, contract(kind="other"), []),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_each_difference_is_named_and_judged(old: Contract, new: Contract, expected: list[tuple[bool, str]]) -> None:
    """A difference has one sentence, and is breaking if a request may be refused or misread, or an answer misread."""
    assert found(old, new) == expected


def test_rules_of_the_model_make_columns_compatible() -> None:
    """Where the operator fills or ignores columns, a nullable one more and one less break nobody who sends names."""
    more, less = contract((AGE, ROOMS, SHADE, BORN, RENT)), contract((AGE, SHADE, BORN))
    assert [breaks for breaks, _ in found(OLD, more, LENIENT)] == [False]
    assert [breaks for breaks, _ in found(OLD, less, LENIENT)] == [False]
    needed = contract((AGE, ROOMS, SHADE, BORN, but(RENT, nullable=False)))
    assert [breaks for breaks, _ in found(OLD, needed, LENIENT)] == [True]


def test_rows_of_a_model_of_arrays_are_sent_by_position() -> None:
    """A column more or less changes the width of such rows, so it breaks clients whatever the rules say."""
    two, three = contract(ARRAY, form="matrix"), contract((*ARRAY, RENT), form="matrix")
    assert [breaks for breaks, _ in found(two, three, LENIENT)] == [True]
    assert [breaks for breaks, _ in found(three, two, LENIENT)] == [True]


def test_a_message_lists_ten_differences_and_counts_the_others() -> None:
    """The breaking ones come first, and a table of a thousand columns still gives one line."""
    columns = tuple(but(AGE, name=f"c{at}", nullable=at % 2 == 0) for at in range(1000))
    turned = tuple(but(each, nullable=not each.nullable) for each in columns)
    differences = compatibility.compare(contract(columns), contract(turned))
    assert (len(differences), len(compatibility.breaking(differences))) == (1000, 500)
    words = compatibility.in_words(differences)
    assert words.startswith(
        "column 'c0' takes no missing cells any more; column 'c2' takes no missing cells any more; "
    )
    assert words.endswith("column 'c18' takes no missing cells any more; and 990 more")


def test_many_columns_that_are_gone_share_a_sentence() -> None:
    """So that what else has changed is still in the message."""
    wide = contract(tuple(but(AGE, name=f"c{at}") for at in range(10)))
    words = compatibility.in_words(
        compatibility.compare(wide, contract((AGE, ROOMS), (but(PREDICT, datatype="INT64"),)))
    )
    assert words == (
        "10 columns are gone: 'c0', 'c1', 'c2', 'c3', 'c4' and 5 more; column 'age' (a number) is new, and requests "
        "must send it; column 'rooms' (a whole number) is new, and requests must send it; output 'predict_proba' is "
        "gone; output 'predict' was text and is a whole number"
    )
    less = compatibility.compare(wide, contract((but(AGE, name="c0"),)), LENIENT)
    assert compatibility.in_words(less).startswith("9 columns are gone, and requests that send them are answered: 'c1'")
