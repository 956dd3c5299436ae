"""Collecting the outputs of an estimator's methods."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from tableside.contracts import conversion
from tableside.contracts.answers import collect
from tableside.contracts.environment import PACKAGES, environment, sha256
from tableside.contracts.schema import Output
from tableside_contract import answers as training_answers
from tests.fakes import SUM_OUTPUTS, SumRuntime

PARTS = tuple(Output(f"predict_proba_{at}", "FP64", 2, False, None, "predict_proba", at) for at in range(2))


def test_a_shared_method_is_run_once() -> None:
    """Outputs that are parts of one method's list come from one call, in the order of the list."""
    calls: list[str] = []

    def run(method: str, data: Any) -> Any:
        calls.append(method)
        return [np.full((2, 2), 0.0), np.full((2, 2), 1.0)]

    arrays = collect(PARTS, run, None)
    assert calls == ["predict_proba"]
    assert [array[0, 0] for array in arrays.values()] == [0.0, 1.0]
    assert list(arrays) == ["predict_proba_0", "predict_proba_1"]


def test_each_output_is_what_its_method_returns() -> None:
    """An output without a part is the method's array itself."""
    arrays = collect(SUM_OUTPUTS, SumRuntime().run, [[1.0, 2.0]])
    assert {name: array.tolist() for name, array in arrays.items()} == {"predict": [3.0], "transform": [[3.0, -3.0]]}


def test_a_list_where_an_array_was_published_is_an_error() -> None:
    """The error names the output and the method."""
    with pytest.raises(TypeError, match="output 'predict': predict returned a list of arrays"):
        collect(SUM_OUTPUTS[:1], lambda method, data: [np.zeros(1)], None)


def test_an_error_of_the_method_is_not_caught() -> None:
    """What the estimator raises reaches the caller as it is."""

    def run(method: str, data: Any) -> Any:
        raise ZeroDivisionError(method)

    with pytest.raises(ZeroDivisionError, match="predict"):
        collect(SUM_OUTPUTS, run, None)


def test_the_environment_has_what_is_installed() -> None:
    """The versions of Python, the machine and the installed packages are recorded, and nothing else."""
    versions = environment()
    assert {"python", "machine", "scikit-learn", "numpy"} <= versions.keys() <= {"python", "machine", *PACKAGES}
    assert versions["numpy"] == np.__version__


def test_the_checksum_is_that_of_the_bytes(tmp_path: Path) -> None:
    """The checksum of a file is the SHA-256 of its content; a file that is absent is an error."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 300_000)
    assert sha256(path) == hashlib.sha256(b"x" * 300_000).hexdigest()
    with pytest.raises(FileNotFoundError):
        sha256(tmp_path / "absent")


@pytest.mark.parametrize(
    "answer",
    [
        np.arange(3, dtype=np.float16), np.arange(3, dtype=np.longdouble), np.array(["a", None], dtype=object),
        pd.DataFrame({"b": [1.5, 2.0], "a": [0, 1]}), pd.Series(["x", "y"]), csr_matrix(np.eye(2)), [1, 2],
    ],
)  # fmt: skip
def test_the_training_environment_reads_answers_as_the_server_does(answer: object) -> None:
    """The package for the training environment cannot import the server's function: both must give the same bits."""
    ours, theirs = conversion.as_array(answer), training_answers.as_array(answer)
    assert (ours.dtype, ours.shape, ours.tolist()) == (theirs.dtype, theirs.shape, theirs.tolist())
