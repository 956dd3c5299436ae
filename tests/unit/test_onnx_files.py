"""ONNX graphs as models: what is served is what ONNX Runtime answers for the same rows, to the bit."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tableside.errors import PublishFailed
from tableside.publishing import native_files, publish, sources
from tableside.repository import integrity
from tableside.runtimes import onnx_model
from tableside.settings import Repository
from tests.unit.test_reloading import registry_for

ROWS = pd.DataFrame({"a": np.linspace(0, 1, 60), "b": np.linspace(5, 2, 60) % 1.7})
LABELS = np.array(["high", "low", "mid"])[(ROWS["a"] * 2.99).astype(int)]
NUMBERS = ROWS.to_numpy(np.float32)


def one_thread(graph: bytes) -> Any:
    """A session of a graph. With more threads ONNX Runtime adds the trees of a forest in another order."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options)


def classifier(**options: Any) -> bytes:
    estimator = LogisticRegression(max_iter=500).fit(NUMBERS, LABELS)
    return to_onnx(estimator, NUMBERS[:1], options=options or None).SerializeToString()


def regressor() -> bytes:
    estimator = RandomForestRegressor(10, random_state=0).fit(NUMBERS, NUMBERS[:, 0] ** 2)
    return to_onnx(estimator, NUMBERS[:1]).SerializeToString()


def by_columns() -> tuple[bytes, pd.DataFrame]:
    frame = pd.DataFrame({"age": np.arange(60.0) % 17, "city": np.array(["a", "b", "c"])[np.arange(60) % 3]})
    steps = make_column_transformer((StandardScaler(), ["age"]), (OneHotEncoder(), ["city"]))
    estimator = make_pipeline(steps, LogisticRegression()).fit(frame, (frame["age"] > 8).astype(int))
    types = [("age", FloatTensorType([None, 1])), ("city", StringTensorType([None, 1]))]
    return to_onnx(estimator, initial_types=types).SerializeToString(), frame


def published(tmp_path: Path, graph: bytes, frame: pd.DataFrame, suffix: str = ".csv") -> Path:
    """Publish a graph as `m` from files, as the command does, and return the repository."""
    (tmp_path / "m.onnx").write_bytes(graph)
    sample = tmp_path / f"sample{suffix}"
    frame.to_csv(sample, index=False) if suffix == ".csv" else frame.to_parquet(sample)
    prepared = sources.prepare(tmp_path / "m.onnx", sources.Request(sample), Repository())
    publish.publish(
        "m", prepared.estimator, prepared.sample, repository=tmp_path / "models", quick=True, source=prepared.source,
        trained_with=prepared.trained_with,
    )  # fmt: skip
    return tmp_path / "models"


def served(root: Path, frame: pd.DataFrame) -> tuple[Any, Any]:
    """The version as a worker has loaded it, and the table of these rows."""
    registry = registry_for(root)
    registry.reload(1)
    servable = registry.wait_servable("m", None, 30)
    assert servable.runtime is not None
    return servable, frame


@pytest.mark.parametrize(("suffix", "options"), [(".csv", {}), (".parquet", {"zipmap": False})])
def test_a_classifier_answers_as_its_graph(tmp_path: Path, suffix: str, options: dict[str, Any]) -> None:
    """Labels, and probabilities in the order of the class names, with a ZipMap and without."""
    graph = classifier(**options)
    servable, _ = served(published(tmp_path, graph, ROWS, suffix), ROWS)
    contract = servable.contract
    assert (contract.kind, [output.name for output in contract.outputs]) == ("classifier", ["predict", "predict_proba"])
    assert contract.outputs[1].classes == ("high", "low", "mid")
    session = one_thread(classifier(zipmap=False))
    labels, probabilities = session.run(None, {session.get_inputs()[0].name: NUMBERS})
    assert np.asarray(servable.runtime.run("predict", ROWS.to_numpy())).tolist() == labels.tolist()
    assert np.asarray(servable.runtime.run("predict_proba", ROWS.to_numpy())).tolist() == probabilities.tolist()


def test_a_regressor_answers_as_its_graph(tmp_path: Path) -> None:
    """One number for each row."""
    servable, _ = served(published(tmp_path, regressor(), ROWS), ROWS)
    session = one_thread(regressor())
    (wanted,) = session.run(None, {session.get_inputs()[0].name: NUMBERS})
    assert servable.contract.kind == "regressor"
    assert np.asarray(servable.runtime.run("predict", ROWS.to_numpy())).tolist() == wanted[:, 0].tolist()


def test_inputs_by_column_keep_their_names_and_types(tmp_path: Path) -> None:
    """Numbers and texts, each in an input of its own; a CSV file's cells are read as the graph takes them."""
    graph, frame = by_columns()
    servable, _ = served(published(tmp_path, graph, frame), frame)
    columns = [(column.name, column.datatype) for column in servable.contract.input.columns]
    assert columns == [("age", "FP64"), ("city", "BYTES")]
    session = one_thread(graph)
    cells = {"age": frame[["age"]].to_numpy(np.float32), "city": frame[["city"]].to_numpy(object)}
    assert np.asarray(servable.runtime.run("predict", frame)).tolist() == session.run(None, cells)[0].tolist()


def test_a_graph_is_the_only_state(tmp_path: Path) -> None:
    """The session of a process is in no copy and in no file; the artifact is a skops file with a reviewed type."""
    made = onnx_model.read(classifier(), ROWS)
    assert made.predict(ROWS.to_numpy()).tolist() == pickle.loads(pickle.dumps(made)).predict(ROWS.to_numpy()).tolist()
    assert repr(made) == f"OnnxClassifier({len(made.graph)} bytes)"
    root = published(tmp_path, classifier(), ROWS)
    assert integrity.read_contract(root, "m", 1).artifact.file == "model.skops"


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"junk", "the ONNX graph cannot be read"), (b"", "the ONNX graph cannot be read")],
)
def test_a_file_that_is_no_graph_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    """With the file's name and what ONNX Runtime says."""
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(PublishFailed, match=rf"m\.onnx: {said}"):
        native_files.read(tmp_path / "m.onnx", ROWS)


def test_a_sample_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Another number of columns, and a class that no row is of."""
    (tmp_path / "m.onnx").write_bytes(classifier(zipmap=False))
    with pytest.raises(PublishFailed, match="the ONNX graph does not take the rows of the sample"):
        native_files.read(tmp_path / "m.onnx", ROWS[["a"]])
    with pytest.raises(PublishFailed, match="3 classes without names, and no row of the sample is of the class at"):
        native_files.read(tmp_path / "m.onnx", ROWS[:10])
