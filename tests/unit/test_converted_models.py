"""What treelite has converted is read again on the host, and what is damaged or foreign is converted again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import treelite
import treelite.sklearn
from sklearn.datasets import load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from tableside.contracts import schema
from tableside.contracts.schema import Contract, Route
from tableside.preflight.checks import check_version
from tableside.publishing.publish import publish
from tableside.runtimes.checked_artifacts import CheckedArtifacts
from tableside.runtimes.fast import treelite as backend
from tableside.runtimes.router import RoutedRuntime
from tableside.settings import Repository

pytestmark = pytest.mark.no_greenlets

ARTIFACT = "ab" * 32
ESTIMATORS: dict[str, Callable[[], Any]] = {
    "forest": lambda: RandomForestClassifier(5, random_state=0),
    "boosting": lambda: HistGradientBoostingClassifier(max_iter=5, random_state=0),
}


def fitted(name: str) -> tuple[Any, Any]:
    features, classes = load_wine(return_X_y=True)
    return ESTIMATORS[name]().fit(features, classes), features


def never() -> Any:
    raise AssertionError("converted again")


def converted() -> Any:
    return treelite.sklearn.import_model(fitted("forest")[0])


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_kept_model_answers_to_the_bit(tmp_path: Path, name: str) -> None:
    """For one row and for many, by every method."""
    estimator, rows = fitted(name)
    kept = CheckedArtifacts(tmp_path / "checked").converted(ARTIFACT)
    fresh = backend.methods(estimator, kept)
    again = backend.methods(estimator, lambda _: kept(never))
    assert fresh.keys() == again.keys()
    for method, answer in fresh.items():
        for size in (1, len(rows)):
            assert again[method](rows[:size]).tobytes() == answer(rows[:size]).tobytes()
    assert kept.path.stat().st_mode & 0o777 == 0o400
    assert kept.path.parent.stat().st_mode & 0o777 == 0o700


def rewrite(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def another_magic(content: bytes) -> bytes:
    return content.replace(b"model 1", b"model 2", 1)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda content: content[:-1],
    "empty": lambda content: b"",
    "one bit": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "an entry": another_magic,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_converted_again(tmp_path: Path, damage: str) -> None:
    """And is whole after that."""
    kept = CheckedArtifacts(tmp_path).converted(ARTIFACT)
    kept(converted)
    whole = kept.path.read_bytes()
    rewrite(kept.path, DAMAGES[damage](whole))
    kept(converted)
    assert kept.path.read_bytes() == whole


def test_a_file_that_is_not_this_users_alone_or_of_another_artifact_is_not_read(tmp_path: Path) -> None:
    """Whatever its checksum says."""
    store, calls = CheckedArtifacts(tmp_path), []

    def convert() -> Any:
        calls.append(1)
        return converted()

    kept, other = store.converted(ARTIFACT), store.converted("cd" * 32)
    kept(convert)
    kept.path.rename(other.path)
    other(convert)
    assert len(calls) == 2
    other.path.chmod(0o422)
    other(convert)
    assert len(calls) == 3
    content = other.path.read_bytes()
    other.path.unlink()
    (tmp_path / "elsewhere").write_bytes(content)
    other.path.symlink_to(tmp_path / "elsewhere")
    other(convert)
    assert len(calls) == 4
    assert not other.path.is_symlink()


def test_without_a_folder_each_load_converts(tmp_path: Path) -> None:
    """For example on a full or read-only disk; a file stands for it here."""
    (tmp_path / "file").write_bytes(b"")
    kept = CheckedArtifacts(tmp_path / "file").converted(ARTIFACT)
    for _ in range(2):
        assert kept(converted).num_tree == 5


def test_an_error_of_the_conversion_is_raised_and_nothing_is_kept(tmp_path: Path) -> None:
    """The caller knows what it means."""
    kept = CheckedArtifacts(tmp_path).converted(ARTIFACT)
    with pytest.raises(AssertionError, match="converted again"):
        kept(never)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def published(tmp_path: Path) -> Contract:
    estimator, rows = fitted("forest")
    contract = publish("wine", estimator, rows, repository=tmp_path / "models", quick=True)
    routes = (Route("treelite", 8, fallback=Route("tree_walk")), Route("treelite", fallback=Route("sklearn_trees")))
    contract = msgspec.structs.replace(contract, routes=routes)
    rewrite(tmp_path / "models" / "wine" / "1" / "contract.json", schema.encode(contract))
    return contract


def test_a_second_load_converts_nothing(tmp_path: Path, published: Contract, monkeypatch: pytest.MonkeyPatch) -> None:
    """A preflight keeps the model, workers read it; the two routes of treelite share one."""
    store = CheckedArtifacts(tmp_path / "checked")
    first = check_version(tmp_path / "models", "wine", 1, Repository(), checked=store)
    files = sorted(file.suffix for file in (tmp_path / "checked").iterdir() if not file.name.startswith("."))
    assert files == [".entry", ".treelite"]
    monkeypatch.setattr(treelite.sklearn, "import_model", never)
    again = check_version(tmp_path / "models", "wine", 1, Repository(), checked=store)
    assert isinstance(first, RoutedRuntime)
    assert isinstance(again, RoutedRuntime)
    assert again.used == first.used


def test_a_kept_model_that_answers_otherwise_is_not_used(tmp_path: Path, published: Contract) -> None:
    """The golden rows are compared with the estimator at each load: the estimator then answers alone."""
    store = CheckedArtifacts(tmp_path / "checked")
    features, classes = load_wine(return_X_y=True)
    other = RandomForestClassifier(5, random_state=1).fit(features, classes)
    store.converted(published.artifact.sha256)(lambda: treelite.sklearn.import_model(other))
    served = check_version(tmp_path / "models", "wine", 1, Repository(), checked=store)
    assert not isinstance(served, RoutedRuntime)


def test_models_of_removed_versions_are_swept(tmp_path: Path) -> None:
    """With the entries, and however old they are; the others stay."""
    store = CheckedArtifacts(tmp_path)
    kept, gone = store.converted(ARTIFACT), store.converted("cd" * 32)
    for each in (kept, gone):
        each(converted)
        os.utime(each.path, (0, 0))
    store.sweep([ARTIFACT])
    assert [file.name for file in tmp_path.iterdir()] == [kept.path.name]
    assert store.count() == 0


def test_rows_of_another_width_are_refused(tmp_path: Path) -> None:
    """As by a model that was converted here: treelite would read past their end."""
    estimator, rows = fitted("forest")
    kept = CheckedArtifacts(tmp_path).converted(ARTIFACT)
    backend.methods(estimator, kept)
    found = backend.methods(estimator, kept)["predict_proba"]
    with pytest.raises(backend.EstimatorRequired):
        found(np.ascontiguousarray(rows[:, :2]))
