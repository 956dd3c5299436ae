"""The contract of a version, and its file `contract.json`, which publish writes next to the artifact."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import msgspec

from tableside.contracts import output_names, wide
from tableside.contracts.watched import Watched

FORMAT = 1
"""The format of `contract.json` that this version of Tableside reads and writes."""
Datatype = Literal["BOOL", "INT64", "FP32", "FP64", "BYTES"]
"""Cell types, as the Open Inference Protocol names them. BYTES is text in UTF-8."""
Kind = Literal["BOOL", "INT64", "FP32", "FP64", "BYTES", "DATE", "ID"]
"""What a column holds: its datatype, or DATE, or ID. The protocol has no dates, so they are BYTES: ISO 8601 text."""

Cell = float | int | bool | str | None
"""The value of a cell in JSON; None is a missing value."""


class Column(msgspec.Struct, frozen=True, omit_defaults=True):
    """One column of the input table.

    dtype: the pandas or numpy dtype that the estimator was trained on; predictions use the same one.
    nullable: whether missing values are accepted.
    missing: what the estimator is given for a missing value in an object column: NaN, None or pandas.NA.
    integer_name: whether the trainer's DataFrame has the number as the column's name, and not its text.
    ordered, categories_dtype: of a `category` column: whether its categories have an order, and their dtype.
    categories, closed: the values seen at publish; if `closed`, others are refused, because the estimator refuses them.
    minimum, maximum: the range seen in the sample. It is documentation only; numbers outside of it are accepted.
    """

    name: str
    datatype: Datatype
    dtype: str
    nullable: bool = False
    missing: Literal["nan", "none", "na"] = "nan"
    categories: tuple[Cell, ...] | None = None
    closed: bool = False
    minimum: float | None = None
    maximum: float | None = None
    integer_name: bool = False
    ordered: bool = False
    categories_dtype: str = ""

    @property
    def label(self) -> str | int:
        """The column's name in the trainer's DataFrame."""
        return int(self.name) if self.integer_name else self.name

    @property
    def is_date(self) -> bool:
        """Whether the column holds dates, such as `datetime64[ns]` or `datetime64[us, Europe/Vienna]`."""
        return self.datatype == "BYTES" and self.dtype.startswith("datetime64")

    @property
    def kind(self) -> Kind:
        """The datatype, or DATE for a column of dates."""
        return "DATE" if self.is_date else self.datatype


class Input(msgspec.Struct, frozen=True, dict=True):
    """The typed input table, and the form in which the estimator is given it.

    form: `frame` is a DataFrame with these columns, `matrix` is one array of shape [rows, columns] in this order, and
    `texts` is the only column as a list of strings, which text vectorizers take.
    """

    form: Literal["frame", "matrix", "texts"]
    columns: tuple[Column, ...]

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of all columns."""
        return frozenset(column.name for column in self.columns)

    @cached_property
    def needed(self) -> frozenset[str]:
        """The names of the columns that do not accept missing values."""
        return frozenset(column.name for column in self.columns if not column.nullable)

    @cached_property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of all columns."""
        return frozenset(column.kind for column in self.columns)

    @property
    def is_numeric(self) -> bool:
        """Whether every column is numeric, so that a client can send the table as one matrix."""
        return all(column.datatype in ("FP64", "FP32", "INT64") for column in self.columns)

    @cached_property
    def is_double(self) -> bool:
        """Whether every column is float64 without closed categories, so that one float64 array holds the table."""
        return bool(self.columns) and all(c.dtype == "float64" and not c.closed for c in self.columns)

    @cached_property
    def watched(self) -> Watched:
        """What is known of the training's cells, for input anomalies."""
        return Watched(self.columns)

    @cached_property
    def takes_missing(self) -> bool:
        """Whether every column accepts missing values."""
        return all(column.nullable for column in self.columns)


class Output(msgspec.Struct, frozen=True, omit_defaults=True):
    """One output of the estimator: an array of shape [rows, width].

    name: the estimator's method, such as `predict`.
    flat: whether the method returns an array of shape [rows]; V1 responses then have scalars instead of arrays.
    classes: the class of each column of `predict_proba` and `decision_function`.
    method, part: set if the method returns a list of arrays, one for each target; part `i` is the output `method_i`.
    """

    name: str
    datatype: Datatype
    width: int
    flat: bool
    classes: tuple[Cell, ...] | None = None
    method: str = ""
    part: int | None = None

    @property
    def source(self) -> str:
        """The estimator's method that computes this output."""
        return self.method or self.name


class Artifact(msgspec.Struct, frozen=True):
    """A file of the version: the trained estimator, the ONNX graph made from it, or a module below `code/`."""

    file: str
    sha256: str
    size_bytes: int


class Golden(msgspec.Struct, frozen=True, omit_defaults=True):
    """Golden rows and the estimator's answers: `rows[i][column]` and `answers[output][i][k]`.

    origin: where the answers were computed: in the environment of training (`trainer`), or by publish itself. Then
    they prove later loads against publish only.
    """

    rows: tuple[tuple[Cell, ...], ...]
    answers: dict[str, tuple[tuple[Cell, ...], ...]]
    origin: Literal["publish", "trainer"] = "publish"


class EquivalenceCheck(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of comparing a fast backend with the estimator at publish.

    outcome: `used` (for some number of rows), `equal` (used only if workers share a large artifact), `slower`,
    `differs` or `unsupported`.
    reason: the outcome explained in a sentence.
    rows: the number of compared rows.
    largest_difference: the largest relative difference between two numbers.
    speed_up: the backend's speed divided by the estimator's, by number of rows in one call (as text).
    """

    backend: str
    outcome: Literal["used", "equal", "slower", "differs", "unsupported"]
    reason: str = ""
    rows: int = 0
    largest_difference: float = 0.0
    speed_up: dict[str, float] = {}


class Route(msgspec.Struct, frozen=True, omit_defaults=True):
    """The backend for calls of up to `up_to_rows` rows; 0 is any number.

    order: the memory order of the matrix made from a DataFrame.
    fallback: the route to use if this backend's library is not installed; None is the estimator itself.
    """

    backend: str
    up_to_rows: int = 0
    order: Literal["C", "F"] = "C"
    fallback: Route | None = None


class Contract(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything a server must know about one version to load, check and serve it.

    environment: the versions of publish. trained_with: those that wrote the artifact, as far as it says.
    types: the Python types in the artifact that skops does not trust by itself.
    source: where the estimator came from, for information; the keys are those of an MLmodel file.
    tolerance: the largest relative difference that publish allowed between the backends in `routes` and the estimator.
    graph: the ONNX file of the backend `onnx`. quick: publish compared fast backends on few rows only (`--quick`).
    code: the modules that the trainer published with the estimator, as files below `code/`.
    boosters: the files of boosters in the format of their own library, which `artifact` names.
    batch_invariance: how much an answer depends on the other rows of the call: not at all (`exact`), by up to
    `batch_tolerance_ulp` units in the last place (`ulp`, see tableside.contracts.tolerances), or by more, so that rows
    of several requests may not share a call (`none`). None means that it was not measured.
    """

    format: int
    name: str
    version: int
    created_at: str
    kind: Literal["classifier", "regressor", "clusterer", "outlier_detector", "transformer", "other"]
    estimator: str
    input: Input
    outputs: tuple[Output, ...]
    golden: Golden
    artifact: Artifact
    environment: dict[str, str]
    trained_with: dict[str, str] = {}
    types: tuple[str, ...] = ()
    equivalence_checks: tuple[EquivalenceCheck, ...] = ()
    routes: tuple[Route, ...] = ()
    source: dict[str, str] = {}
    batch_invariance: Literal["exact", "ulp", "none"] | None = None
    batch_tolerance_ulp: float = 0.0
    tolerance: float = 0.0
    graph: Artifact | None = None
    quick: bool = False
    code: tuple[Artifact, ...] = ()
    boosters: tuple[Artifact, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Size of the artifact with its boosters."""
        return self.artifact.size_bytes + sum(booster.size_bytes for booster in self.boosters)

    @property
    def default_output(self) -> Output:
        """The output of a request that names none: `predict`, or `transform` for a transformer."""
        return self.outputs[0]

    def output(self, name: str) -> Output | None:
        """The output of that name, None if the estimator does not have it."""
        return next((output for output in self.outputs if output.name == name), None)


def encode(contract: Contract) -> bytes:
    """Return the contract as indented JSON, or in a short form if it has many columns (tableside.contracts.wide).

    Equal contracts give equal bytes.
    """
    if len(contract.input.columns) > wide.MIN_COLUMNS:
        return msgspec.json.encode(wide.pack(msgspec.to_builtins(contract))) + b"\n"
    return msgspec.json.format(msgspec.json.encode(contract), indent=1) + b"\n"


def decode(text: bytes) -> Contract:
    """Parse a contract.

    Raises msgspec.DecodeError if it is not JSON; msgspec.ValidationError if its structure or format is another one, it
    has no outputs, or its golden answers are for other outputs.
    """
    contract = _decode_wide(text) if wide.MARK in text else msgspec.json.decode(text, type=Contract)
    if contract.format != FORMAT:
        raise msgspec.ValidationError(
            f"contract format {contract.format} is not supported; this version of Tableside reads format {FORMAT}"
        )
    for output in contract.outputs:
        output_names.check(output.name, output.source, output.part)
    if not contract.outputs or set(contract.golden.answers) != {output.name for output in contract.outputs}:
        raise msgspec.ValidationError(
            "the contract needs at least one output, and golden answers for exactly its outputs"
        )
    return contract


def _decode_wide(text: bytes) -> Contract:
    try:
        return msgspec.convert(wide.unpack(msgspec.json.decode(text)), Contract)
    except (LookupError, TypeError, ValueError, AttributeError) as problem:  # msgspec's errors are ValueErrors
        raise msgspec.ValidationError(f"not a contract with column groups: {problem}") from problem


def plain(value: object) -> Cell:
    """Return a numpy or Python scalar as a JSON value; other objects, such as dates, as text.

    None, NaN, infinities, pandas.NA and NaT become None.
    """
    if value is None:
        return None
    item = getattr(value, "item", None)  # a numpy scalar, recognized without importing numpy
    if item is not None:
        value = item()
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, (bool, int, str)):
        return value
    return None if str(value) in ("<NA>", "NaT", "nan") else str(value)
