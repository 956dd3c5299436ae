"""Checked artifacts: an artifact is audited once on a host, and later loads build the same estimator from its entry."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from tableside.contracts.environment import sha256
from tableside.contracts.table import Table
from tableside.errors import ContractBroken, FailureKind
from tableside.preflight.checks import check_version
from tableside.publishing.publish import publish
from tableside.repository import integrity
from tableside.runtimes import entry_file, golden, skops_audit, skops_records
from tableside.runtimes.checked_artifacts import CheckedArtifacts, Entry
from tableside.runtimes.object_equality import are_equal
from tableside.runtimes.sklearn import SklearnRuntime, load
from tableside.settings import Repository
from tests import estimator_zoo

RNG = np.random.default_rng(5)
ROWS = RNG.normal(size=(60, 3))
LABELS = (ROWS[:, 0] > 0).astype(int)


class Calls:
    """Counts the audits that skops makes: each builds the tree of all objects of a file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        for name in ("load", "get_untrusted_types"):
            monkeypatch.setattr(skops.io, name, self._counted(getattr(skops.io, name)))

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.count += "data" not in kwargs  # not those of skops_audit, which have no objects
            return call(*args, **kwargs)

        return counted


def saved(tmp_path: Path, estimator: object) -> Path:
    path = tmp_path / "model.skops"
    skops.io.dump(estimator, path)
    return path


def entry_of(tmp_path: Path, artifact: Path) -> Entry:
    return CheckedArtifacts(tmp_path / "checked").entry(sha256(artifact))


def forest() -> RandomForestClassifier:
    return RandomForestClassifier(5, random_state=0, n_jobs=2).fit(ROWS, LABELS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_estimator_is_built_again_to_the_bit(tmp_path: Path) -> None:
    """For each estimator of the zoo that a skops file can hold, the entry gives what skops gives, part by part."""
    plain = [case for _, case in estimator_zoo.plain_cases() if isinstance(case, estimator_zoo.Case)]
    cases = [case for case in [*plain, *estimator_zoo.composed_cases()] if case.name not in estimator_zoo.NOT_SERVED]
    without = []
    for case in cases:
        artifact = saved(tmp_path, case.estimator)
        held = skops.io.get_untrusted_types(file=artifact)
        own = skops.io.load(artifact, trusted=held)
        entry = entry_of(tmp_path, artifact)
        entry.path.parent.mkdir(exist_ok=True)
        entry.put(artifact, held, own, False)
        built = entry.open("model.skops", held)
        if built is None:
            without.append(case.name)
        else:
            assert are_equal(built.estimator, own), case.name
    assert without == []
    assert len(cases) > 150


@pytest.mark.parametrize(
    "estimator",
    [make_pipeline(StandardScaler(), LogisticRegression()), forest(), HistGradientBoostingClassifier(max_iter=5)],
    ids=["linear", "forest", "boosting"],
)
def test_an_artifact_is_audited_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, estimator: Any) -> None:
    """The first load of a version audits it once; the loads after it, of any process, read only the entry."""
    frame = pd.DataFrame(ROWS, columns=["a", "b", "c"])
    contract = publish("m", estimator.fit(frame, LABELS), frame, repository=tmp_path, quick=True)
    calls = Calls(monkeypatch)
    checked = CheckedArtifacts(tmp_path / "checked")
    answers = []
    for _ in range(3):
        loaded = check_version(tmp_path, "m", 1, Repository(), checked=checked)
        assert calls.count == 1
        answers.append(loaded.run("predict_proba", loaded.prepare(golden.golden_table(contract))))
    assert all(are_equal(answer, answers[0]) for answer in answers)


def test_a_loaded_forest_computes_with_one_thread(tmp_path: Path) -> None:
    """`n_jobs` is 1 after a load from the entry too, whatever the artifact says."""
    artifact = saved(tmp_path, forest())
    entry = entry_of(tmp_path, artifact)
    types = ["sklearn.tree._tree.Tree"]
    first, second = (load(artifact, expected=types, entry=entry) for _ in range(2))
    assert entry.path.is_file()
    assert (first.estimator.n_jobs, second.estimator.n_jobs) == (1, 1)
    assert are_equal(first.estimator, second.estimator)


def test_arrays_of_an_entry_are_shared_until_they_are_written(tmp_path: Path) -> None:
    """An array can be written, which changes neither the entry nor another load, and no descriptor stays open."""
    artifact = saved(tmp_path, LogisticRegression().fit(ROWS, LABELS))
    entry = entry_of(tmp_path, artifact)
    load(artifact, expected=(), entry=entry)
    open_files = len(os.listdir("/proc/self/fd"))
    one, other = (load(artifact, expected=(), entry=entry).estimator for _ in range(2))
    assert len(os.listdir("/proc/self/fd")) == open_files
    before = other.coef_.copy()
    one.coef_[:] = 7
    assert np.array_equal(other.coef_, before)
    assert np.array_equal(load(artifact, expected=(), entry=entry).estimator.coef_, before)
    assert (entry.path.stat().st_mode & 0o777, entry.path.parent.stat().st_mode & 0o777) == (0o400, 0o700)


def damage_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.chmod(0o600)
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.chmod(0o600)
    os.truncate(path, 0)


def let_others_write(path: Path) -> None:
    path.chmod(0o666)


def link_elsewhere(path: Path) -> None:
    path.rename(path.with_suffix(".other"))
    path.symlink_to(path.with_suffix(".other"))


@pytest.mark.parametrize("damage", [damage_a_byte, cut, empty, let_others_write, link_elsewhere])
def test_a_damaged_entry_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    """An entry that is not whole, or that another user could have written, is removed; the artifact is read again."""
    artifact = saved(tmp_path, LogisticRegression().fit(ROWS, LABELS))
    entry = entry_of(tmp_path, artifact)
    own = load(artifact, expected=(), entry=entry).estimator
    damage(entry.path)
    calls = Calls(monkeypatch)
    assert are_equal(load(artifact, expected=(), entry=entry).estimator, own)
    assert are_equal(load(artifact, expected=(), entry=entry).estimator, own)
    assert calls.count == 1


def test_an_entry_of_another_artifact_is_not_used(tmp_path: Path) -> None:
    """An entry that was copied to another artifact's name names its own artifact, and is made again."""
    (tmp_path / "other").mkdir()
    artifact = saved(tmp_path, LogisticRegression().fit(ROWS, LABELS))
    other = saved(tmp_path / "other", LogisticRegression().fit(ROWS, 1 - LABELS))
    entry, foreign = entry_of(tmp_path, artifact), entry_of(tmp_path, other)
    load(other, expected=(), entry=foreign)
    entry.path.write_bytes(foreign.path.read_bytes())
    assert are_equal(load(artifact, expected=(), entry=entry).estimator, skops.io.load(artifact))


def forged(tmp_path: Path, record: Any, types: list[tuple[str, str, str]], untrusted: tuple[str, ...] = ()) -> Entry:
    """An entry with a right checksum whose content nobody has audited."""
    entry = CheckedArtifacts(tmp_path).entry("a" * 64)
    entry_file.write(entry.path, "a" * 64, untrusted, skops_records.Records(record, types), True)
    return entry


def test_a_forged_entry_builds_no_type_that_skops_would_refuse(tmp_path: Path) -> None:
    """A type that skops' audit does not pass is never imported: neither `os.system` nor a class of the project."""
    marker = tmp_path / "ran"
    for loader in ("ObjectNode", "TypeNode", "FunctionNode", "ListNode", "TupleNode", "DictNode", "NdArrayNode",
                   "TreeNode", "LossNode", "SomethingElse"):  # fmt: skip
        record = ["reduced", 0, {f"touch {marker}": 1}, None]  # would call os.system with the key
        entry = forged(tmp_path, record, [(loader, "os", "system")])
        assert entry.open("model.skops", ()) is None
        assert not entry.path.exists()
    assert not marker.exists()
    named = forged(tmp_path, ["type", 0], [("TypeNode", "os", "system")], ("os.system",))
    with pytest.raises(ContractBroken, match=r"types that are not trusted: os\.system"):
        named.open("model.skops", ())


def test_a_function_that_a_file_may_name_is_never_called(tmp_path: Path) -> None:
    """The operator may trust a function as a parameter of an estimator; an entry that would call it is removed."""
    marker = tmp_path / "ran"
    for kind in ("reduced", "object", "list", "tuple", "scalar"):
        entry = forged(
            tmp_path, [kind, 0, {f"touch {marker}": 1}, None], [("FunctionNode", "os", "system")], ("os.system",)
        )
        assert entry.open("model.skops", ("os.system",)) is None
    named = forged(tmp_path, ["type", 0], [("FunctionNode", "os", "system")], ("os.system",))
    built = named.open("model.skops", ("os.system",))
    assert built is not None
    assert built.estimator is os.system
    assert not marker.exists()


def test_a_type_that_is_no_longer_trusted_is_refused(tmp_path: Path) -> None:
    """What the operator has taken out of `repository.trusted_types` is refused, although an entry holds it."""
    artifact = saved(tmp_path, FunctionTransformer(hashlib.sha256))
    entry = entry_of(tmp_path, artifact)
    trusted = skops.io.get_untrusted_types(file=artifact)
    assert trusted
    load(artifact, trusted, expected=trusted, entry=entry)
    assert entry.path.is_file()
    with pytest.raises(ContractBroken, match="not trusted") as refused:
        load(artifact, (), expected=trusted, entry=entry)
    assert refused.value.failure_kind is FailureKind.UNTRUSTED


def test_skops_is_asked_once_for_each_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is skops' own, by kind of use: a class may be trusted as an object, and a function only as one."""
    assert skops_audit.untrusted([("ObjectNode", "sklearn.linear_model._base", "LinearRegression")]) == set()
    assert skops_audit.untrusted([("ObjectNode", "builtins", "eval")]) == {"builtins.eval"}
    assert skops_audit.untrusted([("TypeNode", "builtins", "str")]) == set()
    monkeypatch.setattr(skops.io, "get_untrusted_types", None)
    assert skops_audit.untrusted([("ObjectNode", "builtins", "eval")]) == {"builtins.eval"}


def test_where_no_entry_can_be_written_the_artifact_is_read(tmp_path: Path) -> None:
    """A folder that cannot be made costs the entry, not the model."""
    (tmp_path / "checked").write_text("a file where the folder should be")
    artifact = saved(tmp_path, LogisticRegression().fit(ROWS, LABELS))
    loaded = load(artifact, expected=(), entry=entry_of(tmp_path, artifact))
    assert are_equal(loaded.estimator, skops.io.load(artifact))


def test_entries_of_removed_versions_are_swept(tmp_path: Path) -> None:
    """`sweep` keeps the entries of the artifacts that are named, and removes others and old drafts."""
    checked = CheckedArtifacts(tmp_path)
    kept, gone = checked.entry("a" * 64), checked.entry("b" * 64)
    for entry in (kept, gone):
        entry_file.write(entry.path, "a", (), skops_records.Records(1), True)
    draft = tmp_path / ".draft"
    draft.write_text("")
    os.utime(draft, (0, 0))
    checked.sweep(["a" * 64])
    assert [file.name for file in tmp_path.iterdir()] == [kept.path.name]


def test_shared_parts_stay_shared(tmp_path: Path) -> None:
    """An object that two places share is built once, as skops does."""
    shared = StandardScaler().fit(ROWS)
    artifact = saved(tmp_path, make_pipeline(shared, "passthrough").set_params(passthrough=shared))
    entry = entry_of(tmp_path, artifact)
    for _ in range(2):
        steps = load(artifact, expected=(), entry=entry).estimator.steps
        assert steps[0][1] is steps[1][1]


def test_a_difference_is_found_wherever_it_is() -> None:
    """`are_equal` compares types, structure and bits: -0.0 is not 0.0, 1 is not True, and C is not Fortran's order."""
    table = np.arange(6.0).reshape(2, 3)
    same = [({"a": [1, (2, "x"), np.arange(3)]}, {"a": [1, (2, "x"), np.arange(3)]}), (float("nan"), float("nan"))]
    other = [
        (0.0, -0.0), (1, True), (1, 1.0), ([1], (1,)), ({"a": 1}, {"b": 1}), (table, np.asfortranarray(table)),
        (np.array([0.0]), np.array([-0.0])), (np.array([1], object), np.array([2], object)), ({1}, {2}),
        (np.float32(1), np.float64(1)), (StandardScaler(), StandardScaler(with_mean=False)), (str, int),
        (forest(), RandomForestClassifier(5, random_state=1, n_jobs=2).fit(ROWS, LABELS)),
    ]  # fmt: skip
    assert all(are_equal(one, two) for one, two in same)
    assert not any(are_equal(one, two) for one, two in other)


def test_odd_values_survive(tmp_path: Path) -> None:
    """Numbers that JSON does not have, text keys, numbers as keys and tables of objects are what they were."""
    estimator = FunctionTransformer(kw_args={
        "nan": float("nan"), "big": 1 << 80, "keys": {1: "a", "b": None}, "bytes": b"\x00\xff", "slice": slice(1, 3),
        "objects": np.array([["a", None], [1.5, "b"]], dtype=object), "set": {1, 2}, "inf": -float("inf"),
        "random": np.random.default_rng(3), "old": np.random.RandomState(3), "text": "\u00e9\u2028", "zero": -0.0,
    })  # fmt: skip
    artifact = saved(tmp_path, estimator)
    entry = entry_of(tmp_path, artifact)
    own = load(artifact, expected=(), entry=entry).estimator
    built = entry.open("model.skops", ())
    assert built is not None
    assert are_equal(built.estimator, own)
    assert str(built.estimator.kw_args["nan"]) == "nan"


def test_pipelines_with_sparse_steps_and_losses_answer_alike(tmp_path: Path) -> None:
    """An encoder with text categories and a linear model with a compiled loss answer as the artifact does."""
    frame = pd.DataFrame({"shade": ["red", "blue", "red", "green"] * 10})
    fitted = make_pipeline(OneHotEncoder(), SGDClassifier(random_state=0)).fit(frame, [0, 1, 0, 1] * 10)
    contract = publish("m", fitted, frame, repository=tmp_path, quick=True)
    artifact = integrity.check_artifact(tmp_path, contract)
    entry = entry_of(tmp_path, artifact)
    table: Table = golden.golden_table(contract)
    answers = []
    for _ in range(2):
        loaded: SklearnRuntime = load(artifact, expected=contract.types, entry=entry)
        answers.append(loaded.run("decision_function", loaded.prepare(table)))
    assert entry.path.is_file()
    assert are_equal(answers[0], answers[1])


def test_the_skops_format_that_is_known_is_the_one_that_is_written(tmp_path: Path) -> None:
    """If a release of skops writes another protocol, no entry is made, and this test says so."""
    with zipfile.ZipFile(saved(tmp_path, StandardScaler())) as archive:
        assert json.loads(archive.read("schema.json"))["protocol"] == skops_records.PROTOCOL


def test_building_leaves_nothing_for_the_garbage_collector(tmp_path: Path) -> None:
    """A built estimator is freed with its mapped file when nothing refers to it: no circle holds its arrays."""
    artifact = saved(tmp_path, make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, LABELS))
    entry = entry_of(tmp_path, artifact)
    load(artifact, expected=(), entry=entry)
    gc.collect()
    gc.disable()
    try:
        estimator = load(artifact, expected=(), entry=entry).estimator
        assert str(tmp_path) in Path("/proc/self/maps").read_text()
        del estimator
        assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    finally:
        gc.enable()
