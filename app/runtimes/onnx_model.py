"""ONNX models that were trained elsewhere, as estimators: what a graph says is what the trainer's estimator says.

The graph's bytes are an attribute of the estimator, so they are in the skops file, and every check that holds for an
estimator holds for a graph. ONNX Runtime's session is made in the process that predicts, because it survives no fork.
The inputs of a graph are one tensor of all columns, or one for each column, as skl2onnx and the other converters write
them (https://onnx.ai/sklearn-onnx/); its first result is the label or the value, its second the probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from tableside.contracts.array_type import Array
from tableside.errors import ContractBroken, FailureKind
from tableside.install_hints import install_hint
from tableside.runtimes.fast.numerics import LibraryMissing, Unsupported
from tableside.runtimes.onnx import open_session

_DTYPES = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_, "tensor(string)": np.object_,
}  # fmt: skip

_COLUMN_TYPES = {"tensor(string)": "str", "tensor(int64)": "int64", "tensor(int32)": "int64", "tensor(bool)": "bool"}


class OnnxEstimator(BaseEstimator):  # type: ignore[misc]
    """An ONNX graph. graph: its bytes."""

    def __init__(self, graph: bytes = b"") -> None:
        self.graph = graph
        self._session: Any = None

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        """Return the class and the size of the graph."""
        return f"{type(self).__name__}({len(self.graph)} bytes)"

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the session, which belongs to its process."""
        return {**super().__getstate__(), "_session": None}

    def session(self) -> Any:
        """Return the session of this process.

        Raises ContractBroken without ONNX Runtime, or if it refuses the graph.
        """
        if self._session is None:
            try:
                self._session = open_session(self.graph)
            except LibraryMissing as absent:
                raise ContractBroken(
                    f"this version is an ONNX graph, and onnxruntime is not installed here: {install_hint('onnx')}",
                    FailureKind.ENVIRONMENT,
                ) from absent
            except Unsupported as refused:
                raise ContractBroken(f"the ONNX graph cannot be read: {refused}", FailureKind.DAMAGED) from refused
        return self._session

    def learn_inputs(self) -> None:
        """Note what the graph takes: columns by name, or a number of columns."""
        wanted = self.session().get_inputs()
        if len(wanted) == 1:
            self.n_features_in_ = int(wanted[0].shape[-1])
        else:
            self.feature_names_in_ = np.array([each.name for each in wanted], dtype=object)
            self.n_features_in_ = len(wanted)

    def run_graph(self, table: Any) -> list[Any]:
        """Return the graph's results for rows: a DataFrame, or an array of shape [rows, columns]."""
        session = self.session()
        wanted = session.get_inputs()
        if len(wanted) == 1:
            return list(session.run(None, {wanted[0].name: np.asarray(table).astype(_dtype(wanted[0]), copy=False)}))
        frame = table if isinstance(table, pd.DataFrame) else pd.DataFrame(table, columns=self.feature_names_in_)
        cells = {each.name: frame[each.name].to_numpy().astype(_dtype(each)).reshape(-1, 1) for each in wanted}
        return list(session.run(None, cells))


def _dtype(wanted: Any) -> Any:
    if wanted.type not in _DTYPES:
        raise ContractBroken(f"the ONNX graph takes {wanted.type} in {wanted.name!r}, which no table holds")
    return _DTYPES[wanted.type]


class OnnxRegressor(RegressorMixin, OnnxEstimator):  # type: ignore[misc]
    """A graph whose first result is a number, or several, for each row."""

    def predict(self, table: Any) -> Array:
        """Return the values, of shape [rows] or [rows, targets]."""
        found = np.asarray(self.run_graph(table)[0])
        return found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found


class OnnxClassifier(ClassifierMixin, OnnxEstimator):  # type: ignore[misc]
    """A graph whose first result is a label for each row, and the second, if there is one, the probabilities."""

    def predict(self, table: Any) -> Array:
        """Return the labels, of shape [rows]."""
        return np.asarray(self.run_graph(table)[0]).reshape(-1)

    def predict_proba(self, table: Any) -> Array:
        """Return the probabilities, of shape [rows, classes], in the order of `classes_`."""
        found = self.run_graph(table)[1]
        if isinstance(found, list):  # a ZipMap: one dict a row
            return np.array([[row[label] for label in self.classes_.tolist()] for row in found], dtype=np.float32)
        return np.asarray(found)


def column_types(graph: bytes, names: Sequence[str]) -> dict[str, str]:
    """Return the dtypes of columns as a graph takes them, for cells that are text in a file. Raises ContractBroken."""
    wanted = OnnxEstimator(graph).session().get_inputs()
    if len(wanted) == 1:
        return dict.fromkeys(names, _COLUMN_TYPES.get(wanted[0].type, "float64"))
    return {each.name: _COLUMN_TYPES.get(each.type, "float64") for each in wanted if each.name in names}


def read(graph: bytes, sample: pd.DataFrame) -> OnnxEstimator:
    """Return the estimator of a graph: a classifier if its first result is text or whole numbers.

    sample: rows that it takes. The names of the classes are those of the graph's ZipMap, or what the graph answers
    where each probability is the highest. Raises ContractBroken for a graph that cannot be read or does not take the
    rows.
    """
    probe = OnnxRegressor(graph)
    probe.learn_inputs()
    table = sample if hasattr(probe, "feature_names_in_") else sample.to_numpy()
    try:
        results = probe.run_graph(table)
    except ContractBroken:
        raise
    except Exception as problem:
        said = " ".join(str(problem).split())[:300]
        raise ContractBroken(f"the ONNX graph does not take the rows of the sample: {said}") from problem
    if np.asarray(results[0]).dtype.kind == "f":
        return probe
    made = OnnxClassifier(graph)
    made.learn_inputs()
    made.classes_ = _classes(results)
    return made


def _classes(results: list[Any]) -> Array:
    """Return the labels in the order of the probabilities."""
    labels = np.asarray(results[0]).reshape(-1)
    if len(results) < 2:
        return np.unique(labels)
    if isinstance(results[1], list):
        return np.array(sorted(results[1][0]), dtype=labels.dtype)
    highest = np.asarray(results[1]).argmax(axis=1)
    known = {place: label for place, label in zip(highest.tolist(), labels.tolist(), strict=True)}
    width = np.asarray(results[1]).shape[1]
    missing = sorted(set(range(width)) - known.keys())
    if missing:
        raise ContractBroken(
            f"the graph has {width} classes without names, and no row of the sample is of the class at place "
            f"{missing[0]}. Give a sample in which every class occurs"
        )
    return np.array([known[place] for place in range(width)], dtype=labels.dtype)
