"""Who wrote an artifact is read from its bytes, without running what is in it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import numpy as np
import pytest
import sklearn
import skops.io
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import RandomForestRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tableside.errors import PublishFailed
from tableside.publishing import estimator_files, mlflow_versions, skew
from tableside_contract.artifact_versions import library_versions, sklearn_versions

pytestmark = pytest.mark.no_greenlets

DATA = np.arange(12.0).reshape(6, 2)
MODEL = make_pipeline(StandardScaler(), DummyRegressor()).fit(DATA, DATA[:, 0])
OTHER = "1.2.2"


def written_elsewhere(content: bytes) -> bytes:
    """As if another release had pickled it: the versions are of the same length, so that every opcode still fits."""
    assert len(OTHER) == len(sklearn.__version__)
    return content.replace(sklearn.__version__.encode(), OTHER.encode())


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "compress", [bytes, zlib.compress, gzip.compress, bz2.compress, lzma.compress], ids=lambda each: each.__module__
)
def test_every_protocol_and_compression_is_read(protocol: int, compress: Callable[[bytes], bytes]) -> None:
    """The version is found in a pickle of each protocol, plain or compressed as joblib does."""
    content = pickle.dumps(MODEL, protocol)
    assert sklearn_versions(compress(content)) == [sklearn.__version__]
    assert sklearn_versions(compress(written_elsewhere(content))) == [OTHER]


def test_files_of_joblib_cloudpickle_and_skops_are_read(tmp_path: Path) -> None:
    """joblib writes arrays between the opcodes, also very large ones; skops writes its schema into a zip file."""
    forest = RandomForestRegressor(3, random_state=0).fit(np.random.default_rng(0).normal(size=(4000, 3)), range(4000))
    joblib.dump({"before": np.zeros(300_000), "model": forest}, tmp_path / "m.joblib")
    assert sklearn_versions(tmp_path / "m.joblib") == [sklearn.__version__]
    assert sklearn_versions(cloudpickle.dumps(forest)) == [sklearn.__version__]
    skops.io.dump(MODEL, tmp_path / "m.skops")
    assert sklearn_versions(tmp_path / "m.skops") == [sklearn.__version__]


def test_several_versions_are_all_found() -> None:
    """A pickle inside a pickle may be of another release, and each counts."""
    both = [pickle.dumps(MODEL), written_elsewhere(pickle.dumps(MODEL))]
    assert sklearn_versions(pickle.dumps(both)) == sorted([sklearn.__version__, OTHER])
    trained_with, versions = skew.written_with(pickle.dumps(both))
    assert trained_with == {"numpy": "2.x", "scikit-learn": f"{versions[0]} and {versions[1]}"}
    with pytest.raises(PublishFailed, match=f"m was written with scikit-learn {OTHER}, but this environment has"):
        skew.Gate().check("m", versions)


def test_other_libraries_are_named_as_far_as_the_file_shows_them() -> None:
    """numpy by its module, boosters by what they write into their models; a library that shows nothing is left out."""
    assert library_versions(pickle.dumps(MODEL)) == {"numpy": "2.x"}
    older = pickle.dumps(MODEL).replace(b"numpy._core.", b"numpy.core.")
    assert library_versions(zlib.compress(older)) == {"numpy": "1.x"}
    xgboost = b"\x00\x07version[#L\x00\x00\x00\x00\x00\x00\x00\x03i\x03i\x02i\x00}"
    lightgbm = b"\x94X\xf2\x0b\x00\x00tree\nversion=v4\nnum_class=1"
    catboost = b"Summary: CatBoost release 1.2.10. commit"
    filler = b"x" * (1 << 20)
    assert library_versions(b"\x80\x04" + filler[:-9] + xgboost + filler + lightgbm + catboost) == {
        "catboost": "1.2.10", "lightgbm": "4.x", "xgboost": "3.2.0",
    }  # fmt: skip
    assert library_versions(b"nothing") == {}


def test_an_environment_completes_what_a_file_says() -> None:
    """What the file says exactly counts; `2.x` is replaced by the version of the environment that it runs in."""
    there = {"scikit-learn": "1.6.0", "numpy": "2.4.6", "python": "3.11.7"}
    assert skew.completed({"scikit-learn": "1.6.1", "numpy": "2.x"}, there) == {**there, "scikit-learn": "1.6.1"}


@pytest.mark.parametrize(
    "content", [b"", b"x", b"PK\x03\x04 no zip", b"\x78\x9cno zlib", b"\x1f\x8bno gzip", b"BZh9", b"\xfd7zXZ\x00bad"]
)
def test_damage_is_left_to_the_loader(content: bytes) -> None:
    """A damaged file names no version, and raises nothing here."""
    assert sklearn_versions(content) == []


def test_the_middle_of_a_damaged_file_is_read() -> None:
    """A truncated file names the version that stands before the damage."""
    content = gzip.compress(pickle.dumps([MODEL, np.random.default_rng(0).normal(size=100_000)]))
    assert sklearn_versions(content[: len(content) // 2]) == [sklearn.__version__]


class Ran:
    """Fails the test when it is unpickled."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("the pickle was run",))


def test_a_file_of_another_release_is_not_run(tmp_path: Path) -> None:
    """The refusal comes before the first opcode runs, so a file that cannot be loaded here names its release too."""
    content = written_elsewhere(pickle.dumps([MODEL, Ran()]))
    (tmp_path / "m.pkl").write_bytes(content)
    _, versions = skew.written_with(tmp_path / "m.pkl")
    with pytest.raises(PublishFailed, match=f"written with scikit-learn {OTHER}"):
        skew.Gate().check(str(tmp_path / "m.pkl"), versions)


def test_the_warning_of_scikit_learn_is_the_second_guard() -> None:
    """A file whose version was not found beforehand is refused by what scikit-learn warns of, unless it is allowed."""
    content = written_elsewhere(pickle.dumps(MODEL))
    with pytest.raises(PublishFailed, match=f"^m was written with scikit-learn {OTHER}, but this environment has"):
        estimator_files.load_bytes(content, "m")
    assert estimator_files.load_bytes(content, "m", versions=["1.2.0"])


def test_the_gate_passes_what_may_be_compared() -> None:
    """Another patch release passes; another minor one only with the policy `warn` and the trainer's answers."""
    gate = skew.Gate("warn", True, {"scikit-learn": "1.9.1"})
    gate.check("m", ["1.6.1"])
    skew.Gate("refuse", True, {"scikit-learn": "1.9.1"}).check("m", ["1.9.0"])
    for policy, has_answers in (("refuse", True), ("warn", False)):
        with pytest.raises(PublishFailed, match=r"scikit-learn 1\.6\.1, but this environment has 1\.9\.1"):
            skew.Gate(policy, has_answers, {"scikit-learn": "1.9.1"}).check("m", ["1.6.1"])  # type: ignore[arg-type]


def test_versions_of_an_mlflow_directory(tmp_path: Path) -> None:
    """MLmodel's own version comes first, then pins of requirements.txt and conda.yaml, and Python's version."""
    (tmp_path / "requirements.txt").write_text("mlflow==3.1\nscikit-learn==1.6.0\nnumpy==2.1.3 ; x\n# x\npandas>=2\n")
    (tmp_path / "conda.yaml").write_text("dependencies:\n- python=3.11.7\n- pip:\n  - scipy==1.14.0\n  - 3\n- pip\n")
    (tmp_path / "python_env.yaml").write_text("python: 3.11.8\n")
    assert mlflow_versions.read(tmp_path, "1.6.1") == {
        "scikit-learn": "1.6.1", "mlflow": "3.1", "numpy": "2.1.3", "python": "3.11.7", "scipy": "1.14.0",
    }  # fmt: skip
    for name in ("requirements.txt", "conda.yaml", "python_env.yaml"):
        (tmp_path / name).write_bytes(b"\xff: [}")
    assert mlflow_versions.read(tmp_path, None) == {}
