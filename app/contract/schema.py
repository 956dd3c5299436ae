"""The contract: written once, at publish, beside the artifact (`contract.json`)."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import msgspec

FORMAT = 1
Datatype = Literal["BOOL", "INT64", "FP32", "FP64", "BYTES"]
"""Cell types, in the words of the Open Inference Protocol. BYTES is text in UTF-8."""

Cell = float | int | bool | str | None


class Column(msgspec.Struct, frozen=True, omit_defaults=True):
    """One column of the input table.

    dtype: the dtype the estimator was trained on and is given again. nullable: whether a missing cell is answered.
    missing: what stands for a missing cell in an object column. closed: categories outside `categories` are refused,
    because the fitted estimator refuses them. minimum, maximum: the range seen in the sample, for people and docs.
    """

    name: str
    datatype: Datatype
    dtype: str
    nullable: bool = False
    missing: Literal["nan", "none"] = "nan"
    categories: tuple[Cell, ...] | None = None
    closed: bool = False
    minimum: float | None = None
    maximum: float | None = None


class Input(msgspec.Struct, frozen=True, dict=True):
    """The typed input table, and what the estimator is given of it.

    form: `frame` (a DataFrame with these columns), `matrix` (one array of shape [rows, columns], in this order) or
    `texts` (the one column as a list of strings, as text vectorizers take it).
    """

    form: Literal["frame", "matrix", "texts"]
    columns: tuple[Column, ...]

    @cached_property
    def names(self) -> frozenset[str]:
        """The columns' names."""
        return frozenset(column.name for column in self.columns)

    @cached_property
    def needed(self) -> frozenset[str]:
        """The names of the columns that take no missing cell."""
        return frozenset(column.name for column in self.columns if not column.nullable)

    @cached_property
    def datatypes(self) -> frozenset[Datatype]:
        """The datatypes that its columns have."""
        return frozenset(column.datatype for column in self.columns)

    @property
    def is_numeric(self) -> bool:
        """Whether one numeric matrix can spell the table."""
        return all(column.datatype in ("FP64", "FP32", "INT64") for column in self.columns)

    @cached_property
    def is_double(self) -> bool:
        """Whether every column is float64, without categories: then one array of numbers is the table."""
        return bool(self.columns) and all(c.dtype == "float64" and not c.closed for c in self.columns)

    @cached_property
    def takes_missing(self) -> bool:
        """Whether every column takes missing cells."""
        return all(column.nullable for column in self.columns)


class Output(msgspec.Struct, frozen=True, omit_defaults=True):
    """One answer the estimator can give: an array of shape [rows, width].

    name: the estimator's method. flat: whether the estimator itself returns one value a row (V1 then answers scalars).
    classes: of `predict_proba` and `decision_function`, in column order. method, part: where a method returns a list of
    arrays (probabilities of several targets), its part `i` is the output `method_i`.
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
        """The estimator's method that answers this output."""
        return self.method or self.name


class Artifact(msgspec.Struct, frozen=True):
    """A file beside the contract: the trained one, or the graph made of it."""

    file: str
    sha256: str
    size_bytes: int


class Golden(msgspec.Struct, frozen=True):
    """Rows with the answers the trainer's estimator gave: rows[i][column], answers[output][i][k]."""

    rows: tuple[tuple[Cell, ...], ...]
    answers: dict[str, tuple[tuple[Cell, ...], ...]]


class EquivalenceCheck(msgspec.Struct, frozen=True, omit_defaults=True):
    """A fast backend, as it was tried at publish.

    outcome: `used` (for some number of rows), `equal` (used where workers share a large artifact), `slower`,
    `differs` or `unsupported`; why: in words. rows: how many were compared. largest_difference: relative, over all
    numbers. speed_up: by rows in one call (as text), how many times the estimator's own speed.
    """

    backend: str
    outcome: Literal["used", "equal", "slower", "differs", "unsupported"]
    reason: str = ""
    rows: int = 0
    largest_difference: float = 0.0
    speed_up: dict[str, float] = {}


class Route(msgspec.Struct, frozen=True, omit_defaults=True):
    """The backend that answers up to so many rows in one call (0: any number). order: how a frame's numbers lie, C or
    F.

    fallback: the backend where this one's library is not installed; the estimator without one.
    """

    backend: str
    up_to_rows: int = 0
    order: Literal["C", "F"] = "C"
    fallback: Route | None = None


class Contract(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything a server must know of one version, and can check.

    source: where the estimator came from, for people; the keys are those of an MLmodel file.
    tolerance: how far apart, relative, publish let the numbers of `routes` lie. graph: the ONNX file of the backend
    `onnx`. batch_invariance: how an answer depends on the rows it is asked with: not at all (`exact`), by up to
    `batch_tolerance_ulp` units in the last place (`ulp`; tableside.contract.tolerances), or so that rows of several
    requests may not share a call (`none`). It is measured at publish; without it nothing was.
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
    types: tuple[str, ...] = ()
    equivalence_checks: tuple[EquivalenceCheck, ...] = ()
    routes: tuple[Route, ...] = ()
    source: dict[str, str] = {}
    batch_invariance: Literal["exact", "ulp", "none"] | None = None
    batch_tolerance_ulp: float = 0.0
    tolerance: float = 0.0
    graph: Artifact | None = None

    @property
    def default_output(self) -> Output:
        """`predict`, or `transform` for a transformer: what is answered when nothing is asked for."""
        return self.outputs[0]

    def output(self, name: str) -> Output | None:
        """The output of that name, if the estimator has it."""
        return next((output for output in self.outputs if output.name == name), None)


def encode(contract: Contract) -> bytes:
    """The contract as indented JSON, the same bytes for the same contract."""
    return msgspec.json.format(msgspec.json.encode(contract), indent=1) + b"\n"


def decode(text: bytes) -> Contract:
    """Read a contract. Raises msgspec.ValidationError or msgspec.DecodeError."""
    contract = msgspec.json.decode(text, type=Contract)
    if contract.format != FORMAT:
        raise msgspec.ValidationError(f"contract format {contract.format}; this Tableside reads format {FORMAT}")
    if not contract.outputs or set(contract.golden.answers) != {output.name for output in contract.outputs}:
        raise msgspec.ValidationError("outputs and golden answers do not belong together")
    return contract


def describe(column: Column) -> str:
    """What a cell of this column may hold, for an error message."""
    words = {
        "FP64": "a number",
        "FP32": "a number",
        "INT64": "an integer",
        "BOOL": "true or false",
        "BYTES": "a string",
    }
    text = words[column.datatype]
    return f"{text} or null" if column.nullable else text


def plain(value: Any) -> Cell:
    """A numpy scalar as the JSON value it stands for; NaN and other missing marks become None."""
    if value is None:
        return None
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, (bool, int, str)):
        return value
    return None if str(value) in ("<NA>", "NaT", "nan") else str(value)
