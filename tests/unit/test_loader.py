"""The loader: it checks a version against its contract, and a version that fails never replaces a served one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.ensemble import RandomForestRegressor
from sklearn.preprocessing import FunctionTransformer

from tableside.contracts import schema
from tableside.contracts.environment import sha256
from tableside.contracts.schema import Contract
from tableside.errors import FailureKind, ModelNotFound, ModelNotReady
from tableside.preflight.results import PreflightResult, PreflightResults, VersionFiles
from tableside.process.offload import make_offload
from tableside.publishing.publish import publish
from tableside.repository import model_toml_edits
from tableside.serving.catalog import EMPTY
from tableside.serving.lifecycle import State
from tableside.serving.loader import load_catalog
from tableside.serving.registry import Registry
from tableside.serving.scan import fingerprint, versions_to_load
from tableside.serving.worker_status import status_of
from tableside.settings import Repository, load
from tableside.telemetry import metrics
from tests import skewed_environment

POLICY = Repository()
Damage = Callable[[Path], None]


def rewrite(folder: Path, change: Callable[[Contract], Contract]) -> None:
    path = folder / "contract.json"
    content = schema.encode(change(schema.decode(path.read_bytes())))
    path.chmod(0o644)
    path.write_bytes(content)


def second_version(root: Path) -> Path:
    folder = root / "iris" / "2"
    shutil.copytree(root / "iris" / "1", folder)
    rewrite(folder, lambda contract: msgspec.structs.replace(contract, version=2))
    return folder


def flip_a_byte(folder: Path) -> None:
    path = folder / "model.skops"
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_an_answer(folder: Path) -> None:
    def change(contract: Contract) -> Contract:
        rows = contract.golden.answers["predict"]
        answers = {**contract.golden.answers, "predict": (("virginica",), *rows[1:])}
        return msgspec.structs.replace(contract, golden=msgspec.structs.replace(contract.golden, answers=answers))

    rewrite(folder, change)


def change_the_library(folder: Path) -> None:
    environment = {"scikit-learn": "0.24.2"}
    rewrite(folder, lambda contract: msgspec.structs.replace(contract, environment=environment))


def change_a_column(folder: Path) -> None:
    def change(contract: Contract) -> Contract:
        first = msgspec.structs.replace(contract.input.columns[0], name="renamed")
        columns = (first, *contract.input.columns[1:])
        return msgspec.structs.replace(contract, input=msgspec.structs.replace(contract.input, columns=columns))

    rewrite(folder, change)


def change_the_name(folder: Path) -> None:
    rewrite(folder, lambda contract: msgspec.structs.replace(contract, name="other"))


def remove_the_artifact(folder: Path) -> None:
    (folder / "model.skops").unlink()


def tear_the_contract(folder: Path) -> None:
    path = folder / "contract.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("damage", "expected", "failure_kind"),
    [
        (flip_a_byte, "model.skops is damaged: its sha256 is", FailureKind.DAMAGED),
        (change_an_answer, "golden row 0: predict[0] is 'setosa', at publish 'virginica'", FailureKind.GOLDEN),
        (change_the_library, "scikit-learn was 0.24.2 at publish", FailureKind.ENVIRONMENT),
        (change_a_column, "renamed", FailureKind.GOLDEN),
        (skewed_environment.swap_columns, "the golden rows could not be computed: ValueError", FailureKind.GOLDEN),
        (change_the_name, "belongs to other/2", FailureKind.CONTRACT),
        (remove_the_artifact, "model.skops cannot be read: No such file", FailureKind.DAMAGED),
        (tear_the_contract, "contract.json: ", FailureKind.CONTRACT),
    ],
)
def test_a_broken_version_is_passed_over(
    small_repository: Path, damage: Damage, expected: str, failure_kind: FailureKind
) -> None:
    """A version that breaks its contract is UNAVAILABLE with the reason, and the older version is picked."""
    before = load_catalog(small_repository, POLICY, 1, EMPTY)
    damage(second_version(small_repository))
    for catalog in (
        load_catalog(small_repository, POLICY, 2, before),
        load_catalog(small_repository, POLICY, 2, EMPTY),
    ):
        broken = catalog.find("iris", "2")
        assert broken.state is State.UNAVAILABLE
        assert expected in broken.reason
        assert broken.failure_kind is failure_kind
        assert catalog.servable("iris").version == 1
        with pytest.raises(ModelNotReady, match="iris/2 is UNAVAILABLE"):
            catalog.servable("iris", "2")
    assert load_catalog(small_repository, POLICY, 2, before).find("iris", "1") is before.find("iris", "1")


def test_a_good_new_version_is_picked(small_repository: Path) -> None:
    """A new version that keeps its contract is picked from the next catalog on."""
    before = load_catalog(small_repository, POLICY, 1, EMPTY)
    second_version(small_repository)
    assert load_catalog(small_repository, POLICY, 2, before).servable("iris").version == 2


def test_damage_under_a_served_version_is_noticed(small_repository: Path) -> None:
    """A version whose files are damaged after the load stays served, with the damage as its reason."""
    before = load_catalog(small_repository, POLICY, 1, EMPTY)
    flip_a_byte(small_repository / "iris" / "1")
    servable = load_catalog(small_repository, POLICY, 2, before).servable("iris")
    assert servable is before.servable("iris")
    assert "still serving what was loaded before" in servable.reason


def test_a_repaired_version_is_served_again(small_repository: Path) -> None:
    """A version that could not be loaded is loaded again at every reload, until it succeeds."""
    folder = second_version(small_repository)
    good = (folder / "contract.json").read_bytes()
    change_an_answer(folder)
    broken = load_catalog(small_repository, POLICY, 1, EMPTY)
    assert broken.find("iris", "2").state is State.UNAVAILABLE
    (folder / "contract.json").write_bytes(good)
    assert load_catalog(small_repository, POLICY, 2, broken).servable("iris").version == 2


def test_skew_may_be_allowed(small_repository: Path) -> None:
    """With `environment_skew = "warn"` another library is only a warning, if the trainer's golden answers agree."""
    change_the_library(small_repository / "iris" / "1")
    assert load_catalog(small_repository, Repository(environment_skew="warn"), 1, EMPTY).find("iris").reason
    skewed_environment.with_the_trainers_answers(small_repository / "iris" / "1")
    policy = Repository(environment_skew="warn")
    catalog = load_catalog(small_repository, policy, 1, EMPTY)
    served = catalog.servable("iris")
    assert (served.version, served.failure_kind) == (1, FailureKind.ENVIRONMENT)
    assert served.reason.startswith("scikit-learn was 0.24.2 at publish")
    assert load_catalog(small_repository, policy, 2, catalog).servable("iris").reason == served.reason
    change_an_answer(small_repository / "iris" / "1")
    refused = load_catalog(small_repository, policy, 3, EMPTY).find("iris")
    assert (refused.state, refused.failure_kind) == (State.UNAVAILABLE, FailureKind.GOLDEN)


def nameless(root: Path) -> Path:
    """Publish a forest that was fitted without column names, from a sample that has them; return its folder."""
    rows = pd.DataFrame(np.random.default_rng(1).normal(size=(80, 3)), columns=["a", "b", "c"])
    forest = RandomForestRegressor(4, random_state=0).fit(rows.to_numpy(), rows["a"] * 3 + rows["b"])
    publish("forest", forest, rows, repository=root)
    return root / "forest" / "1"


@pytest.mark.parametrize("other", [1, 2])
def test_swapped_names_of_a_nameless_matrix_are_noticed(tmp_path: Path, other: int) -> None:
    """Swapped column names that neither the estimator nor the golden rows notice break the checksums."""
    skewed_environment.swap_columns(nameless(tmp_path), 0, other)
    broken = load_catalog(tmp_path, POLICY, 1, EMPTY).find("forest")
    assert (broken.state, broken.failure_kind) == (State.UNAVAILABLE, FailureKind.DAMAGED)
    assert "does not match checksums.sha256 in the columns or their order" in broken.reason


@pytest.mark.parametrize("by", [1.0001, 50.0])
def test_a_threshold_is_noticed_wherever_it_lies(tmp_path: Path, by: float) -> None:
    """A changed threshold with a corrected hash breaks the golden rows if it is large, and the checksums otherwise."""
    folder = nameless(tmp_path)
    skewed_environment.move_a_threshold(folder, tree=3, by=by)
    broken = load_catalog(tmp_path, POLICY, 1, EMPTY).find("forest")
    assert broken.state is State.UNAVAILABLE
    assert broken.failure_kind is (FailureKind.GOLDEN if by > 2 else FailureKind.DAMAGED), broken.reason


def test_a_version_without_checksums_is_served(tmp_path: Path) -> None:
    """A version without `checksums.sha256`, which earlier releases did not write, is served."""
    (nameless(tmp_path) / "checksums.sha256").unlink()
    assert load_catalog(tmp_path, POLICY, 1, EMPTY).servable("forest").version == 1


def test_a_disabled_model_is_there_but_unloaded(small_repository: Path) -> None:
    """`enabled = false` makes every version UNAVAILABLE with that reason, and none gets a preflight."""
    assert model_toml_edits.set_enabled(small_repository, "iris", False)
    off = load_catalog(small_repository, POLICY, 1, EMPTY).find("iris")
    assert (off.state, off.reason) == (State.UNAVAILABLE, "unloaded: enabled is false in model.toml")
    assert versions_to_load(small_repository, EMPTY) == []
    assert not model_toml_edits.set_enabled(small_repository, "iris", False)
    assert model_toml_edits.set_enabled(small_repository, "iris", True)
    assert load_catalog(small_repository, POLICY, 2, EMPTY).servable("iris@champion").version == 1


def test_a_broken_model_file_is_a_reason_everywhere(small_repository: Path) -> None:
    """A model.toml that cannot be read is the reason of each version, whether it was served before or not."""
    good = load_catalog(small_repository, POLICY, 1, EMPTY)
    config = small_repository / "iris" / "model.toml"
    kept = config.read_bytes()
    config.write_text("[aliases\n")
    for before, state in ((EMPTY, State.UNAVAILABLE), (good, State.READY)):
        found = load_catalog(small_repository, POLICY, 2, before).find("iris")
        assert (found.state, found.failure_kind, "iris/model.toml" in found.reason) == (
            state,
            FailureKind.CONTRACT,
            True,
        )
    config.write_bytes(kept)
    assert load_catalog(small_repository, POLICY, 3, good).servable("iris").reason == ""


def test_a_bad_model_file_keeps_what_served(small_repository: Path) -> None:
    """While model.toml cannot be read, the versions and aliases of the last catalog stay."""
    before = load_catalog(small_repository, POLICY, 1, EMPTY)
    (small_repository / "iris" / "model.toml").write_text("[aliases\n")
    after = load_catalog(small_repository, POLICY, 2, before)
    assert after.servable("iris@champion") is before.servable("iris")
    assert "iris/model.toml" in after.model("iris").reason


def test_a_repository_that_is_gone_keeps_what_served(small_repository: Path, tmp_path: Path) -> None:
    """While the repository does not exist, the registry serves the last catalog and holds the reason in `failure`."""
    settings = load({"TABLESIDE__REPOSITORY__PATH": str(small_repository)})
    registry = Registry(settings, metrics.make(), make_offload(1))
    assert registry.not_ready() == "loading: the repository is being read"
    registry.reload(1)
    assert registry.not_ready() == ""
    small_repository.rename(tmp_path / "away")
    registry.reload(2)
    assert "does not exist" in registry.failure
    assert (registry.catalog.generation, registry.catalog.servable("iris").version) == (2, 1)
    (tmp_path / "away").rename(small_repository)
    registry.reload(3)
    assert registry.failure == ""


def test_a_removed_version_is_unloaded(small_repository: Path) -> None:
    """A version whose folder is gone is unloaded, and the others stay."""
    folder = second_version(small_repository)
    settings = load({"TABLESIDE__REPOSITORY__PATH": str(small_repository)})
    registry = Registry(settings, metrics.make(), make_offload(1))
    registry.reload(1)
    gone = registry.catalog.find("iris", "2")
    shutil.rmtree(folder)
    registry.reload(2)
    assert (gone.state, gone.reason) == (State.UNAVAILABLE, "no longer in the repository")
    assert registry.catalog.servable("iris").version == 1


def test_an_untrusted_type_is_not_loaded(small_repository: Path) -> None:
    """A skops file with a type that is not trusted is refused with the name of that type."""
    folder = small_repository / "iris" / "1"
    (folder / "model.skops").unlink()
    skops.io.dump(FunctionTransformer(shutil.rmtree), folder / "model.skops")
    fresh = sha256(folder / "model.skops")
    rewrite(folder, lambda c: msgspec.structs.replace(c, artifact=msgspec.structs.replace(c.artifact, sha256=fresh)))
    broken = load_catalog(small_repository, POLICY, 1, EMPTY).find("iris")
    assert broken.state is State.UNAVAILABLE
    assert "not trusted" in broken.reason
    assert "rmtree" in broken.reason


def iris_files(root: Path) -> VersionFiles:
    return VersionFiles("iris", 1, fingerprint(root, "iris", 1))


@pytest.mark.parametrize(
    ("results", "state", "reason"),
    [
        ({}, State.LOADING, "the preflight of this version is running"),
        ({"kind": FailureKind.NONE}, State.READY, ""),
        ({"kind": FailureKind.CRASHED, "reason": "SIGSEGV"}, State.UNAVAILABLE, "SIGSEGV"),
    ],
)
def test_the_result_of_a_preflight_decides(
    small_repository: Path, results: dict[str, str], state: State, reason: str
) -> None:
    """A version without a result stays LOADING, one that passed is loaded, and a failure is its reason."""
    known = {}
    if results:
        kind = FailureKind(results["kind"])
        known[iris_files(small_repository)] = PreflightResult(kind, results.get("reason", ""))
    catalog = load_catalog(small_repository, POLICY, 1, EMPTY, PreflightResults(known, complete=False))
    found = catalog.find("iris")
    assert (found.state, found.reason) == (state, reason)


def test_files_that_changed_during_the_reload_need_another_one(small_repository: Path) -> None:
    """If all preflights are over and none is of these files, the version is UNAVAILABLE until the next reload."""
    found = load_catalog(small_repository, POLICY, 1, EMPTY, PreflightResults({}, complete=True)).find("iris")
    assert (found.state, found.failure_kind) == (State.UNAVAILABLE, FailureKind.OTHER)
    assert found.reason == "the files of this version appeared or changed during the reload; reload again"


def test_only_changed_versions_are_loaded_again(small_repository: Path) -> None:
    """`versions_to_load` returns new versions and those whose files changed since the catalog was made."""
    assert versions_to_load(small_repository, EMPTY) == [iris_files(small_repository)]
    catalog = load_catalog(small_repository, POLICY, 1, EMPTY)
    assert versions_to_load(small_repository, catalog) == []
    (small_repository / "iris" / "1" / "contract.json").touch()
    assert versions_to_load(small_repository, catalog) == [iris_files(small_repository)]
    (small_repository / "iris" / "model.toml").write_text("[aliases\n")
    assert versions_to_load(small_repository, catalog) == [iris_files(small_repository)], "by the file in force"


def test_a_fingerprint_changes_with_any_file(small_repository: Path) -> None:
    """A new, removed or touched file changes the fingerprint, and a missing folder has none."""
    seen = {fingerprint(small_repository, "iris", 1)}
    folder = small_repository / "iris" / "1"
    (folder / "extra.txt").write_text("")
    seen.add(fingerprint(small_repository, "iris", 1))
    (folder / "extra.txt").write_text("longer")
    seen.add(fingerprint(small_repository, "iris", 1))
    assert len(seen) == 3
    assert fingerprint(small_repository, "iris", 99) is None


def test_a_missing_repository_is_named(tmp_path: Path) -> None:
    """The error has the path and the setting to correct."""
    with pytest.raises(FileNotFoundError, match=r"/none does not exist; create it, or correct repository\.path"):
        load_catalog(tmp_path / "none", POLICY, 1, EMPTY)


def test_requests_before_the_first_load_are_not_ready(small_repository: Path) -> None:
    """Without a catalog `wait_loaded` raises ModelNotReady at its time limit; after the load it returns at once."""
    settings = load({"TABLESIDE__REPOSITORY__PATH": str(small_repository)})
    registry = Registry(settings, metrics.make(), make_offload(1))
    assert not registry.wait_first(0.0)
    for wait in (lambda: registry.wait_loaded(0.0), lambda: registry.wait_servable("iris", None, 0.0)):
        with pytest.raises(ModelNotReady, match="still loading its models"):
            wait()
    registry.reload(1)
    assert registry.wait_loaded(0.0) is registry.catalog
    assert registry.wait_servable("iris", "champion", 0.0).version == 1
    with pytest.raises(ModelNotFound, match="no version or alias '9'"):
        registry.wait_servable("iris", "9", 0.0)


def test_a_draining_worker_gets_no_traffic(small_repository: Path) -> None:
    """`not_ready` returns the draining worker's reason even while its models are READY."""
    settings = load({"TABLESIDE__REPOSITORY__PATH": str(small_repository)})
    registry = Registry(settings, metrics.make(), make_offload(1))
    registry.reload(1)
    registry.draining = True
    assert registry.not_ready() == "draining: the worker is stopping"


def test_a_worker_says_whether_it_is_ready(small_repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ready` is true after the first load and until the worker drains; `instance_id` names its gunicorn master."""
    monkeypatch.setenv("TABLESIDE_INSTANCE_ID", "7-abc")
    settings = load({"TABLESIDE__REPOSITORY__PATH": str(small_repository)})
    registry = Registry(settings, metrics.make(), make_offload(1))
    started_at = datetime(2026, 1, 2, tzinfo=UTC)
    assert status_of(registry, "a", started_at)["ready"] is False
    registry.reload(1)
    status = status_of(registry, "a", started_at)
    assert (status["ready"], status["instance_id"]) == (True, "7-abc")
    registry.report_draining()
    assert status_of(registry, "a", started_at)["ready"] is False


def test_a_status_file_tells_what_is_served(small_repository: Path) -> None:
    """The status of a worker has its generation, its failure and one entry for each version."""
    settings = load({"TABLESIDE__REPOSITORY__PATH": str(small_repository)})
    registry = Registry(settings, metrics.make(), make_offload(1))
    registry.reload(5)
    status = status_of(registry, "a", datetime(2026, 1, 2, tzinfo=UTC))
    assert (status["generation"], status["failure"], status["instance"]) == (5, "", "a")
    assert status["started_at"] == "2026-01-02T00:00:00+00:00"
    (entry,) = status["models"]  # type: ignore[misc]
    assert (entry["name"], entry["version"], entry["state"], entry["current"]) == ("iris", 1, "READY", True)
