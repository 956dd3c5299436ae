"""A skops file that unpacks to far more than its size is refused before any of its arrays is read."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.attacks.artifacts import with_zeros
from tableside.contracts import artifact_size
from tableside.errors import ContractBroken, FailureKind
from tableside.model_process.child import artifacts
from tableside.publishing.publish import publish
from tableside.runtimes import sklearn as runtime

pytestmark = pytest.mark.no_greenlets
X, Y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 3
MB = 1 << 20


@pytest.fixture(scope="module")
def artifact() -> bytes:
    return bytes(skops.io.dumps(LogisticRegression().fit(X, Y)))


@pytest.mark.parametrize(("arrays", "size"), [(1, 512 * MB), (8, 50 * MB)])
def test_arrays_of_zeros_are_refused_unread(artifact: bytes, tmp_path: Path, arrays: int, size: int) -> None:
    """One large array, and a smaller one that many nodes name, by a worker and by a model process: untrusted."""
    content = with_zeros(artifact, arrays, size)
    assert len(content) < MB
    path = tmp_path / "model.skops"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        for given in (None, content):
            with pytest.raises(
                ContractBroken, match=r"model.skops is not read: it has 0.\d MB and unpacks to"
            ) as found:
                runtime.load(path, content=given)
            assert found.value.failure_kind is FailureKind.UNTRUSTED
            with pytest.raises(artifacts.LoadRefused, match="is not read: it has") as refused:
                artifacts._read_skops(str(path), given, set())
            assert refused.value.kind == "untrusted"
        assert tracemalloc.get_traced_memory()[1] < 8 * MB
    finally:
        tracemalloc.stop()


def test_what_fits_its_size_is_read(artifact: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few arrays of zeros below the limit, and one array that many parts of an estimator share."""
    assert artifact_size.problem(io.BytesIO(with_zeros(artifact, 2, 50 * MB))) == ""
    monkeypatch.setattr(artifact_size, "FREE_BYTES", MB)
    estimator = LogisticRegression().fit(X, Y)
    estimator.shared_ = [np.arange(100_000.0)] * 100  # 80 MB, if each counted
    assert artifact_size.problem(io.BytesIO(skops.io.dumps(estimator))) == ""


def test_a_dense_schema_and_a_sparse_matrix_count(artifact: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schema becomes objects, and a sparse matrix is a compressed file within the file."""
    monkeypatch.setattr(artifact_size, "FREE_BYTES", 10 * MB)
    with zipfile.ZipFile(io.BytesIO(artifact)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["schema.json"] += b" " * (4 * MB)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    assert "unpacks to" in artifact_size.problem(packed)
    estimator = LogisticRegression().fit(X, Y)
    zeros = 2 * MB
    estimator.coef_ = scipy.sparse.csr_matrix((np.zeros(zeros), np.zeros(zeros, np.int32), [0, zeros]), shape=(1, 1))
    assert "unpacks to" in artifact_size.problem(io.BytesIO(skops.io.dumps(estimator)))


def test_a_table_of_zeros_is_published_uncompressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An estimator that keeps dense rows of zeros would be refused; publish writes it so that it is not."""
    monkeypatch.setattr(artifact_size, "FREE_BYTES", MB)
    rows = np.zeros((2000, 300))
    rows[:, 0] = np.arange(2000)
    estimator = KNeighborsClassifier(3, algorithm="brute").fit(rows, np.arange(2000) % 2)
    publish("zeros", estimator, rows[:50], repository=tmp_path, quick=True)
    path = tmp_path / "zeros/1/model.skops"
    assert path.stat().st_size > rows.nbytes
    assert artifact_size.problem(str(path)) == ""
    assert runtime.load(path).run("predict", rows[:3]).tolist() == estimator.predict(rows[:3]).tolist()
