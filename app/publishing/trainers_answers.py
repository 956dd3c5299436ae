"""The trainer's answers: what the estimator answered where it was trained, compared with what it answers here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tableside.contracts.array_type import Array
from tableside.contracts.schema import Cell, Datatype, Golden, Output, plain
from tableside.errors import PublishFailed
from tableside.runtimes import golden

Rows = tuple[tuple[Cell, ...], ...]
_TRUE, _FALSE = ("true", "1"), ("false", "0")


@dataclass(frozen=True)
class TrainersAnswers:
    """Answers to the rows of the sample, in its order.

    label: the file they come from. columns: the cells by column: an output's name if it has one value a row, else
    NAME_0, NAME_1, ..., or NAME_CLASS for each class. A cell may be text that stands for a number, as in CSV.
    """

    label: str
    columns: Mapping[str, Sequence[object]]

    @property
    def rows(self) -> int:
        """The number of rows that are answered."""
        return len(next(iter(self.columns.values()), ()))

    def for_outputs(self, outputs: Sequence[Output], rows: int) -> dict[str, Rows]:
        """Return the answers of each output that the columns hold. Raises PublishFailed for columns of no output."""
        used: set[str] = set()
        found: dict[str, Rows] = {}
        for output in outputs:
            names = self._names(output)
            if names:
                cells = [self._cells(name, output.datatype, rows) for name in names]
                found[output.name] = tuple(zip(*cells, strict=True))
                used.update(names)
        unknown = [name for name in self.columns if name not in used]
        if unknown:
            wanted = "; ".join(" ".join(spellings(output)[0]) for output in outputs)
            raise PublishFailed(
                f"{self.label} has columns that hold no complete output of this estimator: {', '.join(unknown)}. Its "
                f"outputs and their columns: {wanted}"
            )
        if not found:
            raise PublishFailed(f"{self.label} has no columns")
        return found

    def _names(self, output: Output) -> tuple[str, ...]:
        for names in spellings(output):
            if all(name in self.columns for name in names):
                return names
        return ()

    def _cells(self, name: str, datatype: Datatype, rows: int) -> list[Cell]:
        cells = self.columns[name]
        if len(cells) != rows:
            raise PublishFailed(
                f"{self.label} has {len(cells)} rows, but the sample has {rows}. Give the answer to each row of the "
                "sample, in its order"
            )
        typed = []
        for row, cell in enumerate(cells):
            try:
                typed.append(_typed(cell, datatype))
            except (TypeError, ValueError) as problem:
                raise PublishFailed(f"{self.label}, row {row}, column {name}: not a {datatype}: {cell!r}") from problem
        return typed


def spellings(output: Output) -> list[tuple[str, ...]]:
    """Return the names that an output's columns may have: by position first, then by class."""
    numbered = tuple(f"{output.name}_{at}" for at in range(output.width))
    if output.width == 1:
        return [(output.name,), numbered]
    by_class = tuple(f"{output.name}_{label}" for label in output.classes or ())
    return [numbered, by_class] if by_class else [numbered]


def _typed(cell: object, datatype: Datatype) -> Cell:
    if datatype == "BYTES":
        return str(cell)
    text = str(cell).strip()
    if cell is None or text == "" or text.lower() in ("nan", "null", "none", "<na>"):
        return None
    if datatype == "BOOL":
        if text.lower() not in (*_TRUE, *_FALSE):
            raise ValueError(text)
        return text.lower() in _TRUE
    if datatype == "INT64":
        number = int(text) if text.lstrip("+-").isdigit() else float(text)
        if number != int(number):
            raise ValueError(text)
        return int(number)
    return plain(float(np.float32(text)) if datatype == "FP32" else float(text))


def read(answers: object) -> TrainersAnswers | None:
    """Return the trainer's answers from a .csv or .parquet file, a DataFrame, or a mapping of columns; None for None.

    Cells of a CSV file are taken as text, so that no type is guessed. Raises PublishFailed.
    """
    if answers is None or isinstance(answers, TrainersAnswers):
        return answers
    label = "the trainer's answers"
    if isinstance(answers, (str, Path)):
        label, answers = str(answers), _read_file(Path(answers))
    if isinstance(answers, pd.DataFrame):
        return TrainersAnswers(label, {str(name): answers[name].tolist() for name in answers.columns})
    if isinstance(answers, Mapping):
        return TrainersAnswers(label, _columns_of(answers))
    raise PublishFailed(
        "give the trainer's answers as a .csv or .parquet file, as a DataFrame, or as a dict of arrays by output"
    )


def _columns_of(arrays: Mapping[object, object]) -> dict[str, Sequence[object]]:
    columns: dict[str, Sequence[object]] = {}
    for name, values in arrays.items():
        array = np.asarray(values)
        if array.ndim == 1:
            columns[str(name)] = array.tolist()
        else:
            wide = array.reshape(len(array), -1)
            columns |= {f"{name}_{at}": wide[:, at].tolist() for at in range(wide.shape[1])}
    return columns


def _read_file(path: Path) -> pd.DataFrame:
    def read_csv(path: Path) -> pd.DataFrame:
        return pd.read_csv(path, dtype=str, na_filter=False)

    readers: dict[str, Callable[[Path], pd.DataFrame]] = {".csv": read_csv, ".parquet": pd.read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise PublishFailed(f"{path}: the trainer's answers must be a .csv or .parquet file")
    if not path.is_file():
        raise PublishFailed(f"{path}: no such file")
    try:
        return reader(path)
    except (OSError, ValueError) as problem:
        raise PublishFailed(f"{path}: {problem}") from problem


def compare(expected: Mapping[str, Rows], answered: Mapping[str, Array], label: str) -> None:
    """Raise PublishFailed unless every number agrees within the tolerance of golden rows, and every label exactly."""
    for name, rows in expected.items():
        got = golden.cells_of(answered[name])
        if any(len(row) != len(other) for row, other in zip(rows, got, strict=True)):
            raise PublishFailed(f"{label}: {name} has {len(rows[0])} columns there, and {len(got[0])} here")
        different = [
            row for row, pair in enumerate(zip(rows, got, strict=True)) if not golden.all_agree(pair[:1], pair[1:])
        ]
        if different:
            raise PublishFailed(
                f"{label}: the trainer's answers differ from this environment's. {name} differs in {len(different)} of "
                f"{len(rows)} rows; {_worst(rows, got, different)}. The model does not answer here as it did where it "
                "was trained: serve it in its own environment (--environment NAME), or train it again here"
            )


def _worst(rows: Rows, got: Rows, different: Sequence[int]) -> str:
    """The most different cell in words: its row, both answers, and how far numbers are apart."""
    cells = [
        (_distance(was, now), row, at, was, now)
        for row in different
        for at, (was, now) in enumerate(zip(rows[row], got[row], strict=True))
    ]
    distance, row, at, was, now = max(cells, key=lambda cell: cell[0])
    apart = f", {distance:.2g} apart" if np.isfinite(distance) else ""
    place = f"row {row}" if len(rows[row]) == 1 else f"row {row}, column {at}"
    return f"the largest difference is in {place}: {was!r} there, {now!r} here{apart}"


def _distance(was: Cell, now: Cell) -> float:
    if was == now:
        return 0.0
    return abs(was - now) if isinstance(was, float) and isinstance(now, (int, float)) else float("inf")


def into_golden(recorded: Golden, expected: Mapping[str, Rows], chosen: Sequence[int]) -> Golden:
    """Return the golden rows with the trainer's answers in place of those recorded here.

    chosen: the rows of the sample that are golden rows. The origin is `trainer` only if every output is covered and
    agrees: the answer of an estimator to a row may depend on the rows beside it.
    """
    trainers = {name: tuple(rows[at] for at in chosen) for name, rows in expected.items()}
    agreeing = {name: rows for name, rows in trainers.items() if golden.all_agree(rows, recorded.answers[name])}
    complete = agreeing.keys() == recorded.answers.keys()
    return Golden(recorded.rows, {**recorded.answers, **agreeing}, "trainer" if complete else "publish")
